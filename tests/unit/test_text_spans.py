"""Tests of `keras_transfer.text.spans`: the best answer, against a search by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.text import spans

LENGTH = 9
FIRST, COUNT, NULL = np.array([3, 2, 1]), np.array([4, 6, 0]), np.array([0, 8, 0])


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, LENGTH, 2)).astype(np.float32)


def by_hand(logits: np.ndarray, row: int, longest: int) -> list[tuple[float, int, int]]:
    """(log-probability, first, last) of every answer that may be, the best first."""
    inside = range(FIRST[row], FIRST[row] + COUNT[row])
    places = [*inside, NULL[row]]
    total = [np.log(np.exp(logits[row, places, column].astype(np.float64)).sum()) for column in (0, 1)]
    found = [
        (logits[row, a, 0] - total[0] + logits[row, b, 1] - total[1], a, b)
        for a, b in itertools.product(inside, inside)
        if a <= b < a + longest
    ]
    return sorted(found, reverse=True)


def places(first: np.ndarray, null: np.ndarray, starts: list[np.ndarray], ends: list[np.ndarray]) -> spans.Places:
    return spans.Places(first.astype(np.int32), null.astype(np.int32), spans.ragged(starts), spans.ragged(ends))


def best(logits: np.ndarray, longest: int, most: int):
    starts = [np.arange(count) for count in COUNT]
    return spans.best_in_batch(longest, most)(logits, places(FIRST, NULL, starts, [start + 1 for start in starts]))


@pytest.mark.parametrize("longest", [1, 2, 30])
def test_the_best_spans_are_those_of_a_full_search(logits, longest):
    found, nothing = best(logits, longest, 4)
    for row in range(3):
        wanted = by_hand(logits, row, longest)[:4]
        possible = found.log_probability[row].numpy() > spans.POSSIBLE
        assert possible.sum() == len(wanted)
        places = list(zip(found.start[row].numpy(), found.end[row].numpy(), strict=True))[: len(wanted)]
        assert places == [(a, b) for _, a, b in wanted]
        np.testing.assert_allclose(found.log_probability[row][: len(wanted)], [p for p, _, _ in wanted], atol=1e-5)
        null_score = logits[row, NULL[row]].sum()
        margins = [logits[row, a, 0] + logits[row, b, 1] - null_score for _, a, b in wanted]
        np.testing.assert_allclose(found.margin[row][: len(wanted)], margins, atol=1e-4)
    assert nothing[2] == 0.0, "nothing but no answer is possible in an empty context"


def test_no_window_at_all():
    none = np.zeros(0)
    found, nothing = spans.best_in_batch(3, 2)(np.zeros((0, 5, 2), np.float32), places(none, none, [], []))
    assert found.start.shape == (0, 2) and nothing.shape == (0,)


def test_the_loss_is_the_cross_entropy_over_the_context_and_no_answer(logits):
    start, end = np.array([4, 8, 0]), np.array([5, 8, 0])
    targets = {"start": start, "end": end, "first": FIRST, "count": COUNT, "null": NULL}
    targets = {name: tf.constant(value, tf.int32) for name, value in targets.items()}
    found = spans.loss(tf.constant(logits), targets).numpy()
    for row in range(3):
        places = [*range(FIRST[row], FIRST[row] + COUNT[row]), NULL[row]]
        total = np.log(np.exp(logits[row, places]).sum(axis=0))
        wanted = -(logits[row, start[row], 0] - total[0] + logits[row, end[row], 1] - total[1]) / 2
        assert found[row] == pytest.approx(wanted, abs=1e-5)
    logits[:, 1] = 50.0  # a token of the question
    assert spans.loss(tf.constant(logits), targets).numpy()[0] == pytest.approx(found[0], abs=1e-5)


def test_the_loss_moves_no_token_outside_the_context(logits):
    targets = {"start": [4, 3, 0], "end": [5, 3, 0], "first": FIRST, "count": COUNT, "null": NULL}
    targets = {name: tf.constant(value, tf.int32) for name, value in targets.items()}
    values = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(spans.loss(values, targets))
    gradient = tape.gradient(total, values).numpy()
    assert np.isfinite(gradient).all()
    moved = {int(place) for place in np.flatnonzero(np.abs(gradient[0]).sum(axis=1))}
    assert moved == {0, 3, 4, 5, 6}


def windows_of(contexts: list[str], counts: list[int], most: int, seed: int = 1):
    """Made spans of windows in the form of both decoders; two windows of a question share spans."""
    random = np.random.default_rng(seed)
    record = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    starts = random.integers(0, 4, (len(record), most))
    numbers = np.sort(random.normal(size=(len(record), most)), axis=1)[:, ::-1].astype(np.float32)
    found = spans.Spans(starts.astype(np.int32), (starts + 1).astype(np.int32), numbers, numbers + 1)
    found.log_probability[record == 1, 1:] = spans.IMPOSSIBLE
    return record, found, random.normal(size=len(record)).astype(np.float32)


@pytest.mark.parametrize("counts", [[1, 1, 1], [3, 1, 2], [1, 5, 1]])
def test_windows_are_merged_alike_in_and_outside_a_graph(counts):
    contexts, most = ["abcdef"] * len(counts), 3
    record, found, nothing = windows_of(contexts, counts, most)
    merged, least = spans.merge_windows(
        spans.Spans(*(tf.constant(v) for v in found)), tf.constant(nothing), tf.constant(record), len(counts), most
    )
    places = np.arange(8, dtype=np.int32)
    meta = {"first": 0, "starts": places, "ends": places, "context": "abcdef"}
    rows = spans.candidates(found, nothing, [meta] * len(record))
    for number in range(len(counts)):
        wanted = spans.merge([row for row, owner in zip(rows, record, strict=True) if owner == number])
        possible = merged.log_probability[number].numpy() > spans.POSSIBLE
        assert possible.sum() == len(wanted["candidates"])
        for k, candidate in enumerate(wanted["candidates"]):
            assert (merged.start[number, k], merged.end[number, k]) == (candidate["start"], candidate["end"])
            assert float(merged.margin[number, k]) == candidate["margin"]
        keys = [(c["start"], c["end"]) for c in wanted["candidates"]]
        assert len(set(keys)) == len(keys)
        assert float(least[number]) == wanted["no_answer"]


def test_no_two_spans_of_tokens_are_the_same_characters():
    """An answer begins with the first byte of a character and ends with its last; white space alone is none."""
    # A smiley of three bytes, a space, a letter, a smiley of two, and a window with no context at all.
    starts = [np.array([0, 0, 0, 2, 2, 3, 3]), np.array([], int)]
    ends = [np.array([1, 1, 1, 2, 3, 4, 4]), np.array([], int)]
    begins, finishes = spans.edges(spans.ragged(starts), spans.ragged(ends))
    assert begins.numpy().tolist() == [[True, False, False, False, True, True, False], [False] * 7]
    assert finishes.numpy().tolist() == [[False, False, True, False, True, False, True], [False] * 7]
    logits = np.zeros((2, 8, 2), np.float32)
    logits[0, 2:5] = 3.0  # the network would begin and end inside the smiley, or at the space
    most = 7
    where = places(np.ones(2), np.zeros(2), starts, ends)
    found, nothing = spans.best_in_batch(9, most)(logits, where)
    meta = [{"first": 1, "starts": a, "ends": b, "context": "😀 b😀"} for a, b in zip(starts, ends, strict=True)]
    outside = spans.candidates(spans.Spans(*(v.numpy() for v in found)), nothing.numpy(), meta)
    pairs = [(each["start"], each["end"]) for each in outside[0]["candidates"]]
    assert sorted(pairs) == [(0, 1), (0, 3), (0, 4), (2, 3), (2, 4), (3, 4)] and outside[1]["candidates"] == []
    characters = spans.in_characters(found, where)
    inside, _ = spans.merge_windows(characters, nothing, tf.constant([0, 1]), tf.constant(2), most)
    possible = inside.log_probability.numpy() > spans.POSSIBLE
    assert possible.sum(axis=1).tolist() == [6, 0]
    assert list(zip(inside.start.numpy()[0][:6], inside.end.numpy()[0][:6], strict=True)) == pairs


def test_merging_nothing():
    empty = spans.Spans(
        *(tf.zeros([0, 2], tf.int32) for _ in range(2)), *(tf.zeros([0, 2], tf.float32) for _ in range(2))
    )
    merged, least = spans.merge_windows(empty, tf.zeros([0]), tf.zeros([0], tf.int32), tf.constant(0), 2)
    assert merged.start.shape == (0, 2) and least.shape == (0,)
