"""Encoded image to a square of pixels, in the graph: the one decode-and-resize of training, evaluation and export.

TensorFlow's decoder is the only one. JPEG is decoded with the accurate DCT, which equals Pillow's result bit by bit
(TensorFlow's default differs by 1.7 grey levels on average). Resizing is antialiased: pretrained weights expect it.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import tensorflow as tf

from keras_transfer.vision import encoded, orientation

How = Literal["crop", "pad", "stretch"]
HOWS: tuple[str, ...] = get_args(How)

PADDING = (124.0, 116.0, 104.0)
"""Colour around a padded image, 0-255: the mean of ImageNet, which every family's preprocessing takes near zero."""

DECODE_RATIOS = (1, 2, 4, 8)
"""The shrinking factors that a JPEG decoder offers at less than the cost of a full decode."""
DECODED_SIDE = 2
"""A shrunk decode is used where its side stays at least this many times the target. Measured on four photos of 0.3 to
5.7 megapixels, three qualities, targets of 64 to 299 pixels: the result differs from that of a full decode by 0.4 (1/2)
to 0.6 grey levels (1/4, 1/8) on average, 1.0 in the worst photo, 20 in the worst value; loading takes 0.7 of the
time."""
_PALETTE_BMP = "TensorFlow reads the colours of a BMP with a palette wrongly. Convert it to PNG or JPEG"
_WEBP, _WEBP_ALPHA, _OTHER = range(len(DECODE_RATIOS), len(DECODE_RATIOS) + 3)


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes one image at its full size, upright.

    JPEG (grey, CMYK, YCCK too), PNG (16-bit values keep their high byte), GIF (first frame), BMP and WebP; alpha is
    dropped. What the decoder gets wrong is refused beforehand by `headers.describe`.

    Args:
        data: string scalar, the bytes of the file.

    Returns:
        uint8 [H, W, 3], RGB, 0-255.

    Raises:
        tf.errors.InvalidArgumentError: when run, for bytes that are no such image.
    """
    image = _decode_stored(data, _form(data, tf.constant(0)))
    return orientation.undo(image, orientation.read(data))


def load(data: tf.Tensor, size: int, how: How) -> tf.Tensor:
    """Decodes one image and fits it to a square.

    A JPEG of at least four times the target is decoded at 1/2, 1/4 or 1/8 scale, always to at least twice the
    target. The result then differs from `resize(decode(data))` by the levels that `DECODED_SIDE` states; all other
    images are equal up to rounding.

    Args:
        data: string scalar, the bytes of the file.
        size: side of the square in pixels.
        how: `crop`, `pad` or `stretch`; see `geometry`.

    Returns:
        float32 [size, size, 3], RGB, 0-255.

    Raises:
        ValueError: for an unknown `how` or a size below 1.
        tf.errors.InvalidArgumentError: when run, for bytes that are no such image.
    """
    return load_with_size(data, size, how)[0]


def load_with_size(data: tf.Tensor, size: int, how: How) -> tuple[tf.Tensor, tf.Tensor]:
    """As `load`, with the size of the upright image, from which `geometry` takes boxes and masks back.

    Returns:
        float32 [size, size, 3], RGB, 0-255; and int32 [2], the height and width of the upright image in pixels.
    """
    _check(size, how)
    return _loader(size, how)(data)


@functools.cache
def _loader(size: int, how: How) -> Any:
    """`load_with_size` for one target, traced once: a graph of some 900 operations, which many pipelines want."""
    return tf.function(
        lambda data: _load_with_size(data, size, how), input_signature=[tf.TensorSpec([], tf.string)], autograph=False
    )


def _load_with_size(data: tf.Tensor, size: int, how: How) -> tuple[tf.Tensor, tf.Tensor]:
    is_jpeg = encoded.starts_with(data, encoded.JPEG_MAGIC)
    jpeg_sides = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(data)[:2], lambda: tf.zeros([2], tf.int32))
    step = tf.where(is_jpeg, _decode_step(jpeg_sides, size, how), 0)
    decoded = _decode_stored(data, _form(data, step))
    ratio = tf.gather(tf.constant(DECODE_RATIOS), step)
    sides = tf.where(is_jpeg, jpeg_sides, tf.shape(decoded)[:2])
    # Turned after resizing: the square is small, and each `how` treats both ends of both sides alike.
    square = _fit(decoded[tf.newaxis], sides, tf.cast(ratio, tf.float32), size, how)[0]
    turn = orientation.read(data)
    upright_sides = tf.where(orientation.swaps_sides(turn), sides[::-1], sides)
    return orientation.undo(square, turn), upright_sides


def decode_batch(data: tf.Tensor, size: int, how: How) -> tf.Tensor:
    """`load` for a batch, which may be empty; one bad image fails the batch.

    Args:
        data: string [N], the bytes of each file.
        size: side of the square in pixels.
        how: `crop`, `pad` or `stretch`; see `geometry`.

    Returns:
        float32 [N, size, size, 3], RGB, 0-255.
    """
    _check(size, how)
    square = tf.TensorSpec([size, size, 3], tf.float32)
    return tf.map_fn(lambda one: load(one, size, how), data, fn_output_signature=square)


def resize(image: tf.Tensor, size: int, how: How) -> tf.Tensor:
    """Fits one image to a square, antialiased bilinear.

    Args:
        image: [H, W, 3], any number type, 0-255.
        size: side of the square in pixels.
        how: `crop`, `pad` or `stretch`; see `geometry`.

    Returns:
        float32 [size, size, 3], 0-255.
    """
    return resize_batch(image[tf.newaxis], size, how)[0]


def resize_batch(images: tf.Tensor, size: int, how: How) -> tf.Tensor:
    """`resize` for images of one size.

    Args:
        images: [N, H, W, 3], any number type, 0-255; N may be 0.
        size: side of the square in pixels.
        how: `crop`, `pad` or `stretch`; see `geometry`.

    Returns:
        float32 [N, size, size, 3], 0-255.

    Raises:
        ValueError: for an unknown `how` or a size below 1.
    """
    _check(size, how)
    return _fit(images, tf.shape(images)[1:3], tf.constant(1.0), size, how)


def geometry(
    height: tf.Tensor | int, width: tf.Tensor | int, size: int, how: How
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where an image comes to lie in the square; also for boxes, and for taking boxes and masks back.

    `crop` scales the shorter side to the square and cuts the middle out of the longer one. `pad` scales the longer
    side to the square and centres the image between bands of `PADDING`; a very long image keeps a width of 2 pixels.
    `stretch` scales both sides to the square.

    A point (x, y) of the image comes to (x * scale_x + offset_x, y * scale_y + offset_y). Both count in pixels from
    the outer corner of the first one, whose middle is (0.5, 0.5), as boxes do.

    Args:
        height: height of the upright image in pixels.
        width: width of the upright image in pixels.
        size: side of the square in pixels.
        how: `crop`, `pad` or `stretch`.

    Returns:
        scale_y, scale_x, offset_y, offset_x: float32 scalars.

    Raises:
        ValueError: for an unknown `how` or a size below 1.
    """
    _check(size, how)
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    if how == "stretch":
        scales = size / sides
    elif how == "crop":
        scales = tf.fill([2], size / tf.reduce_min(sides))
    else:
        # At least 2 pixels, so that the middle of one pixel always falls inside, wherever the bands end.
        scales = tf.maximum(size / tf.reduce_max(sides), min(2.0, float(size)) / sides)
    offsets = (size - sides * scales) / 2
    return scales[0], scales[1], offsets[0], offsets[1]


def _check(size: int, how: str) -> None:
    """Refuses arguments that no image could meet."""
    if how not in HOWS:
        raise ValueError(f"how: expected one of {', '.join(HOWS)}. Received: {how!r}")
    if size < 1:
        raise ValueError(f"size: expected at least 1 pixel. Received: {size}")


def _form(data: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """int32 scalar: which decoder of `_decode_stored` reads these bytes, given the step for a JPEG."""
    is_jpeg = encoded.starts_with(data, encoded.JPEG_MAGIC)
    is_webp = encoded.starts_with(data, encoded.RIFF_MAGIC)
    webp = tf.where(_webp_has_alpha(data), _WEBP_ALPHA, _WEBP)
    return tf.where(is_jpeg, step, tf.where(is_webp, webp, _OTHER))


def _webp_has_alpha(data: tf.Tensor) -> tf.Tensor:
    """Bool scalar: whether a still WebP has four channels (RFC 9649: the flags of VP8X, or a bit of VP8L's header)."""
    head = encoded.read(data, tf.constant(12, tf.int64), 13)
    flags, last_byte = head[8], head[12]
    # An animation (bit 1) is decoded as three channels, which TensorFlow refuses in good order.
    extended = encoded.equal(head[:4], b"VP8X") & (tf.bitwise.bitwise_and(flags, 0x12) == 0x10)
    return extended | (encoded.equal(head[:4], b"VP8L") & (tf.bitwise.bitwise_and(last_byte, 0x10) != 0))


def _has_palette(data: tf.Tensor) -> tf.Tensor:
    """Bool scalar: whether this BMP has 8 bits a pixel and other colours than the greys in their order."""

    def number(place: int, count: int) -> tf.Tensor:
        return encoded.big_endian(encoded.read(data, tf.constant(place, tf.int64), count)[::-1])

    colours = tf.reshape(encoded.read(data, 14 + number(14, 4), 4 * 256), [256, 4])
    used = number(46, 4)
    counted = tf.range(256, dtype=tf.int64) < tf.where(used == 0, tf.constant(256, tf.int64), used)
    is_grey = tf.reduce_all(colours[:, :3] == tf.range(256, dtype=tf.int64)[:, tf.newaxis], 1)
    return (number(28, 2) == 8) & tf.reduce_any(counted & ~is_grey)


def _decode_step(sides: tf.Tensor, size: int, how: How) -> tf.Tensor:
    """int32 scalar: index into `DECODE_RATIOS` of the smallest decode that keeps the result."""
    ruling = tf.reduce_max(sides) if how == "pad" else tf.reduce_min(sides)
    needed = [ratio * DECODED_SIDE * size for ratio in DECODE_RATIOS[1:]]
    return tf.reduce_sum(tf.cast(ruling >= tf.constant(needed), tf.int32))


def _decode_stored(data: tf.Tensor, form: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] by the decoder of this index: JPEG at each ratio, WebP, or the rest; as stored, not turned."""

    def jpeg(ratio: int) -> tf.Tensor:
        return tf.io.decode_jpeg(data, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    def webp(channels: int) -> tf.Tensor:
        # It refuses to drop alpha by itself, and must be told the channels: where it finds them (channels=0), an
        # animation without alpha writes past its memory and ends the process (TensorFlow 2.21).
        return tf.io.decode_webp(data, channels=channels)[0, :, :, :3]

    def other() -> tf.Tensor:
        is_bmp = encoded.starts_with(data, encoded.BMP_MAGIC)
        palette = tf.cond(is_bmp, lambda: _has_palette(data), lambda: tf.constant(False))
        # Decoded as greys without a word. Files of a data set are refused before; this is for what a model is sent.
        with tf.control_dependencies([tf.debugging.Assert(~palette, [_PALETTE_BMP])]):
            return tf.io.decode_image(tf.identity(data), channels=3, expand_animations=False)

    decoders = [lambda ratio=ratio: jpeg(ratio) for ratio in DECODE_RATIOS]
    image = tf.switch_case(form, [*decoders, lambda: webp(3), lambda: webp(4), other])
    image.set_shape([None, None, 3])
    return image


def _fit(images: tf.Tensor, sides: tf.Tensor, ratio: tf.Tensor, size: int, how: How) -> tf.Tensor:
    """float32 [N, size, size, 3] from images decoded at 1/ratio of their true height and width."""
    scale_y, scale_x, offset_y, offset_x = geometry(sides[0], sides[1], size, how)
    squares = tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=[size, size],
        scale=tf.stack([scale_y, scale_x]) * ratio,
        translation=tf.stack([offset_y, offset_x]),
        kernel_type="triangle",
        antialias=True,
    )
    if how == "pad":
        inside = _inside(offset_y, size)[:, tf.newaxis] & _inside(offset_x, size)[tf.newaxis, :]
        squares = tf.where(inside[tf.newaxis, :, :, tf.newaxis], squares, tf.constant(PADDING))
    return tf.ensure_shape(squares, [images.shape[0], size, size, 3])


def _inside(offset: tf.Tensor, size: int) -> tf.Tensor:
    """Bool [size]: which pixels of one side have their middle on the image rather than on a band beside it."""
    middles = tf.range(size, dtype=tf.float32) + 0.5
    # The allowance is for rounding: a band's pixel taken for the image would be black.
    return (middles >= offset + 1e-3) & (middles <= size - offset - 1e-3)
