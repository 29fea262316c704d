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

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_transfer.solvers.goals import Goals, Problem
from keras_transfer.solvers.rows import Rows, Workers

__all__ = ["DEFAULT_STRENGTHS", "Solution", "solve"]

DEFAULT_STRENGTHS: tuple[float, ...] = tuple(float(10.0 ** (power / 2)) for power in range(2, -13, -1))
"""10, 3.2, 1, … 1e-6, per mean log loss; scikit-learn's C is 1 / (strength * number of examples)."""

FALLBACK_STRENGTH = 0.1
"""Used where nothing can be held out (one example a class): near the optimum of frozen features with few labels."""

JOINT_PARAMETERS = 500_000
"""Folds are solved jointly up to so many parameters: L-BFGS holds some 25 float64 copies of them."""

TINY_VALIDATION = 50
TINY_VALIDATION_PER_CLASS = 5
"""A validation set below either size is too noisy to choose by alone: the losses on folds are pooled with its own."""

FEW = 1_000
"""Below so many examples ten folds are dealt, not five."""

RISES = 2
"""The path ends when the held-out loss was above its best so many times in a row."""

TIE = 1e-4
"""A weaker strength must improve the held-out loss by this share, else the stronger one stays."""

PATH_PRECISION, FINAL_PRECISION = 1e-6, 1e-9
"""L-BFGS ends when a step gains less: enough to compare strengths; then for the answer."""

PATH_STEPS, FINAL_STEPS = 100, 300


@dataclass(frozen=True)
class Solution:
    """A dense layer that takes raw features (the standardisation is folded in) and gives logits."""

    kernel: np.ndarray
    """float32 [F, C]."""
    bias: np.ndarray
    """float32 [C]."""
    strength: float
    """The chosen L2 strength."""
    validation_loss: float
    """Mean log loss of held-out examples (natural logarithm; mean over labels for `logistic`); NaN: there were none."""
    scores_by_strength: dict[float, float]
    """The held-out loss of each strength tried; empty where nothing could be held out."""
    seconds: float
    chosen_by: Literal["validation", "folds", "validation and folds", "default"]
    """What the strength was chosen by."""


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
    folds: int | None = None,
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
        folds: number of stratified folds, 0 for none; fewer where no class has as many examples. None is 10 below 1,000
            examples, where they are cheap and choose better, else 5.
        groups: one value an example; examples with equal values are never in different folds. "" is a group of one.
        label_smoothing: share of each target spread over the classes (`logistic`: drawn to 1/2), in training only.
        seed: decides the folds.
        threads: Python threads over the rows; None is all processors that this process may use.

    Returns:
        The solution, whose `features @ kernel + bias` are logits.

    Raises:
        ValueError: for features that are not finite (with the number of such rows) or arguments that do not fit.
    """
    started = time.perf_counter()
    ordered = _from_strong_to_weak(strengths)
    with Workers(threads) as workers:
        rows = Rows.standardised(features, "features", workers)
        goals = Goals.checked(
            targets, "targets", len(rows), problem, classes, sample_weights, class_weights, label_smoothing
        )
        if groups is not None and len(groups) != len(rows):
            raise ValueError(f"groups: expected one an example, {len(rows)}. Received: {len(groups)}.")
        held_out = None
        if validation is not None and len(validation[0]):
            others = rows.like(validation[0], "validation features", workers)
            held_out = (
                others,
                Goals.checked(validation[1], "validation targets", len(others), problem, classes, None, class_weights),
            )
        if held_out is None or len(held_out[0]) < max(TINY_VALIDATION, TINY_VALIDATION_PER_CLASS * classes):
            goals.deal(_folds_for(len(rows)) if folds is None else folds, groups, seed)
        if held_out is None and not goals.folds:
            ordered = _down_to(FALLBACK_STRENGTH, ordered)
        path = _Path(rows, goals, held_out, workers)
        path.walk(ordered)
        kernel, bias = rows.unfold(path.answer())
    by = [name for name, used in (("validation", held_out), ("folds", goals.folds)) if used]
    return Solution(
        kernel,
        bias,
        path.chosen,
        path.scores.get(path.chosen, float("nan")),
        path.scores,
        time.perf_counter() - started,
        " and ".join(by) or "default",  # type: ignore[arg-type]
    )


class _Path:
    """The answers along the strengths, each started from the one before."""

    def __init__(self, rows: Rows, goals: Goals, held_out: tuple[Rows, Goals] | None, workers: Workers):
        self._rows, self._goals, self._held_out, self._workers = rows, goals, held_out, workers
        members = np.arange(1 + goals.folds)
        jointly = max(1, JOINT_PARAMETERS // ((rows.width + 1) * goals.classes))
        self._batches = [members[first : first + jointly] for first in range(0, len(members), jointly)]
        start = np.zeros((rows.width + 1, 1, goals.classes))
        start[-1] = goals.start()
        self._weights = [np.repeat(start, len(batch), axis=1) for batch in self._batches]
        self._best = start[:, :1]
        self.chosen = float("nan")
        self.scores: dict[float, float] = {}

    def walk(self, strengths: Sequence[float]) -> None:
        """Tries strengths until the held-out loss rises."""
        least, rises = np.inf, 0
        for strength in strengths:
            for place, batch in enumerate(self._batches):
                self._weights[place] = self._minimise(
                    self._weights[place], batch, strength, PATH_PRECISION * len(batch), PATH_STEPS
                )
            loss = self._held_out_loss()
            if loss is not None:
                self.scores[strength] = loss
            if loss is None or loss < least * (1 - TIE):
                least, rises = np.inf if loss is None else loss, 0
                self.chosen, self._best = strength, self._weights[0][:, :1].copy()
            else:
                rises = rises + 1 if loss > least else 0
            if rises == RISES:
                break

    def answer(self) -> np.ndarray:
        """float64 [F + 1, C]: the fit on all examples at the chosen strength, to the final precision."""
        member = np.zeros(1, np.int64)
        return self._minimise(self._best, member, self.chosen, FINAL_PRECISION, FINAL_STEPS)[:, 0]

    def _minimise(
        self, start: np.ndarray, members: np.ndarray, strength: float, precision: float, steps: int
    ) -> np.ndarray:
        """Weights [F + 1, K, C] of the members, from a start of that shape."""
        from scipy.optimize import minimize

        width = self._rows.width
        shape = (width + 1, len(members) * self._goals.classes)
        # A fold's fit has fewer examples under the same total penalty, as the fit on all has.
        penalties = strength * self._goals.mass[0] / self._goals.mass[members]
        penalty = np.repeat(penalties, self._goals.classes)

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(shape)
            kernel, bias = weights[:-1].astype(np.float32), weights[-1].astype(np.float32)

            def over(s: slice) -> tuple[float, np.ndarray, np.ndarray]:
                values = self._rows.chunk(s)
                logits = values @ kernel
                logits += bias
                loss, gradient = self._goals.train(logits.reshape(len(logits), len(members), -1), s, members)
                gradient = gradient.reshape(logits.shape)
                return loss, values.T @ gradient, gradient.sum(0)

            loss, by_kernel, by_bias = self._workers.total(over, len(self._rows), max(shape))
            slope = np.empty(shape)
            np.multiply(weights[:-1], penalty, out=slope[:-1])
            norm = 0.5 * float(np.vdot(weights[:-1], slope[:-1]))
            slope[:-1] += by_kernel
            slope[-1] = by_bias
            return loss + norm, slope.ravel()

        limits = {"maxiter": steps, "ftol": precision, "gtol": precision, "maxcor": 10}
        found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=limits)
        return np.asarray(found.x).reshape(start.shape)

    def _held_out_loss(self) -> float | None:
        """Mean over the validation examples and the folds' held-out examples; None without either."""
        total = weight = 0.0
        if self._goals.folds:
            for batch, weights in zip(self._batches, self._weights, strict=True):
                more = self._judge(self._rows, self._goals, batch, weights)
                total, weight = total + more[0], weight + more[1]
        if self._held_out:
            more = self._judge(*self._held_out, np.zeros(1, np.int64), self._weights[0][:, :1])
            total, weight = total + more[0], weight + more[1]
        return total / weight if weight else None

    def _judge(self, rows: Rows, goals: Goals, members: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
        """Summed loss and weight of what the members were not trained on."""
        flat = weights.reshape(len(weights), -1).astype(np.float32)

        def over(s: slice) -> tuple[float, float]:
            logits = rows.chunk(s) @ flat[:-1] + flat[-1]
            return goals.held_out(logits.reshape(len(logits), len(members), -1), s, members)

        loss, weight = self._workers.total(over, len(rows), max(rows.width, flat.shape[1]))
        return loss, weight


def _from_strong_to_weak(strengths: Sequence[float]) -> tuple[float, ...]:
    """The strengths, each once."""
    ordered = tuple(sorted({float(s) for s in strengths}, reverse=True))
    if not ordered or not all(0 < s < float("inf") for s in ordered):
        raise ValueError(f"strengths: expected finite numbers above 0, at least one. Received: {list(strengths)!r}.")
    return ordered


def _folds_for(examples: int) -> int:
    """The default number of folds."""
    return 10 if examples < FEW else 5


def _down_to(strength: float, ordered: tuple[float, ...]) -> tuple[float, ...]:
    """The strengths from the strongest to the one nearest to the given one."""
    nearest = min(ordered, key=lambda s: abs(np.log(s / strength)))
    return tuple(s for s in ordered if s >= nearest)
