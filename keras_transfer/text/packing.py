"""Packing: the texts of a split as inputs of a network, tokenized once and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_transfer.text import families
from keras_transfer.text.tokenizing import Tensors, Tokenizer

# Few lengths, since a traced function and its kernels warm up anew for each; steps of about a third waste little.
BUCKETS = (16, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048)
# The longest texts of a data set decide what a step costs in memory, and hardly what is learnt.
SHARE_IN_FULL = 0.99
TEXTS_TO_MEASURE = 20_000
TEXTS_AT_ONCE = 4_096


@dataclass(frozen=True)
class Packed:
    """Packed token ids of many texts, one after another."""

    ids: tf.Tensor
    """int32 [tokens of all texts]. Tensors, since an array would be copied into each graph that is traced."""
    segments: tf.Tensor
    """int8, alike: 0 up to the end of a first text, 1 after."""
    starts: tf.Tensor
    """int64 [texts]."""
    sizes: tf.Tensor
    """int32 [texts], special tokens included."""
    lengths: np.ndarray
    """The same, for planning batches."""
    pad: int

    def one(self, index: tf.Tensor, names: Sequence[str]) -> Tensors:
        """Traced: the inputs of one text, int32 [T] each."""
        return {name: value[0] for name, value in self.batch(index[None], None, names).items()}

    def batch(self, index: tf.Tensor, width: tf.Tensor | None, names: Sequence[str]) -> Tensors:
        """Traced: the inputs of some texts, int32 [B, width] each, padded; without a width to the longest of them."""
        sizes = tf.gather(self.sizes, index)
        width = tf.reduce_max(sizes) if width is None else width
        places = tf.range(width)[None]
        real = places < sizes[:, None]
        at = tf.gather(self.starts, index)[:, None] + tf.cast(places, tf.int64)
        at = tf.where(real, at, 0)
        found = {"padding_mask": tf.cast(real, tf.int32)}
        if "token_ids" in names:
            found["token_ids"] = tf.where(real, tf.gather(self.ids, at), self.pad)
        if "segment_ids" in names:
            found["segment_ids"] = tf.where(real, tf.cast(tf.gather(self.segments, at), tf.int32), 0)
        return {name: tf.ensure_shape(found[name], [index.shape[0], None]) for name in names}


def pack(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], length: int) -> Packed:
    """Texts, or pairs of texts, as packed ids of at most `length` tokens each."""
    parts = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        chunk = texts[start : start + TEXTS_AT_ONCE]
        first, *second = [tokenizer.encode_ragged(column) for column in zip(*chunk, strict=True)]
        ids, segments = tokenizer.graph_pack(first, second[0] if second else None, length)
        parts.append((ids.values.numpy(), segments.values.numpy().astype(np.int8), ids.row_lengths().numpy()))
    if not parts:
        parts = [(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(0, np.int64))]
    ids, segments, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    lengths = lengths.astype(np.int32)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return Packed(
        tf.constant(ids),
        tf.constant(segments),
        tf.constant(starts),
        tf.constant(lengths),
        lengths,
        tokenizer.layout.pad,
    )


def width_of_all(family: str, length: int) -> int | None:
    """The one length to which all inputs are padded, where the family reads padding; None where each batch has its own.

    Args:
        family: of the backbone.
        length: the most tokens in an input.
    """
    return length if families.reads_padding(family) else None


def buckets(length: int, family: str = "") -> tuple[int, ...]:
    """The few lengths to which batches are padded; the last is `length`."""
    if families.reads_padding(family):
        return (length,)
    return (*(size for size in BUCKETS if size < length), length)


def choose_length(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], wanted: int, longest: int) -> tuple[int, str]:
    """The length of inputs, and a line that says why.

    Args:
        tokenizer: of the backbone.
        texts: those of the training examples.
        wanted: as the recipe says; 0: so long that `SHARE_IN_FULL` of the texts are not shortened.
        longest: what the backbone takes.
    """
    step = max(1, len(texts) // TEXTS_TO_MEASURE)
    lengths = pack(tokenizer, texts[::step], 1 << 30).lengths
    needed = int(np.quantile(lengths, SHARE_IN_FULL, method="higher")) if len(lengths) else 1
    length = min(wanted or next((size for size in BUCKETS if size >= needed), BUCKETS[-1]), longest)
    cut = float((lengths > length).mean()) if len(lengths) else 0.0
    shortened = f"; {cut:.1%} of the texts are longer and keep their start and end" if cut else ""
    chosen = "as the recipe says" if wanted else f"since {SHARE_IN_FULL:.0%} of the texts have at most {needed}"
    return length, f"inputs of up to {length} tokens, {chosen}{shortened}"
