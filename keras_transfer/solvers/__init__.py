"""Exact head solvers: regularised softmax or logistic regression on frozen features, by L-BFGS, with a tuned strength.

The objective is the mean weighted log loss plus half the strength times the squared norm of the kernel on standardised
features; the bias is free. It is convex, so that there is one answer and no learning rate, epochs or luck to tune.
Strengths are tried from strong to weak, each from the answer of the one before, until the log loss on held-out
examples rises. Where they come from folds, all folds and the fit on all examples are solved as one separable problem:
one pass over the features serves them all.

Features may be a memory map larger than memory. Small ones are standardised once and kept; others are read again, a
chunk at a time, in each pass. Rows are spread over Python threads with one BLAS thread each: that cannot oversubscribe
a busy machine, and the partial sums are added in a fixed order, so that the number of threads changes no result.

L-BFGS: Liu and Nocedal, On the limited memory BFGS method for large scale optimization (1989), as SciPy ships it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Problem = Literal["softmax", "logistic"]

DEFAULT_STRENGTHS: tuple[float, ...] = tuple(float(10.0 ** (power / 2)) for power in range(2, -13, -1))
"""10, 3.2, 1, … 1e-6, per mean log loss; scikit-learn's C is 1 / (strength * number of examples)."""

FALLBACK_STRENGTH = 0.1
"""Used where nothing can be held out (one example a class): near the optimum of frozen features with few labels."""

KEPT_BYTES = 128 * 2**20
"""Standardised features up to this size are kept in memory; beyond it memory stays that of some chunks."""

CHUNK_VALUES = 2**20
"""Values of a chunk, 4 MB in float32: large enough for BLAS, small enough for a cache."""

SPANS = 16
"""Pieces into which a pass is cut, whatever the number of threads: the order of summation never changes."""

JOINT_PARAMETERS = 500_000
"""Folds are solved jointly up to so many parameters: L-BFGS holds some 25 float64 copies of them."""

SCALE_FLOOR = 0.01
"""Least standard deviation, as a share of the median feature's: a feature that fired once is not blown up."""

TINY_VALIDATION = 50
TINY_VALIDATION_PER_CLASS = 5
"""A validation set below either size is too noisy to choose by alone: the losses on folds are pooled with its own."""

RISES = 2
"""The path ends when the held-out loss was above its best so many times in a row."""

TIE = 1e-4
"""A weaker strength must improve the held-out loss by this share, else the stronger one stays."""


@dataclass(frozen=True)
class Solution:
    """A dense layer that takes raw features (the standardisation is folded in) and gives logits."""

    kernel: np.ndarray
    """float32 [F, C]."""
    bias: np.ndarray
    """float32 [C]."""
    strength: float
    """The chosen L2 strength."""
    validation_loss: float | None
    """Mean log loss of held-out examples (natural logarithm; mean over labels for `logistic`); None: none were."""
    scores_by_strength: dict[float, float]
    """The held-out loss of each strength tried; empty where nothing could be held out."""
    seconds: float
    chosen_by: Literal["validation", "folds", "validation and folds", "default"] = "validation"


def solve(
    features: Any,
    targets: Any,
    *,
    problem: Problem,
    classes: int,
    sample_weights: Any = None,
    class_weights: Any = None,
    validation: tuple[Any, Any] | None = None,
    strengths: Sequence[float] = DEFAULT_STRENGTHS,
    folds: int = 5,
    groups: Sequence[Any] | None = None,
    label_smoothing: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
) -> Solution:
    """The head that minimises regularised log loss on fixed features.

    Args:
        features: float [n, F], any array that slices to NumPy (a memory map of float16, say).
        targets: `softmax`: int [n], class indices; `logistic`: [n, C] of zeros and ones.
        problem: `softmax` (one class an example) or `logistic` (any number).
        classes: C.
        sample_weights: float [n], zero or more; None is all 1.
        class_weights: float [C]; `softmax`: the weight of each example of a class; `logistic`: of each positive label.
            They weigh the held-out loss too, so that the strength is chosen for what is trained.
        validation: (features, targets) by which the strength is chosen, and which are never trained on. None, or fewer
            than 50 examples or 5 a class: the strength is chosen by folds of the training examples (pooled with the
            few validation examples), and the answer is fitted on all training examples.
        strengths: L2 strengths to try, per mean log loss.
        folds: number of stratified folds; fewer where no class has as many examples.
        groups: one value an example; examples with equal values are never in different folds.
        label_smoothing: share of each target spread over the classes (`logistic`: drawn to 1/2), in training only.
        seed: decides the folds.
        threads: Python threads over the rows; None is all processors that this process may use.

    Returns:
        The solution, whose `features @ kernel + bias` are logits.

    Raises:
        ValueError: for features that are not finite (with the number of such rows) or arguments that do not fit.
    """
    started = time.perf_counter()
    table = _table(features, "features")
    goals = _Goals.of(targets, len(table), problem, classes, sample_weights, class_weights, label_smoothing)
    if not goals.weights.sum() > 0:
        raise ValueError("sample_weights: expected at least one above 0. Received: none. Leave them out, or mend them.")
    strengths = _checked_strengths(strengths)
    if groups is not None and len(groups) != len(table):
        raise ValueError(f"groups: expected one an example, {len(table)}. Received: {len(groups)}.")

    with _Workers(threads) as workers:
        rows = _Rows.standardised(table, "features", workers)
        held_out = None
        if validation is not None and len(validation[0]):
            others = _table(validation[0], "validation features")
            if others.shape[1] != table.shape[1]:
                raise ValueError(
                    f"validation features: expected {table.shape[1]} a row, as in training. Received: {others.shape[1]}."
                )
            held_goals = _Goals.of(validation[1], len(others), problem, classes, None, class_weights, 0.0)
            held_out = (_Rows.like(rows, others, "validation features", workers), held_goals)
        tiny = held_out is None or len(held_out[0]) < max(TINY_VALIDATION, TINY_VALIDATION_PER_CLASS * classes)
        if tiny:
            goals.deal(folds, groups, np.random.default_rng(seed))
        path = _Path(rows, goals, held_out, workers)
        chosen_by: Any = {
            (True, True): "validation and folds",
            (True, False): "validation",
            (False, True): "folds",
            (False, False): "default",
        }[held_out is not None, goals.folds > 0]
        if chosen_by == "default":
            nearest = min(strengths, key=lambda s: (abs(np.log(s / FALLBACK_STRENGTH)), -s))
            strengths = tuple(s for s in strengths if s >= nearest)
        scores = path.walk(strengths)
        strength, loss = path.chosen, scores.get(path.chosen)
        kernel, bias = rows.unfold(path.polish())
    return Solution(kernel, bias, strength, loss, scores, time.perf_counter() - started, chosen_by)


def _table(features: Any, name: str) -> Any:
    """Features as a two-dimensional array that is read by slices only."""
    table = features if hasattr(features, "shape") else np.asarray(features)
    if len(table.shape) != 2 or not table.shape[0] or not table.shape[1]:
        raise ValueError(
            f"{name}: expected [examples, features], at least one of each. Received: shape {tuple(table.shape)}. "
            "Pool features of more dimensions first."
        )
    return table


def _checked_strengths(strengths: Sequence[float]) -> tuple[float, ...]:
    """The strengths from strong to weak."""
    ordered = tuple(sorted({float(s) for s in strengths}, reverse=True))
    if not ordered or not all(0 < s < float("inf") for s in ordered):
        raise ValueError(f"strengths: expected numbers above 0, at least one. Received: {list(strengths)!r}.")
    return ordered


