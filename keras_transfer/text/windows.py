"""Windows: a question with as much of its context as an input holds, moved over the context with an overlap.

One graph for training, evaluation and exports, so that all see the same tokens. The method is that of Devlin et al.,
BERT (https://arxiv.org/abs/1810.04805), for SQuAD: the question first, then the window of the context.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_transfer.text import offsets
from keras_transfer.text.packing import Packed
from keras_transfer.text.tokenizing import Tokenizer, shorten

LENGTH = 384  # tokens in an input, and
OVERLAP = 128  # those that two windows share, and
QUESTION = 64  # those of a question that are read: all three as Devlin et al. chose them for SQuAD
LEAST_LENGTH = 16
QUESTIONS_AT_ONCE = 1_024


class Windows(NamedTuple):
    """The windows of N questions, W in all, in the order of the questions; each question has at least one."""

    record: Any
    """int32 [W]: the number of the question."""
    ids: Any
    """int32 [W, None]: the tokens of the input, ragged."""
    segments: Any
    """int32 [W, None]: 0 up to the context, 1 from it on."""
    first: Any
    """int32 [W]: the place in the input of the window's first token of the context."""
    null: Any
    """int32 [W]: the place that stands for "no answer"."""
    starts: Any
    """int32 [W, None]: for each token of the context in the window, its first character in the context."""
    ends: Any
    """int32 [W, None]: the character after its last."""
    at: Any
    """int32 [W]: how many tokens of the context come before the window."""
    total: Any
    """int32 [W]: how many tokens the whole context has."""


@dataclass(frozen=True)
class Windowing:
    """How questions and contexts become windows."""

    tokenizer: Tokenizer
    length: int = LENGTH
    """The most tokens in an input, special ones included."""
    overlap: int = OVERLAP
    """Tokens that two neighbouring windows share; at most half of a window, so that no token is in more than two."""
    question: int = QUESTION
    """The most tokens of a question; at most half of an input. A longer one keeps its start and its end."""

    def __post_init__(self) -> None:
        for name, least in (("length", LEAST_LENGTH), ("overlap", 0), ("question", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least} tokens. Received: {getattr(self, name)}.")

    @property
    def identity(self) -> str:
        """A text that differs between ways of making windows."""
        return f"{self.tokenizer.identity}|{self.length}|{self.overlap}|{self.question}"

    def graph(self, questions: tf.Tensor, contexts: tf.Tensor) -> Windows:
        """String [N], string [N] (valid UTF-8; N may be 0) -> their windows."""
        layout = self.tokenizer.layout
        # A decoder's token sees only what is before it: its place for "no answer" must be the last of the input.
        decoder = not layout.suffix
        suffix = layout.suffix or layout.middle
        room = self.length - len(layout.prefix) - len(layout.middle) - len(suffix)
        asked = self.tokenizer.graph_encode(questions)
        asked = shorten(asked, tf.fill([asked.nrows()], min(self.question, room // 2)))
        ids, starts, ends = self.tokenizer.graph_encode_with_offsets(contexts)
        starts, ends = offsets.graph_characters(contexts, starts, ends)

        sizes = tf.cast(ids.row_lengths(), tf.int32)
        rooms = room - tf.cast(asked.row_lengths(), tf.int32)
        step = rooms - tf.minimum(self.overlap, rooms // 2)
        counts = 1 + (tf.maximum(sizes - rooms, 0) + step - 1) // step
        record = tf.repeat(tf.range(tf.size(counts)), counts)
        place = tf.range(tf.size(record)) - tf.gather(tf.cumsum(counts, exclusive=True), record)
        total = tf.gather(sizes, record)
        at = place * tf.gather(step, record)
        count = tf.minimum(tf.gather(rooms, record), total - at)
        begin = tf.gather(tf.cast(ids.row_starts(), tf.int32), record) + at
        inside = tf.ragged.range(begin, begin + count, row_splits_dtype=tf.int64)

        def part(values: tf.RaggedTensor) -> tf.RaggedTensor:
            return inside.with_values(tf.gather(values.flat_values, inside.flat_values))

        front = tf.concat([_rows(layout.prefix, record), tf.gather(asked, record), _rows(layout.middle, record)], 1)
        back = tf.concat([part(ids), _rows(suffix, record)], axis=1)
        whole = tf.concat([front, back], axis=1)
        return Windows(
            record=record,
            ids=whole,
            segments=tf.concat([tf.zeros_like(front), tf.ones_like(back)], axis=1),
            first=tf.cast(front.row_lengths(), tf.int32),
            null=tf.cast(whole.row_lengths(), tf.int32) - 1 if decoder else tf.zeros_like(record),
            starts=part(starts),
            ends=part(ends),
            at=at,
            total=total,
        )


@functools.lru_cache(maxsize=8)
def _traced(windowing: Windowing) -> Any:
    """The graph, traced once for all splits."""
    strings = tf.TensorSpec([None], tf.string)
    return tf.function(windowing.graph, input_signature=[strings, strings], autograph=False)


def _rows(ids: tuple[int, ...], like: tf.Tensor) -> tf.RaggedTensor:
    """The same ids in as many rows as `like` has."""
    row = tf.constant(ids, tf.int32, shape=[1, len(ids)])
    return tf.RaggedTensor.from_tensor(tf.tile(row, [tf.size(like), 1]))


@dataclass(frozen=True)
class WindowTable:
    """The windows of a split's questions, in memory."""

    packed: Packed
    """The inputs."""
    record: np.ndarray
    """int32 [W], as `Windows.record`; so are `first` and `null`."""
    first: np.ndarray
    null: np.ndarray
    starts: Sequence[np.ndarray]
    """As `Windows.starts`: int32 [tokens] a window."""
    ends: Sequence[np.ndarray]
    at: np.ndarray
    total: np.ndarray

    def __len__(self) -> int:
        return len(self.record)


def table(windowing: Windowing, questions: Sequence[str], contexts: Sequence[str]) -> WindowTable:
    """The windows of many questions, each with its context; texts as `offsets.encodable` leaves them."""
    graph = _traced(windowing)
    parts: list[list[np.ndarray]] = []
    for begin in range(0, max(len(questions), 1), QUESTIONS_AT_ONCE):
        texts = [list(column[begin : begin + QUESTIONS_AT_ONCE]) for column in (questions, contexts)]
        found = graph(*(tf.constant(column, tf.string, shape=[len(column)]) for column in texts))
        parts.append(
            [
                *(value.numpy() for value in (found.record + begin, found.first, found.null, found.at, found.total)),
                *(value.flat_values.numpy() for value in (found.ids, found.segments, found.starts, found.ends)),
                found.ids.row_lengths().numpy().astype(np.int32),
                found.starts.row_lengths().numpy(),
            ]
        )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    record, first, null, at, total, ids, segments, starts, ends, sizes, counts = columns
    begins = np.cumsum(sizes, dtype=np.int64) - sizes
    tensors = [tf.constant(array) for array in (ids, segments.astype(np.int8), begins, sizes)]
    cuts = np.cumsum(counts)[:-1]
    return WindowTable(
        packed=Packed(*tensors, sizes, windowing.tokenizer.layout.pad),
        record=record,
        first=first,
        null=null,
        starts=np.split(starts, cuts) if len(counts) else [],
        ends=np.split(ends, cuts) if len(counts) else [],
        at=at,
        total=total,
    )
