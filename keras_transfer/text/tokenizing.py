"""Tokenizer: texts to token ids, as one TensorFlow graph that training, evaluation and exports share.

Made from a keras_hub tokenizer, but kept as plain values (vocabulary, merges, special ids), so that a finished run or
an export needs neither keras_hub's classes nor the preset that it came from.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from keras_transfer.text.byte_pairs import BytePairs, Split

Kind = Literal["wordpiece", "byte_pairs", "sentencepiece"]
Tensors = dict[str, tf.Tensor]

TEXTS_AT_ONCE = 4_096
# Of a text that is too long, its start gets a quarter of the room and its end the rest, as in Sun et al., How to
# Fine-Tune BERT for Text Classification (https://arxiv.org/abs/1905.05583), who kept 128 and 382 of 512 tokens.
HEAD_SHARE = 0.25


@dataclass(frozen=True)
class Layout:
    """The special tokens of an input: `prefix`, text, `suffix`; or `prefix`, text, `middle`, text, `suffix`."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int = 0

    def specials(self, pair: bool = False) -> int:
        """How many special tokens an input has."""
        return len(self.prefix) + len(self.suffix) + (len(self.middle) if pair else 0)


@dataclass(frozen=True)
class TokenizerSpec:
    """All that makes a tokenizer, as plain values."""

    kind: Kind
    layout: Layout
    vocabulary: tuple[str, ...] = ()
    """Tokens in the order of their ids; empty for `sentencepiece`."""
    merges: tuple[str, ...] = ()
    """`byte_pairs`: earliest first, each two tokens and a space."""
    lowercase: bool = False
    """`wordpiece`: lower case, accents dropped."""
    split: Split = "gpt2"
    """`byte_pairs`: how a text is cut into pieces."""
    prefix_space: bool = False
    """`byte_pairs`: a space before the text."""
    unknown: int = 0
    proto: bytes = b""
    """`sentencepiece`: the model file."""
    offset: int = 0
    """`sentencepiece`: added to its ids, but for its id 0, unknown."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; long lists as one text each, which Keras saves and reads many times faster."""
        plain = asdict(self)
        for name in ("vocabulary", "merges"):
            plain[name] = json.dumps(plain[name], ensure_ascii=False)
        plain["proto"] = base64.b64encode(self.proto).decode()
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TokenizerSpec:
        """What `to_dict` described."""
        values = dict(plain)
        layout = values.pop("layout")
        parts = {name: tuple(layout[name]) for name in ("prefix", "middle", "suffix")}
        for name in ("vocabulary", "merges"):
            values[name] = tuple(json.loads(values[name]))
        values["proto"] = base64.b64decode(values["proto"])
        return cls(layout=Layout(**parts, pad=layout["pad"]), **values)


class Tokenizer:
    """Texts to token ids and to packed inputs.

    Special tokens are never read from a text: `[SEP]` in a review is five characters and no separator.
    """

    def __init__(self, spec: TokenizerSpec):
        self.spec = spec
        self.layout = spec.layout
        strings = [tf.TensorSpec([None], tf.string)]
        self._ids = tf.function(self.graph_encode, input_signature=strings, autograph=False)
        self._offsets = tf.function(self.graph_encode_with_offsets, input_signature=strings, autograph=False)

    @functools.cached_property
    def _core(self) -> Any:
        """The tables, made when first used: a listing or a model's restoring needs none."""
        # Outside any graph that is being traced, whose tensors would be unknown to the next one.
        with tf.init_scope():
            return _core(self.spec)

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are."""
        if self.spec.kind == "sentencepiece":
            return int(self._core.vocab_size()) + self.spec.offset
        return len(self.spec.vocabulary)

    @property
    def resources(self) -> list[Any]:
        """What an export must track: the tables and models that `graph_encode` uses."""
        return [self._core]

    @property
    def identity(self) -> str:
        """32 hexadecimal digits that differ between tokenizers."""
        plain = json.dumps(self.spec.to_dict(), sort_keys=True).encode()
        return hashlib.blake2b(plain, digest_size=16).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The tokenizer as plain JSON values."""
        return self.spec.to_dict()

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Tokenizer:
        """What `to_dict` described."""
        return cls(TokenizerSpec.from_dict(plain))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, int32 [tokens], without special tokens."""
        return [row for batch in _batches(texts) for row in _rows(self._ids(batch))]

    def encode_ragged(self, texts: Sequence[str]) -> tf.RaggedTensor:
        """The same as one int32 [texts, None]."""
        return self._ids(tf.constant(list(texts), tf.string, shape=[len(texts)]))

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(ids, starts, ends) of each text, int32 [tokens] each; offsets in bytes of the text as UTF-8."""
        return [row for batch in _batches(texts) for row in zip(*map(_rows, self._offsets(batch)), strict=True)]

    def graph_encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """String [N] -> int32 [N, None], without special tokens; N may be 0."""
        return self.graph_encode_with_offsets(texts)[0]

    def graph_encode_with_offsets(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """String [N] -> ids, starts and ends, int32 [N, None] each; offsets in bytes of the text as UTF-8.

        Where a byte is no part of UTF-8, it is read, and counted, as the three bytes of U+FFFD.
        """
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        ids, starts, ends = self._core.tokenize_with_offsets(texts)
        if self.spec.kind == "sentencepiece" and self.spec.offset:
            shifted = tf.where(ids.values == 0, self.spec.unknown, ids.values + self.spec.offset)
            ids = ids.with_values(shifted)
        return (
            ids,
            starts.with_values(tf.cast(starts.values, tf.int32)),
            ends.with_values(tf.cast(ends.values, tf.int32)),
        )

    def graph_pack(
        self, first: tf.RaggedTensor, second: tf.RaggedTensor | None, length: int
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Puts special tokens around one text or two, and shortens what is too long.

        A text keeps its start and its end (`HEAD_SHARE`); of two texts, the shorter keeps up to half of the room.

        Args:
            first: int32 [N, None], from `graph_encode`.
            second: the same, or None.
            length: the most tokens, special ones included.

        Returns:
            Ids and segment numbers (0 up to the end of the first text, 1 after), int32 [N, None] each.
        """
        room = length - self.layout.specials(second is not None)
        count, layout = first.nrows(), self.layout
        start, end = _repeated(layout.prefix, count), _repeated(layout.suffix, count)
        if second is None:
            ids = tf.concat([start, shorten(first, tf.fill([count], room)), end], axis=1)
            return ids, tf.zeros_like(ids)
        sizes = [tf.cast(part.row_lengths(), tf.int32) for part in (first, second)]
        second_room = tf.minimum(sizes[1], tf.maximum(room // 2, room - sizes[0]))
        front = tf.concat([start, shorten(first, room - second_room), _repeated(layout.middle, count)], axis=1)
        back = tf.concat([shorten(second, second_room), end], axis=1)
        return tf.concat([front, back], axis=1), tf.concat([tf.zeros_like(front), tf.ones_like(back)], axis=1)

    def dense(
        self, ids: tf.RaggedTensor, segments: tf.RaggedTensor, names: Sequence[str], width: int | None = None
    ) -> Tensors:
        """Packed ids [N, None] as the inputs of a network: int32 [N, T] by name; T is `width`, or else the longest."""
        shape = (None, width)
        found = {
            "token_ids": ids.to_tensor(self.layout.pad, shape=shape),
            "padding_mask": tf.ones_like(ids).to_tensor(0, shape=shape),
            "segment_ids": segments.to_tensor(0, shape=shape),
        }
        # An empty batch would have no tokens at all, which some networks cannot take.
        missing = tf.maximum(1 - tf.shape(found["token_ids"])[1], 0)
        return {name: tf.pad(found[name], [[0, 0], [0, missing]]) for name in names}


def shorten(ids: tf.RaggedTensor, most: tf.Tensor) -> tf.RaggedTensor:
    """int32 [N, None] with rows of at most `most` [N] tokens: of a longer row, the start and the end are kept."""
    sizes = tf.cast(ids.row_lengths(), tf.int32)
    kept = tf.minimum(sizes, tf.maximum(most, 0))
    head = tf.cast(tf.math.ceil(tf.cast(kept, tf.float32) * HEAD_SHARE), tf.int32)
    owner = ids.value_rowids()
    place = tf.range(tf.size(owner)) - tf.cast(tf.gather(ids.row_starts(), owner), tf.int32)
    from_end = tf.gather(sizes, owner) - place
    keep = (place < tf.gather(head, owner)) | (from_end <= tf.gather(kept - head, owner))
    return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(ids.values, keep), tf.cast(kept, ids.row_splits.dtype))


def _core(spec: TokenizerSpec) -> Any:
    """What has `tokenize_with_offsets`."""
    if spec.kind == "byte_pairs":
        return BytePairs(spec.vocabulary, spec.merges, spec.split, spec.prefix_space, spec.unknown)
    if spec.kind == "wordpiece":
        return tf_text.FastBertTokenizer(
            list(spec.vocabulary),
            token_out_type=tf.int32,
            unknown_token=spec.vocabulary[spec.unknown],
            lower_case_nfd_strip_accents=spec.lowercase,
        )
    return tf_text.SentencepieceTokenizer(spec.proto, out_type=tf.int32)


def _batches(texts: Sequence[str]) -> Iterator[tf.Tensor]:
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        yield tf.constant(list(texts[start : start + TEXTS_AT_ONCE]), tf.string)


def _rows(ragged: tf.RaggedTensor) -> list[np.ndarray]:
    """The rows as arrays; `RaggedTensor.numpy` makes them of objects where lengths differ."""
    return np.split(ragged.values.numpy(), ragged.row_splits.numpy()[1:-1]) if ragged.nrows() else []


def _repeated(ids: Sequence[int], count: tf.Tensor) -> tf.RaggedTensor:
    """The same ids in each of `count` rows."""
    row = tf.constant(ids, tf.int32, shape=[1, len(ids)])
    return tf.RaggedTensor.from_tensor(tf.tile(row, [tf.cast(count, tf.int32), 1]))
