"""EXIF orientation, read from the encoded bytes in the graph and undone, since TensorFlow's decoders ignore it.

Layouts: JPEG (ITU T.81, annex B) with Exif 2.32 (CIPA DC-008, 4.5 and 4.7), PNG's eXIf chunk (PNG extensions 1.5),
WebP's EXIF chunk (RFC 9649). A damaged Exif block counts as upright: it must never make an image unreadable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_transfer.vision import encoded

UPRIGHT = 1
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4
_EXIF = b"Exif\0\0"
_MAX_EXIF_BYTES = 65536
"""A JPEG segment cannot be longer; the orientation stands at the start of the longer blocks of other formats."""
_MIRRORED = [[False, False]] * 2 + [[o in (3, 4, 7, 8), o in (2, 3, 6, 7)] for o in range(2, 9)]
"""By orientation: whether rows and columns come in reverse, once sides that are swapped are put right."""
_MAX_SEGMENTS = 512
"""Stops the search in hostile files; a photo has some 5 to 30 segments before its pixels (a large ICC profile, 200)."""


@dataclass(frozen=True)
class _Form:
    """How a file is made of segments. Places and lengths count bytes of a segment's head, of `_HEAD` bytes."""

    first: int
    """Position of the first segment."""
    kind: tuple[int, ...]
    """Places of its type."""
    length: tuple[int, ...]
    """Places of its length, the most significant byte first."""
    more: int
    """The next segment begins by so many bytes later than the length says."""
    even: bool
    """Whether segments are padded to an even length."""
    exif: tuple[tuple[int, bytes], ...]
    """What stands at which place of an Exif block's segment."""
    block: int
    """Place at which the Exif block begins."""
    ends: tuple[tuple[int, int], ...]
    """Ranges of types, both ends included, at which the search ends."""


def _only(*kinds: bytes) -> tuple[tuple[int, int], ...]:
    """Ranges of one type each."""
    return tuple((code, code) for code in (int.from_bytes(kind, "big") for kind in kinds))


_JPEG_ENDS = ((0, 0xFEFF), (0xFFC0, 0xFFCF), (0xFFD9, 0xFFDF))
"""No marker; tables and frames, before which Exif stands: walking them too would cost half a decode of a small photo.
"""
_PNG_ENDS = _only(b"IDAT", b"IEND", bytes(4))
"""The pixels, first of all: files with thousands of small IDAT chunks would make the search slow."""
_RIFF_ENDS = _only(bytes(4), bytes(4), bytes(4))  # as many as the others
_FORMS = (
    # FF, marker, length (counts itself), payload.
    _Form(2, (0, 1), (2, 3), 2, False, ((0, b"\xff\xe1"), (4, _EXIF)), 4 + len(_EXIF), _JPEG_ENDS),
    # PNG: length of the payload, type, payload, checksum.
    _Form(8, (4, 5, 6, 7), (0, 1, 2, 3), 12, False, ((4, b"eXIf"),), 8, _PNG_ENDS),
    # RIFF, which WebP is: type, length of the payload (little endian), payload.
    _Form(12, (0, 1, 2, 3), (7, 6, 5, 4), 8, True, ((0, b"EXIF"),), 8, _RIFF_ENDS),
)
_HEAD = 10
_FILL = 0xFFFF
"""A JPEG's marker may be preceded by any number of bytes FF."""


def read(data: tf.Tensor) -> tf.Tensor:
    """The orientation that an encoded image asks for.

    Args:
        data: string scalar, the bytes of a JPEG, PNG or WebP file (any other gives 1).

    Returns:
        int32 scalar from 1 (upright) to 8, as Exif numbers them.
    """
    magics = (encoded.JPEG_MAGIC, encoded.PNG_MAGIC, encoded.RIFF_MAGIC)
    fits = tf.stack([encoded.starts_with(data, magic) for magic in magics])
    start = _search(data, tf.argmax(fits), tf.reduce_any(fits))
    return tf.cond(start < 0, lambda: tf.constant(UPRIGHT), lambda: _first_directory(data, start))


def undo(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The image turned upright.

    Args:
        image: [H, W, C], any dtype, as stored.
        orientation: int32 scalar, 1 to 8.

    Returns:
        [H, W, C], or [W, H, C] for the orientations 5 to 8; the same dtype.
    """

    def turned() -> tf.Tensor:
        sides = tf.where(swaps_sides(orientation), [1, 0, 2], [0, 1, 2])
        mirrored = tf.gather(tf.constant(_MIRRORED), orientation)
        return tf.reverse(tf.transpose(image, sides), tf.boolean_mask([0, 1], mirrored))

    upright = tf.cond(orientation == UPRIGHT, lambda: tf.identity(image), turned)
    height, width, channels = image.shape
    upright.set_shape([height, width, channels] if height == width else [None, None, channels])
    return upright


def swaps_sides(orientation: tf.Tensor) -> tf.Tensor:
    """Bool scalar: whether turning the image upright exchanges its height and width."""
    return orientation >= 5


def _search(data: tf.Tensor, which: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """int64 scalar: where the Exif block starts, found by walking the segments of the file; -1 if it has none.

    One loop for all forms, whose differences are numbers: every pipeline prepares this graph anew, which with a loop
    for each form took half a second.
    """

    def of_form(values: list[Any]) -> tf.Tensor:
        return tf.gather(tf.constant(values, tf.int64), which)

    kind_weights = of_form([_weights(form.kind) for form in _FORMS])
    length_weights = of_form([_weights(form.length) for form in _FORMS])
    wanted = of_form([_head(form.exif) for form in _FORMS])
    counts = of_form([_head((place, b"\1" * len(text)) for place, text in form.exif) for form in _FORMS])
    more, even = of_form([form.more for form in _FORMS]), of_form([int(form.even) for form in _FORMS])
    block, ends = of_form([form.block for form in _FORMS]), of_form([form.ends for form in _FORMS])
    first = of_form([form.first for form in _FORMS])

    def step(_: tf.Tensor, ended: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        head = encoded.read(data, position, _HEAD)
        kind, length = tf.reduce_sum(head * kind_weights), tf.reduce_sum(head * length_weights)
        is_exif = tf.reduce_all(head * counts == wanted)
        ended = is_exif | tf.reduce_any((kind >= ends[:, 0]) & (kind <= ends[:, 1]))
        following = tf.where(kind == _FILL, position + 1, position + more + length + even * (length % 2))
        return tf.where(is_exif, position + block, tf.constant(-1, tf.int64)), ended, following

    start, _, _ = tf.while_loop(
        lambda start, ended, position: tf.logical_not(ended),
        step,
        (tf.constant(-1, tf.int64), ~known, first),
        parallel_iterations=1,
        maximum_iterations=_MAX_SEGMENTS,
    )
    return start


def _weights(places: tuple[int, ...]) -> list[int]:
    """By which the bytes of a head are multiplied, so that their sum is the number at some places."""
    weights = [0] * _HEAD
    for power, place in enumerate(reversed(places)):
        weights[place] = 256**power
    return weights


def _head(pieces: Iterable[tuple[int, bytes]]) -> list[int]:
    """A segment's head with these bytes at their places, else zeros."""
    head = [0] * _HEAD
    for place, text in pieces:
        head[place : place + len(text)] = text
    return head


def _first_directory(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """int32 scalar: the orientation in the first TIFF directory of an Exif block."""
    start = tf.minimum(start, tf.cast(tf.strings.length(data), tf.int64))  # of a file that was cut off
    block = tf.io.decode_raw(tf.strings.substr(data, start, tf.constant(_MAX_EXIF_BYTES, tf.int64)), tf.uint8)
    block = tf.concat([tf.cast(block, tf.int64), tf.zeros([1], tf.int64)], 0)
    last = tf.size(block, tf.int64) - 1
    # A WebP's block may begin as a JPEG's segment does.
    prefix = tf.where(encoded.equal(encoded.read(data, start, len(_EXIF)), _EXIF), tf.constant(len(_EXIF), tf.int64), 0)
    little_endian = block[tf.minimum(prefix, last)] == ord("I")

    def number(position: tf.Tensor, count: int) -> tf.Tensor:
        """Unsigned numbers of so many bytes at some positions; bytes past the end are zeros."""
        places = position[..., tf.newaxis] + tf.range(count, dtype=tf.int64) + prefix
        digits = tf.gather(block, tf.minimum(places, last))
        powers = [256**place for place in range(count)]
        return tf.reduce_sum(digits * tf.where(little_endian, tf.constant(powers, tf.int64), powers[::-1]), -1)

    directory = number(tf.constant(4, tf.int64), 4)
    entries = tf.minimum(number(directory, 2), _MAX_EXIF_BYTES // 12)
    positions = directory + 2 + 12 * tf.range(entries)
    kinds = number(positions + 2, 2)
    values = tf.where(kinds == _LONG, number(positions + 8, 4), number(positions + 8, 2))
    wanted = (number(positions, 2) == _ORIENTATION_TAG) & ((kinds == _SHORT) | (kinds == _LONG))
    orientation = tf.reduce_sum(tf.where(wanted & (tf.cumsum(tf.cast(wanted, tf.int32)) == 1), values, 0))
    in_range = (orientation >= 1) & (orientation <= 8)
    return tf.cast(tf.where(in_range, orientation, UPRIGHT), tf.int32)
