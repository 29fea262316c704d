"""Encoded files as strings in the graph: which one it is, and the bytes at a place."""

from __future__ import annotations

import tensorflow as tf

JPEG_MAGIC, PNG_MAGIC, RIFF_MAGIC, BMP_MAGIC = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM"


def starts_with(data: tf.Tensor, magic: bytes) -> tf.Tensor:
    """Bool scalar: whether a string scalar begins with these bytes."""
    return tf.strings.substr(data, 0, len(magic)) == magic


def read(data: tf.Tensor, position: tf.Tensor, count: int) -> tf.Tensor:
    """int64 [count]: bytes from a position on; zeros past the end."""
    position = tf.minimum(position, tf.cast(tf.strings.length(data), tf.int64))
    piece = tf.strings.substr(data, position, tf.constant(count, tf.int64))
    padded = tf.io.decode_raw(tf.strings.join([piece, bytes(count)]), tf.uint8)[:count]
    return tf.cast(tf.ensure_shape(padded, [count]), tf.int64)


def equal(read_bytes: tf.Tensor, text: bytes) -> tf.Tensor:
    """Bool scalar: whether these bytes are this text."""
    return tf.reduce_all(read_bytes == tf.constant(list(text), tf.int64))


def big_endian(read_bytes: tf.Tensor) -> tf.Tensor:
    """int64 scalar: the unsigned number of some bytes."""
    powers = [256**power for power in reversed(range(read_bytes.shape[0]))]
    return tf.reduce_sum(read_bytes * tf.constant(powers, tf.int64))
