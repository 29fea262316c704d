"""Byte-pair encoding of GPT-2 and its kin, as one TensorFlow graph: for training, evaluation and exports alike.

Lossless: the bytes of a text's tokens, joined, are the text, so that cumulative byte lengths are offsets (but for NUL
and one character that is none, for which neighbours of equal length stand in).

Sources: Sennrich et al. (https://arxiv.org/abs/1508.07909) for the merges; Radford et al., GPT-2 (2019), for bytes as
the alphabet and the pattern that splits a text into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

Split = Literal["gpt2", "llama3", "bloom"]

# RE2's \s is ASCII only; the tokenizers were trained with Unicode's.
_SPACE = r"\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
# The patterns use a look-ahead, `\s+(?!\S)`: of a run of spaces, the last belongs to the next word. RE2 has none, so a
# mark is put before that space. U+10FFFF is no character; where a text holds it, its neighbour stands in for it.
_MARK, _MARKS_NEIGHBOUR = "\U0010ffff", "\U0010fffe"
# Bloom cuts at spaces and at these signs only, and keeps a run of them whole but for a space before the next word.
_BLOOM_CUTS = rf"{_SPACE}(|.,!?…。，、।۔،)"
_BEFORE_LAST_SPACE: dict[str, str] = {
    "gpt2": rf"([{_SPACE}])([{_SPACE}][^{_SPACE}])",
    # Not before a line end, which Llama 3's pattern keeps with the spaces before it.
    "llama3": rf"([{_SPACE}])([\t\x0b\f \x{{85}}\x{{a0}}\x{{1680}}\x{{2000}}-\x{{200a}}\x{{202f}}\x{{3000}}]"
    rf"[^{_SPACE}])",
    "bloom": rf"([{_BLOOM_CUTS}])( [^{_BLOOM_CUTS}])",
}
_PIECES: dict[str, str] = {
    "gpt2": (rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^{_SPACE}\p{{L}}\p{{N}}{_MARK}]+|[{_SPACE}]+"),
    "llama3": (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}{_MARK}]?\p{{L}}+|\p{{N}}{{1,3}}|"
        rf" ?[^{_SPACE}\p{{L}}\p{{N}}{_MARK}]+[\r\n]*|[{_SPACE}]*[\r\n]+|[{_SPACE}]+"
    ),
    "bloom": rf" ?[^{_BLOOM_CUTS}{_MARK}]+|[{_BLOOM_CUTS}]+",
}
# The time for one piece grows with the square of its length. Longer ones are cut, which no usual text notices.
LONGEST_PIECE = 256


def byte_characters() -> list[str]:
    """The printable character that stands for each byte, 0 to 255, in vocabularies of this kind."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


class BytePairs(tf.Module):
    """A vocabulary and its merges.

    Args:
        vocabulary: tokens in the order of their ids, each written in `byte_characters`.
        merges: pairs such as `Ġ t`, the earliest first.
        split: the pattern that cuts a text into pieces, within which alone pairs are merged.
        prefix_space: whether a text is given a leading space.
        unknown: the id of a byte that is not in the vocabulary.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        merges: Sequence[str],
        split: Split = "gpt2",
        prefix_space: bool = False,
        unknown: int = 0,
    ):
        super().__init__()
        self.split, self.prefix_space = split, prefix_space
        ids = {token: number for number, token in enumerate(vocabulary)}
        size = len(vocabulary)
        characters = byte_characters()
        # A byte without a token of its own gets a number above the vocabulary until the merging is done.
        first = [ids.get(character, size + byte) for byte, character in enumerate(characters)]
        self._first = np.array(first, np.int32)
        self._final = np.array([*range(size), *[unknown] * 256], np.int32)
        known = set(characters)
        lengths = [len(token) if known.issuperset(token) else len(token.encode()) for token in vocabulary]
        self._lengths = np.array([*lengths, *[1] * 256], np.int32)
        self._radix = size + 256
        keys, merged = [], []
        seen: set[int] = set()
        for merge in merges:
            left, _, right = merge.partition(" ")
            if left in ids and right in ids and left + right in ids:
                key = ids[left] * self._radix + ids[right]
                if key not in seen:
                    seen.add(key)
                    keys.append(key)
                    merged.append(ids[left + right])
        self._none = len(keys)
        self._merged = np.array([*merged, 0], np.int32)
        # Sorted for a binary search, with one key that is no pair's. A hash table would be a resource that an export
        # has to track and fill, and looks up no faster here.
        order = np.argsort(np.array(keys, np.int64), kind="stable")
        self._keys = np.append(np.array(keys, np.int64)[order], np.iinfo(np.int64).max)
        self._ranks = np.append(order, self._none).astype(np.int32)

    def tokenize_with_offsets(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """String [N] -> ids, starts and ends, int32 [N, None] each; offsets in bytes of the text as UTF-8."""
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        if self.prefix_space:
            texts = tf.strings.join([" ", texts])
        pieces = self._pieces(texts)
        words, which = tf.unique(pieces.flat_values)
        tokens = tf.gather(self._tokens_of(words), which)
        tokens = tf.RaggedTensor.from_row_splits(tokens, pieces.row_splits).merge_dims(1, 2)
        lengths = tokens.with_values(tf.gather(self._lengths, tokens.values))
        ends = tf.cumsum(lengths.values)
        before = tf.gather(tf.concat([[0], ends], 0), tokens.row_splits[:-1])
        ends = ends - tf.gather(before, tokens.value_rowids())
        starts = ends - lengths.values
        if self.prefix_space:
            starts, ends = tf.maximum(starts - 1, 0), tf.maximum(ends - 1, 0)
        ids = tokens.with_values(tf.gather(self._final, tokens.values))
        return ids, tokens.with_values(starts), tokens.with_values(ends)

    def _pieces(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """String [N] -> string [N, None], which joined are the text."""
        # TF Text's splitting takes a NUL for the end of the text; the control character next to it stands in for it.
        texts = tf.strings.regex_replace(texts, r"\x00", "\x01")
        texts = tf.strings.regex_replace(texts, _MARK, _MARKS_NEIGHBOUR)
        texts = tf.strings.regex_replace(texts, _BEFORE_LAST_SPACE[self.split], rf"\1{_MARK}\2")
        pattern = _PIECES[self.split]
        return tf_text.regex_split(texts, rf"{pattern}|{_MARK}", pattern)

    def _tokens_of(self, words: tf.Tensor) -> tf.RaggedTensor:
        """String [U] -> int32 [U, None], ids before `_final`."""
        split = tf.strings.bytes_split(words)
        flat = tf.reshape(tf.io.decode_raw(split.values, tf.uint8), [-1])
        numbers = tf.gather(self._first, tf.cast(flat, tf.int32))
        sizes = tf.cast(split.row_lengths(), tf.int32)
        parts = (sizes + LONGEST_PIECE - 1) // LONGEST_PIECE
        owner = tf.repeat(tf.range(tf.size(sizes)), parts)
        place = tf.range(tf.size(owner)) - tf.gather(tf.cumsum(parts, exclusive=True), owner)
        part_sizes = tf.minimum(tf.gather(sizes, owner) - place * LONGEST_PIECE, LONGEST_PIECE)
        rows = tf.RaggedTensor.from_row_lengths(numbers, tf.cast(part_sizes, tf.int64)).to_tensor(-1)
        merged = tf.RaggedTensor.from_tensor(self._merge(rows), padding=-1)
        return tf.RaggedTensor.from_row_lengths(merged, tf.cast(parts, tf.int64)).merge_dims(1, 2)

    def _merge(self, rows: tf.Tensor) -> tf.Tensor:
        """int32 [R, L], padded with -1 -> the same, with no pair left to merge."""

        def rank(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
            keys = tf.reshape(tf.cast(left, tf.int64) * self._radix + tf.cast(right, tf.int64), [-1])
            place = tf.searchsorted(self._keys, keys)
            found = tf.where(tf.gather(self._keys, place) == keys, tf.gather(self._ranks, place), self._none)
            return tf.where((left >= 0) & (right >= 0), tf.reshape(found, tf.shape(left)), self._none)

        def step(rows: tf.Tensor, done: tf.Tensor, live: tf.Tensor, numbers: tf.Tensor) -> Any:
            # `live` rows still have pairs to merge; `numbers` says which rows they are, `done` takes them back.
            ranks = rank(live[:, :-1], live[:, 1:])
            best = tf.reduce_min(ranks, axis=1)
            going = best < self._none
            done = tf.tensor_scatter_nd_update(
                done, tf.boolean_mask(numbers, ~going)[:, None], tf.boolean_mask(live, ~going)
            )
            live, numbers = tf.boolean_mask(live, going), tf.boolean_mask(numbers, going)
            at = tf.argmin(tf.boolean_mask(ranks, going), axis=1, output_type=tf.int32)[:, None]
            token = tf.gather(self._merged, tf.boolean_mask(best, going))[:, None]
            columns = tf.range(tf.shape(live)[1])[None]
            moved = tf.concat([live[:, 1:], tf.fill([tf.shape(live)[0], 1], -1)], axis=1)
            live = tf.where(columns < at, live, tf.where(columns == at, token, moved))
            return rows, done, live, numbers

        # One more column than needed, so that a piece of one byte has a pair to look at, too.
        rows = tf.pad(rows, [[0, 0], [0, 1]], constant_values=-1)
        free = tf.TensorShape([None, None])
        _, done, _, _ = tf.while_loop(
            lambda rows, done, live, numbers: tf.size(numbers) > 0,
            step,
            (rows, rows, rows, tf.range(tf.shape(rows)[0])),
            shape_invariants=(free, free, free, tf.TensorShape([None])),
        )
        return done
