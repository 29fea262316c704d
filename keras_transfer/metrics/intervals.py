"""Intervals: how far a score would move on other examples of the same kind, by the percentile bootstrap.

Efron and Tibshirani, An Introduction to the Bootstrap (1993). As many examples as there are, drawn with replacement, a
thousand times: the middle 95 % of the scores is the interval. Scores that depend on counts alone are drawn as counts.
The interval says nothing of chance in training, nor of examples that depend on each other; where every example is right
it has no width, however few there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_transfer.metrics import classes

LEVEL = 0.95
REPEATS = 1000

DRAWN_AT_ONCE = 2**21
"""Values held at once, 16 MB in float64."""

Interval = tuple[float, float]


def bootstrap(
    metric_fn: Callable[..., float | None], arrays: Sequence[Any], repeats: int = REPEATS, seed: int = 0
) -> Interval | None:
    """The interval of any metric of examples.

    Args:
        metric_fn: takes the arrays, drawn anew, and gives the score; None or NaN where a draw does not define it.
        arrays: each [n, …], the same examples.
        repeats: number of draws.
        seed: decides the draws.

    Returns:
        (low, high); None where fewer than half of the draws define the score.

    Raises:
        ValueError: without examples, or for arrays of unequal length.
    """
    values = [np.asarray(array) for array in arrays]
    sizes = {len(value) for value in values}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"arrays: expected the same number of examples in each, at least 1. Received: {sorted(sizes)}."
        )
    random = np.random.default_rng(seed)
    count = sizes.pop()
    scores = []
    for _ in range(repeats):
        rows = random.integers(0, count, count)
        score = metric_fn(*(value[rows] for value in values))
        scores.append(np.nan if score is None else float(score))
    return _interval(np.array(scores))


def single_label(
    probabilities: Any, targets: Any, names: Sequence[str], repeats: int = REPEATS, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of `accuracy`, `balanced_accuracy`, `macro_f1` and `log_loss`; see `classes.single_label`."""
    chances, goals, finite = classes.checked(probabilities, targets, names, multi=False)
    found = _of_cells(goals, classes.predict(chances, finite), names, repeats, seed, rated=False)
    if finite.all():
        found["log_loss"] = _of_means(classes.log_losses(chances, goals)[:, None], repeats, seed, lambda m: m[:, 0])
    return _known(found)


def ordinal(
    probabilities: Any, targets: Any, names: Sequence[str], repeats: int = REPEATS, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of `accuracy`, `balanced_accuracy`, `macro_f1`, `mean_absolute_error`, `quadratic_kappa`."""
    chances, goals, finite = classes.checked(probabilities, targets, names, multi=False)
    predicted = classes.predict(chances, finite)
    return _known(_of_cells(goals, predicted, names, repeats, seed, rated=bool(finite.all())))


def multi_label(
    probabilities: Any, targets: Any, thresholds: Any, names: Sequence[str], repeats: int = REPEATS, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of `macro_f1`, `micro_f1`, `exact_match` and `hamming_loss`; see `classes.multi_label`."""
    chances, goals, finite = classes.checked(probabilities, targets, names, multi=True)
    given = (chances >= np.asarray(thresholds, chances.dtype)) & finite[:, None]
    right = (given == goals) & finite[:, None]
    count = len(names)
    flags = np.concatenate([given & goals, goals, given, right.all(1)[:, None], right.mean(1)[:, None]], 1)

    def scores(means: np.ndarray) -> np.ndarray:
        # Shares of examples serve as counts once each is a whole number again.
        hits, support, picked = np.split(np.rint(means[:, : 3 * count] * len(goals)), 3, axis=1)
        micro = 2 * hits.sum(1) / np.maximum(support.sum(1) + picked.sum(1), 1)
        return np.stack([classes.macro_f1(hits, support, picked), micro, means[:, -2], 1 - means[:, -1]], 1)

    drawn = _draw_means(flags.astype(np.float64), repeats, seed, scores)
    keys = ("macro_f1", "micro_f1", "exact_match", "hamming_loss")
    return _known({key: _interval(drawn[:, place]) for place, key in enumerate(keys)})


def _of_cells(
    targets: np.ndarray, predicted: np.ndarray, names: Sequence[str], repeats: int, seed: int, rated: bool
) -> dict[str, Interval | None]:
    """Scores that follow from the confusion matrix: draws the counts of its cells that are not zero."""
    pairs, counts = np.unique(np.stack([targets, predicted], 1), axis=0, return_counts=True)
    row, column = pairs.T
    count = len(names)
    right = row == column
    values = classes.rating_values(names)
    random = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {}
    for size in _pieces(repeats, max(len(pairs), count)):
        drawn = random.multinomial(len(targets), counts / counts.sum(), size=size).astype(np.float64)
        by_class = (
            _sum_by(np.where(right, row, -1), drawn, count),
            _sum_by(row, drawn, count),
            _sum_by(column, drawn, count),
        )
        scores = {
            "accuracy": drawn @ right / len(targets),
            "balanced_accuracy": classes.balanced_accuracy(*by_class),
            "macro_f1": classes.macro_f1(*by_class),
        }
        if rated:
            scores["mean_absolute_error"] = drawn @ abs(values[row] - values[column]) / len(targets)
            scores["quadratic_kappa"] = classes.quadratic_kappa(row, column, drawn)
        for key, value in scores.items():
            parts.setdefault(key, []).append(value)
    return {key: _interval(np.concatenate(value)) for key, value in parts.items()}


def _sum_by(index: np.ndarray, drawn: np.ndarray, count: int) -> np.ndarray:
    """Sums [b, count] of the columns of drawn [b, m] by their index; -1 is left out."""
    sums = np.zeros((len(drawn), count))
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    if len(order):
        distinct, starts = np.unique(index[order], return_index=True)
        sums[:, distinct] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return sums


def _of_means(
    values: np.ndarray, repeats: int, seed: int, score: Callable[[np.ndarray], np.ndarray]
) -> Interval | None:
    """The interval of a score of the means of values [n, V]."""
    return _interval(_draw_means(values, repeats, seed, score))


def _draw_means(values: np.ndarray, repeats: int, seed: int, scores: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The scores of the means of values [n, V] over draws: scores takes [b, V], gives [b, …]."""
    random = np.random.default_rng(seed)
    count = len(values)
    parts = []
    for size in _pieces(repeats, max(values.shape)):
        often = np.stack([np.bincount(random.integers(0, count, count), minlength=count) for _ in range(size)])
        parts.append(scores(often.astype(np.float64) @ values / count))
    return np.concatenate(parts)


def _pieces(repeats: int, width: int) -> Iterator[int]:
    """Sizes that add up to the repeats, each of few values."""
    step = max(1, DRAWN_AT_ONCE // width)
    for start in range(0, repeats, step):
        yield min(step, repeats - start)


def _interval(scores: np.ndarray) -> Interval | None:
    """The middle 95 %."""
    known = scores[np.isfinite(scores)]
    if 2 * len(known) < len(scores) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _known(found: dict[str, Interval | None]) -> dict[str, Interval]:
    return {key: value for key, value in found.items() if value is not None}
