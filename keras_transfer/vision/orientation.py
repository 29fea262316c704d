"""EXIF orientation, read from the encoded bytes in the graph and undone, since TensorFlow's decoders ignore it.

Layouts: JPEG (ITU T.81, annex B) with Exif 2.32 (CIPA DC-008, 4.5 and 4.7), PNG's eXIf chunk (PNG extensions 1.5),
WebP's EXIF chunk (RFC 9649). A damaged Exif block counts as upright: it must never make an image unreadable.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_transfer.vision import encoded

UPRIGHT = 1
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4
_EXIF = b"Exif\0\0"
_MAX_EXIF_BYTES = 65536
"""A JPEG segment cannot be longer; the orientation stands at the start of the longer blocks of other formats."""
_MAX_SEGMENTS = 512
"""Stops the search in hostile files; a photo has some 5 to 30 segments before its pixels (a large ICC profile, 200)."""


def read(data: tf.Tensor) -> tf.Tensor:
    """The orientation that an encoded image asks for.

    Args:
        data: string scalar, the bytes of a JPEG, PNG or WebP file (any other gives 1).

    Returns:
        int32 scalar from 1 (upright) to 8, as Exif numbers them.
    """
    is_jpeg = encoded.starts_with(data, encoded.JPEG_MAGIC)
    is_png = encoded.starts_with(data, encoded.PNG_MAGIC)
    is_webp = encoded.starts_with(data, encoded.RIFF_MAGIC)
    form = tf.where(is_jpeg, 0, tf.where(is_png, 1, tf.where(is_webp, 2, 3)))
    start = tf.switch_case(
        form,
        [
            lambda: _search(data, 2, _jpeg_segment),
            lambda: _search(data, 8, _png_chunk),
            lambda: _search(data, 12, _webp_chunk),
            lambda: tf.constant(-1, tf.int64),
        ],
    )
    return tf.cond(start < 0, lambda: tf.constant(UPRIGHT), lambda: _first_directory(data, start))


def undo(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The image turned upright.

    Args:
        image: [H, W, C], any dtype, as stored.
        orientation: int32 scalar, 1 to 8.

    Returns:
        [H, W, C], or [W, H, C] for the orientations 5 to 8; the same dtype.
    """
    turned = [
        lambda: image,
        lambda: image[:, ::-1],
        lambda: image[::-1, ::-1],
        lambda: image[::-1],
        lambda: tf.transpose(image, (1, 0, 2)),
        lambda: tf.transpose(image, (1, 0, 2))[:, ::-1],
        lambda: tf.transpose(image, (1, 0, 2))[::-1, ::-1],
        lambda: tf.transpose(image, (1, 0, 2))[::-1],
    ]
    upright = tf.switch_case(orientation - 1, turned)
    height, width, channels = image.shape
    upright.set_shape([height, width, channels] if height == width else [None, None, channels])
    return upright


def swaps_sides(orientation: tf.Tensor) -> tf.Tensor:
    """Bool scalar: whether turning the image upright exchanges its height and width."""
    return orientation >= 5


Segment = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""(start of the Exif block or -1, whether the search ends here, position of the next segment)."""


def _search(data: tf.Tensor, first: int, segment: Callable[[tf.Tensor, tf.Tensor], Segment]) -> tf.Tensor:
    """int64 scalar: where the Exif block starts, found by walking the segments of the file; -1 if it has none."""

    def step(_: tf.Tensor, ended: tf.Tensor, position: tf.Tensor) -> Segment:
        return segment(data, position)

    start, _, _ = tf.while_loop(
        lambda start, ended, position: tf.logical_not(ended),
        step,
        (tf.constant(-1, tf.int64), tf.constant(False), tf.constant(first, tf.int64)),
        parallel_iterations=1,
        maximum_iterations=_MAX_SEGMENTS,
    )
    return start


def _jpeg_segment(data: tf.Tensor, position: tf.Tensor) -> Segment:
    """A JPEG segment: FF, marker, length (big endian, counts itself), payload."""
    head = encoded.read(data, position, 4 + len(_EXIF))
    is_fill = head[1] == 0xFF
    is_exif = (head[1] == 0xE1) & encoded.equal(head[4:], _EXIF)
    # Exif stands before the tables and frames (C0 to CF, DA to DF), which need no walk: it would cost half a decode of
    # a small photo.
    is_table = ((head[1] >= 0xC0) & (head[1] <= 0xCF)) | ((head[1] >= 0xD9) & (head[1] <= 0xDF))
    ended = (head[0] != 0xFF) | is_table | is_exif
    following = tf.where(is_fill, position + 1, position + 2 + encoded.big_endian(head[2:4]))
    return _found(is_exif, position + 4 + len(_EXIF)), ended, following


def _png_chunk(data: tf.Tensor, position: tf.Tensor) -> Segment:
    """A PNG chunk: length (big endian, of the payload), type, payload, checksum.

    The search ends at the pixels: files with thousands of small IDAT chunks would make it slow.
    """
    head = encoded.read(data, position, 8)
    is_exif = encoded.equal(head[4:], b"eXIf")
    ended = (
        is_exif
        | encoded.equal(head[4:], b"IDAT")
        | encoded.equal(head[4:], b"IEND")
        | encoded.equal(head[4:], bytes(4))
    )
    return _found(is_exif, position + 8), ended, position + 12 + encoded.big_endian(head[:4])


def _webp_chunk(data: tf.Tensor, position: tf.Tensor) -> Segment:
    """A RIFF chunk: type, length (little endian, of the payload), payload, padded to an even length."""
    head = encoded.read(data, position, 8 + len(_EXIF))
    is_exif = encoded.equal(head[:4], b"EXIF")
    length = encoded.big_endian(head[4:8][::-1])
    start = position + 8 + tf.where(encoded.equal(head[8:], _EXIF), tf.constant(len(_EXIF), tf.int64), 0)
    return _found(is_exif, start), is_exif | encoded.equal(head[:4], bytes(4)), position + 8 + length + length % 2


def _found(is_exif: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The start where the Exif block was found, else -1."""
    return tf.where(is_exif, start, tf.constant(-1, tf.int64))


def _first_directory(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """int32 scalar: the orientation in the first TIFF directory of an Exif block."""
    block = tf.io.decode_raw(tf.strings.substr(data, start, tf.constant(_MAX_EXIF_BYTES, tf.int64)), tf.uint8)
    block = tf.concat([tf.cast(block, tf.int64), tf.zeros([1], tf.int64)], 0)
    last = tf.size(block, tf.int64) - 1
    little_endian = block[0] == ord("I")

    def number(position: tf.Tensor, count: int) -> tf.Tensor:
        """Unsigned numbers of so many bytes at some positions; bytes past the end are zeros."""
        digits = [tf.gather(block, tf.minimum(position + place, last)) for place in range(count)]
        little = tf.add_n([digit * 256**place for place, digit in enumerate(digits)])
        big = tf.add_n([digit * 256**place for place, digit in enumerate(reversed(digits))])
        return tf.where(little_endian, little, big)

    directory = number(tf.constant(4, tf.int64), 4)
    entries = tf.minimum(number(directory, 2), _MAX_EXIF_BYTES // 12)
    positions = directory + 2 + 12 * tf.range(entries)
    kinds = number(positions + 2, 2)
    values = tf.where(kinds == _LONG, number(positions + 8, 4), number(positions + 8, 2))
    wanted = (number(positions, 2) == _ORIENTATION_TAG) & ((kinds == _SHORT) | (kinds == _LONG))
    orientation = tf.reduce_sum(tf.where(wanted & (tf.cumsum(tf.cast(wanted, tf.int32)) == 1), values, 0))
    in_range = (orientation >= 1) & (orientation <= 8)
    return tf.cast(tf.where(in_range, orientation, UPRIGHT), tf.int32)
