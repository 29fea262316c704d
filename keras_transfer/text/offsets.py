"""Offsets: where the tokens of a text stand in it, in characters, as one graph for training and exports alike.

A character is a Unicode code point, as in Python's `str`: an emoji of several joined code points counts as several, a
Windows line end as two. Tokenizers count bytes of UTF-8 instead, and byte-level ones cut inside a character.
"""

from __future__ import annotations

import re

import tensorflow as tf

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = (9, 10, 11, 12, 13, 32)  # in ASCII; a token may carry the space before its word
# The others, by their bytes in UTF-8: SentencePiece takes them for spaces.
_WIDE_SPACES = (
    (2, r"[\x{85}\x{a0}]"),
    (3, r"[\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"),
)


def encodable(text: str) -> str:
    """The text with U+FFFD for halves of surrogate pairs (JSON can hold them, UTF-8 cannot); as long as before."""
    return _LONE_SURROGATES.sub("\ufffd", text)


def repaired(texts: tf.Tensor) -> tf.Tensor:
    """String [N] with U+FFFD where bytes are no UTF-8, as the tokenizers read it."""
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")


def graph_characters(
    texts: tf.Tensor, starts: tf.RaggedTensor, ends: tf.RaggedTensor
) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """Tokens' places in characters, the white space around them left out.

    A token that begins or ends inside a character has that character whole. So has one of no bytes: WordPiece gives
    all bytes of a character that it takes apart (a Korean syllable, ß) to the last of its pieces.

    Args:
        texts: string [N], valid UTF-8; N may be 0.
        starts: int32 [N, None], first byte of each token.
        ends: int32 [N, None], byte after the last of each token.

    Returns:
        The first character of each token and the one after its last, int32 [N, None] each. A token of nothing but white
        space starts where the next one does and ends where the one before it does: not after its start.
    """
    joined = tf.strings.reduce_join(texts)
    plain = joined
    for size, pattern in _WIDE_SPACES:
        plain = tf.strings.regex_replace(plain, pattern, " " * size)
    data, plain = (tf.reshape(tf.io.decode_raw(each, tf.uint8), [-1]) for each in (joined, plain))
    total = tf.size(data)
    until = tf.cumsum(tf.strings.length(texts))
    base, end = (tf.gather(each, starts.value_rowids()) for each in (until - tf.strings.length(texts), until))
    first = base + starts.values
    last = tf.maximum(base + ends.values, tf.minimum(first + 1, end))
    # Of each byte: how many bytes before it are no space; then the number of a byte among these gives its place.
    solid = tf.reduce_all(plain[:, None] != tf.constant(_SPACES, tf.uint8), axis=1)
    solid_before = _counts(solid)
    places = tf.concat([tf.reshape(tf.where(solid), [-1]), [tf.cast(total, tf.int64)]], 0)
    places = tf.cast(places, tf.int32)
    first = tf.minimum(tf.gather(places, tf.gather(solid_before, first)), end)
    ending = tf.gather(solid_before, last)
    last = tf.maximum(tf.gather(places, tf.maximum(ending - 1, 0)) + 1, base)
    last = tf.where(ending > 0, last, base)
    # A byte 10xxxxxx goes on with a character; every other one begins one.
    begun = _counts(tf.bitwise.bitwise_and(data, tf.constant(0xC0, tf.uint8)) != 0x80)
    zero = tf.gather(begun, base)
    from_character = tf.where(first < end, tf.gather(begun, tf.minimum(first + 1, total)) - 1, tf.gather(begun, first))
    to_character = tf.gather(begun, last)
    return starts.with_values(from_character - zero), ends.with_values(to_character - zero)


def graph_slices(texts: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """String [N] -> the characters from `starts` to before `ends`, int32 [N] each; "" where the start is below 0."""
    texts = tf.where(starts < 0, "", texts)
    return tf.strings.substr(texts, tf.maximum(starts, 0), tf.maximum(ends - starts, 0), unit="UTF8_CHAR")


def _counts(flags: tf.Tensor) -> tf.Tensor:
    """Bool [n] -> int32 [n + 1]: how many are true before each."""
    return tf.concat([[0], tf.cumsum(tf.cast(flags, tf.int32))], 0)
