"""Spans: the answer that lies in a context, from scores of its tokens, as one graph for evaluation and exports.

A token is scored as the first and as the last of the answer. The method is that of Devlin et al., BERT
(https://arxiv.org/abs/1810.04805), sections 4.2 and 4.3: the best pair of tokens, and one place outside the context
that stands for "no answer". Across the windows of a long context, which are scored apart, spans are compared by their
probability in their window; what decides between a span and no answer is the difference of their scores in one window.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

IMPOSSIBLE = -1e9
"""The logit, and the log-probability, of what cannot be."""
WINDOWS_AT_ONCE = 32
"""Windows that an export sends through the network together: what a long context takes in memory ends there."""
POSSIBLE = -1e8
"""Above it, a log-probability is of something that can be."""
ALWAYS = 1e9
"""The threshold with which every question is answered."""


class Spans(NamedTuple):
    """The K best spans of each row, best first; a row with fewer has `log_probability` IMPOSSIBLE in the rest."""

    start: Any
    """int32 [W, K]: place of the first token in the input, or the first character in the context."""
    end: Any
    """int32 [W, K]: place of the last token in the input, or the character after the last."""
    log_probability: Any
    """float32 [W, K]: of the span, in its window."""
    margin: Any
    """float32 [W, K]: its score less that of "no answer" in its window."""


def allowed(length: tf.Tensor, first: tf.Tensor, count: tf.Tensor, null: tf.Tensor) -> tf.Tensor:
    """Bool [W, length]: the tokens of the context, and the place of "no answer"."""
    places = tf.range(length)[None]
    context = (places >= first[:, None]) & (places < (first + count)[:, None])
    return context | (places == null[:, None])


def log_shares(logits: tf.Tensor, first: tf.Tensor, count: tf.Tensor, null: tf.Tensor) -> tf.Tensor:
    """float32 [W, T, 2] -> log-softmax over the allowed places, IMPOSSIBLE elsewhere.

    Args:
        logits: scores as first and as last token of the answer.
        first: int32 [W], the place of the first token of the context.
        count: int32 [W], how many tokens of it are in the window.
        null: int32 [W], the place of "no answer".
    """
    mask = allowed(tf.shape(logits)[1], first, count, null)[:, :, None]
    shares = tf.nn.log_softmax(tf.where(mask, tf.cast(logits, tf.float32), IMPOSSIBLE), axis=1)
    return tf.where(mask, shares, IMPOSSIBLE)


def loss(logits: tf.Tensor, targets: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """float32 [W]: cross-entropy of the right first and last token, averaged. No answer is `null` for both.

    Args:
        logits: float [W, T, 2].
        targets: `start`, `end`, `first`, `count`, `null`: int32 [W] each.
    """
    shares = log_shares(logits, targets["first"], targets["count"], targets["null"])
    right = tf.stack([targets["start"], targets["end"]], axis=-1)
    # One-hot rather than a gather, whose gradient TensorFlow scatters slowly.
    chosen = tf.one_hot(right, tf.shape(logits)[1], axis=1, dtype=tf.bool, on_value=True, off_value=False)
    return -tf.reduce_sum(tf.where(chosen, shares, 0.0), axis=[1, 2]) / 2


class Places(NamedTuple):
    """Where the context is in each of W windows, and what its tokens are."""

    first: tf.Tensor
    """int32 [W], the place of the first token of the context."""
    null: tf.Tensor
    """int32 [W], the place of "no answer"."""
    starts: tf.RaggedTensor
    """int32 [W, None], the first character of each token of the context in the window, rising."""
    ends: tf.RaggedTensor
    """int32 [W, None], the one after its last."""


def edges(starts: tf.RaggedTensor, ends: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Bool [W, C] twice: the tokens with which an answer may begin, and those with which it may end.

    Several tokens may be bytes of one character: an answer begins with the first of them and ends with the last, so
    that no two spans of tokens are the same characters. White space alone (an end not after its start) is no answer.

    Args:
        starts: as in `Places`.
        ends: as in `Places`.
    """
    start, end = starts.to_tensor(0), ends.to_tensor(0)
    real = end > start

    def repeats(values: tf.Tensor) -> tf.Tensor:
        """Whether a token and the next one are of the same character, bool [W, C - 1 or 0]."""
        return (values[:, :-1] == values[:, 1:]) & real[:, :-1] & real[:, 1:]

    later, earlier = tf.pad(repeats(start), [[0, 0], [1, 0]]), tf.pad(repeats(end), [[0, 0], [0, 1]])
    width = tf.shape(real)[1]  # 0 where no window has any context
    return real & ~later[:, :width], real & ~earlier[:, :width]


def best_in_windows(logits: tf.Tensor, places: Places, longest: int, most: int) -> tuple[Spans, tf.Tensor]:
    """The best spans of each window, in tokens, and the log-probability of "no answer", float32 [W].

    Args:
        logits: float [W, T, 2]; W may be 0.
        places: of the windows.
        longest: the most tokens of an answer.
        most: K, the number of spans.
    """
    first, null, starts, ends = places
    count = tf.cast(starts.row_lengths(), tf.int32)
    shares = log_shares(logits, first, count, null)
    length = tf.shape(logits)[1]
    nothing = tf.reduce_sum(tf.gather(shares, null[:, None], axis=1, batch_dims=1), axis=[1, 2])
    # Without the place of "no answer": what is left are tokens of the context.
    of_context = tf.range(length)[None] - first[:, None]
    inside = (of_context >= 0) & (of_context < count[:, None])

    def scored(column: int, may_be: tf.Tensor) -> tf.Tensor:
        here = tf.gather(tf.pad(may_be, [[0, 0], [0, 1]]), tf.where(inside, of_context, 0), batch_dims=1)
        return tf.where(inside & here, shares[:, :, column], IMPOSSIBLE)

    start, end = (scored(column, may_be) for column, may_be in enumerate(edges(starts, ends)))
    end = tf.pad(end, [[0, 0], [0, longest - 1]], constant_values=IMPOSSIBLE)
    ahead = tf.stack([end[:, by : by + length] for by in range(longest)], axis=-1)
    pairs = tf.maximum(start[:, :, None] + ahead, IMPOSSIBLE)
    flat = tf.reshape(pairs, [-1, length * longest])
    flat = tf.pad(flat, [[0, 0], [0, most]], constant_values=IMPOSSIBLE)
    values, which = tf.math.top_k(flat, most)
    begin = tf.minimum(which // longest, length - 1)
    possible = values > POSSIBLE
    return Spans(
        tf.where(possible, begin, 0),
        tf.where(possible, begin + which % longest, 0),
        tf.where(possible, values, IMPOSSIBLE),
        tf.where(possible, values - nothing[:, None], IMPOSSIBLE),
    ), nothing


def best_in_chunks(
    numeric: Callable[[Any], tf.Tensor],
    inputs: Mapping[str, tf.Tensor],
    places: Places,
    longest: int,
    most: int,
) -> tuple[Spans, tf.Tensor]:
    """`best_in_windows` of all windows, `WINDOWS_AT_ONCE` of them at a time, one after another.

    Args:
        numeric: inputs of some windows to their logits, float [w, T, 2]; w may be 0.
        inputs: of all windows, [W, T] by name; W may be 0.
        places: of all windows.
        longest: the most tokens of an answer.
        most: K, the number of spans.
    """
    rounds = tf.maximum(-(-tf.size(places.first) // WINDOWS_AT_ONCE), 1)
    forms = [(tf.int32, [None, most])] * 2 + [(tf.float32, [None, most])] * 2 + [(tf.float32, [None])]
    empty = [tf.TensorArray(dtype, rounds, infer_shape=False, element_shape=shape) for dtype, shape in forms]

    def step(number: tf.Tensor, *parts: tf.TensorArray) -> Any:
        here = slice(number * WINDOWS_AT_ONCE, (number + 1) * WINDOWS_AT_ONCE)
        logits = numeric({name: value[here] for name, value in inputs.items()})
        found, nothing = best_in_windows(logits, Places(*(part[here] for part in places)), longest, most)
        return (number + 1, *(part.write(number, value) for part, value in zip(parts, (*found, nothing), strict=True)))

    # In parallel, all rounds would be in memory after all.
    _, *parts = tf.while_loop(lambda number, *_: number < rounds, step, (0, *empty), parallel_iterations=1)
    *columns, nothing = (part.concat() for part in parts)
    return Spans(*columns), nothing


@functools.cache
def best_in_batch(longest: int, most: int) -> Callable[..., tuple[Spans, tf.Tensor]]:
    """`best_in_windows` as a traced function of logits and places."""
    numbers, ragged = tf.TensorSpec([None], tf.int32), tf.RaggedTensorSpec([None, None], tf.int32, 1)
    signature = [tf.TensorSpec([None, None, 2], tf.float32), Places(numbers, numbers, ragged, ragged)]
    best = functools.partial(best_in_windows, longest=longest, most=most)
    return tf.function(lambda *given: best(*given), input_signature=signature, autograph=False)


def ragged(rows: Sequence[np.ndarray]) -> tf.RaggedTensor:
    """int32 [W, None] from one array a window."""
    sizes = np.array([len(row) for row in rows], np.int64)
    return tf.RaggedTensor.from_row_lengths(np.concatenate([*rows, np.zeros(0)]).astype(np.int32), sizes)


def in_characters(spans: Spans, places: Places) -> Spans:
    """Spans of tokens as spans of characters.

    Args:
        spans: of windows, in tokens.
        places: of the windows.
    """
    # A column more, so that a window without any context has something to gather.
    from_token = tf.pad(places.starts.to_tensor(0), [[0, 0], [0, 1]])
    to_token = tf.pad(places.ends.to_tensor(0), [[0, 0], [0, 1]])

    def characters(table: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
        return tf.gather(table, tf.maximum(tokens - places.first[:, None], 0), batch_dims=1)

    start, end = characters(from_token, spans.start), characters(to_token, spans.end)
    possible = spans.log_probability > POSSIBLE
    return spans._replace(start=tf.where(possible, start, 0), end=tf.where(possible, end, 0))


def merge_windows(
    spans: Spans, nothing: tf.Tensor, record: tf.Tensor, records: tf.Tensor, most: int
) -> tuple[Spans, tf.Tensor]:
    """The best spans of each question over its windows, those that two windows share once; `merge` in a graph.

    Args:
        spans: of windows, in characters.
        nothing: float32 [W], the log-probability of "no answer".
        record: int32 [W], the number of each window's question, rising.
        records: int32 scalar, N.
        most: K.

    Returns:
        Spans [N, K], and the least log-probability of "no answer" over the windows, float32 [N].
    """
    fills: tuple[Any, ...] = (0, 0, IMPOSSIBLE, IMPOSSIBLE)
    # No span is in more than two windows: of twice as many, `most` different ones remain.
    ranks = 2 * most

    def gathered(values: tf.Tensor, fill: Any) -> tf.Tensor:
        ragged = tf.RaggedTensor.from_value_rowids(values, tf.cast(record, tf.int64), tf.cast(records, tf.int64))
        dense = ragged.to_tensor(fill)
        flat = tf.reshape(dense, [records, tf.shape(dense)[1] * most])
        return tf.pad(flat, [[0, 0], [0, ranks]], constant_values=fill)

    flat = Spans(*(gathered(values, fill) for values, fill in zip(spans, fills, strict=True)))
    _, order = tf.math.top_k(flat.log_probability, ranks)
    ranked = Spans(*(tf.gather(values, order, batch_dims=1) for values in flat))
    same = (ranked.start[:, :, None] == ranked.start[:, None, :]) & (ranked.end[:, :, None] == ranked.end[:, None, :])
    earlier = tf.linalg.band_part(tf.ones([ranks, ranks], tf.int32), -1, 0) - tf.eye(ranks, dtype=tf.int32)
    again = tf.reduce_any(same & (earlier[None] > 0), axis=2)
    kept = ranked._replace(log_probability=tf.where(again, IMPOSSIBLE, ranked.log_probability))
    _, order = tf.math.top_k(kept.log_probability, most)
    least = tf.math.unsorted_segment_min(nothing, record, records)
    return Spans(*(tf.gather(values, order, batch_dims=1) for values in kept)), least


def merge(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same for the windows of one question, each as `candidates` describes it."""
    found = [candidate for part in parts for candidate in part["candidates"]]
    most = max(part["most"] for part in parts)
    kept: dict[tuple[int, int], Mapping[str, Any]] = {}
    for candidate in sorted(found, key=lambda candidate: -candidate["log_probability"]):
        kept.setdefault((candidate["start"], candidate["end"]), candidate)
    return {
        "candidates": list(kept.values())[:most],
        "no_answer": min(part["no_answer"] for part in parts),
        "most": most,
        "context": parts[0]["context"],
    }


def candidates(spans: Spans, nothing: np.ndarray, meta: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Spans of tokens, NumPy [W, K], as one dictionary a window, in characters; `in_characters` outside a graph.

    Args:
        spans: of windows, in tokens.
        nothing: float32 [W], the log-probability of "no answer".
        meta: of each window: `first`, `starts` and `ends` as in `Places`, and `context`.

    Returns:
        `candidates`: dictionaries of `start`, `end`, `log_probability`, `margin`, best first; `no_answer`: the
        log-probability of that; `most`: K; `context`.
    """
    rows = []
    for number, about in enumerate(meta):
        found = []
        for first, last, log_probability, margin in zip(*(values[number] for values in spans), strict=True):
            if log_probability <= POSSIBLE:
                continue
            start = int(about["starts"][first - about["first"]])
            end = int(about["ends"][last - about["first"]])
            numbers = {"log_probability": float(log_probability), "margin": float(margin)}
            found.append({"start": start, "end": end, **numbers})
        most = spans.start.shape[1]
        rows.append(
            {"candidates": found, "no_answer": float(nothing[number]), "most": most, "context": about["context"]}
        )
    return rows
