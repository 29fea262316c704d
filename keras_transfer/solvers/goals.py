"""Goals: the targets of a regression with their weights and folds, and the log loss of logits against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Problem = Literal["softmax", "logistic"]


@dataclass
class Goals:
    """Targets of n examples, for several members at once.

    Member 0 is the fit on all examples; member k (1 and up) is the fit on all but those of fold k.
    """

    problem: Problem
    classes: int
    targets: np.ndarray
    """int64 [n] for `softmax`, float32 [n, C] of zeros and ones for `logistic`."""
    weights: np.ndarray
    """float32 [n], with the class weights of `softmax`."""
    class_weights: np.ndarray
    """float32 [C]."""
    smoothing: float = 0.0
    fold: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))
    """int16 [n]: the member that does not train on the example; 0 is none."""
    folds: int = 0
    known: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """bool [1 + folds, C]: the classes that a member has trained on. Others it cannot know: it isn't judged by them."""
    mass: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """float64 [1 + folds]: the sum of the weights that a member trains on."""

    def __post_init__(self) -> None:
        self.fold = np.zeros(len(self.targets), np.int16)
        self._settle()

    @classmethod
    def checked(
        cls,
        targets: Any,
        name: str,
        rows: int,
        problem: Problem,
        classes: int,
        sample_weights: Any = None,
        class_weights: Any = None,
        smoothing: float = 0.0,
    ) -> Goals:
        """Goals from a caller's arrays.

        Raises:
            ValueError: for arrays of the wrong shape or range.
        """
        if problem not in ("softmax", "logistic"):
            raise ValueError(f"problem: expected softmax or logistic. Received: {problem!r}.")
        if classes < 1:
            raise ValueError(f"classes: expected at least 1. Received: {classes}.")
        if not 0 <= smoothing < 1:
            raise ValueError(f"label_smoothing: expected from 0 to below 1. Received: {smoothing}.")
        values = np.asarray(targets)
        shape = (rows,) if problem == "softmax" else (rows, classes)
        if values.shape != shape:
            raise ValueError(f"{name}: expected shape {shape} for {problem}. Received: {values.shape}.")
        if problem == "softmax":
            if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= classes:
                raise ValueError(
                    f"{name}: expected class indices, whole numbers from 0 to {classes - 1}. "
                    f"Received: {values.dtype} from {values.min()} to {values.max()}."
                )
            values = values.astype(np.int64)
        else:
            values = values.astype(np.float32)
            if not np.isin(values, (0.0, 1.0)).all():
                raise ValueError(f"{name}: expected zeros and ones. Received: other numbers.")
        weights = _weights(sample_weights, "sample_weights", rows)
        by_class = _weights(class_weights, "class_weights", classes)
        if problem == "softmax":
            weights = weights * by_class[values]
        if not weights.sum() > 0:
            raise ValueError(f"{name}: expected at least one example of a weight above 0. Received: none.")
        return cls(problem, classes, values, weights, by_class, smoothing)

    def deal(self, folds: int, groups: Sequence[Any] | None, seed: int) -> None:
        """Deals the examples to folds, each class evenly and each group as a whole; to none where that cannot be."""
        self.fold, self.folds = deal(self._strata(), folds, groups, seed), 0
        self.folds = int(self.fold.max())
        self._settle()

    def start(self) -> np.ndarray:
        """float64 [C]: the bias that predicts the frequency of each class, half an example added to each side."""
        if self.problem == "softmax":
            counts = np.bincount(self.targets, self.weights, self.classes).astype(np.float64)
            rate = counts * len(self.targets) / self.weights.sum(dtype=np.float64) + 0.5
            logs = np.log(rate)
            return np.asarray(logs - logs.mean())
        counts = (self.targets * self.weights[:, None]).sum(0, dtype=np.float64)
        return np.asarray(np.log((counts + 0.5) / (self.weights.sum(dtype=np.float64) - counts + 0.5)))

    def train(self, logits: np.ndarray, s: slice, members: np.ndarray) -> tuple[float, np.ndarray]:
        """The members' summed mean losses, and their gradient by the logits.

        Args:
            logits: float32 [b, K, C] of the rows s; overwritten.
            s: rows.
            members: int [K].
        """
        losses, gradient = self._losses(logits, s, self.smoothing)
        share = (members == 0) | (self.fold[s, None] != members)
        weights = share * self.weights[s, None] / self.mass[members].astype(np.float32)
        gradient *= weights[:, :, None]
        if self.problem == "logistic":
            losses = losses.sum(-1)
        return float(np.vdot(losses.astype(np.float64), weights.astype(np.float64))), gradient

    def held_out(self, logits: np.ndarray, s: slice, members: np.ndarray) -> tuple[float, float]:
        """Sum of the unsmoothed losses, and of the weights, of what the members were not trained on.

        Args:
            logits: float32 [b, K, C] of the rows s; overwritten.
            s: rows.
            members: int [K].
        """
        losses, _ = self._losses(logits, s, 0.0)
        weights = (self.fold[s, None] == members) * self.weights[s, None].astype(np.float64)
        if self.problem == "logistic":
            weights = weights[:, :, None] * self.known[members]
        else:
            weights *= self.known[members][:, self.targets[s]].T
        return float(np.sum(losses * weights)), float(weights.sum())

    def _losses(self, logits: np.ndarray, s: slice, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
        """Losses, float32 [b, K] (`softmax`) or [b, K, C] (`logistic`), and their gradient [b, K, C]."""
        if self.problem == "softmax":
            index = self.targets[s, None, None]
            logits -= logits.max(-1, keepdims=True)
            losses = -(1 - smoothing) * np.take_along_axis(logits, index, -1)[..., 0]
            if smoothing:
                losses -= smoothing * logits.mean(-1)
            gradient = np.exp(logits, out=logits)
            total = gradient.sum(-1, keepdims=True)
            losses += np.log(total[..., 0])
            gradient /= total
            gradient[np.arange(len(gradient)), :, self.targets[s]] -= np.float32(1 - smoothing)
            if smoothing:
                gradient -= np.float32(smoothing / self.classes)
            return losses, gradient
        smooth = self.targets[s] * (1 - smoothing) + 0.5 * smoothing
        positive = (smooth * self.class_weights).astype(np.float32)[:, None]
        both = positive + (1 - smooth).astype(np.float32)[:, None]
        tail = np.exp(-np.abs(logits))
        losses = both * (np.maximum(logits, 0) + np.log1p(tail)) - positive * logits
        chance = np.where(logits >= 0, 1, tail) / (1 + tail)
        return losses, both * chance - positive

    def _strata(self) -> np.ndarray:
        """The class of each example, int [n]; for several labels the rarest, and C for none."""
        if self.problem == "softmax":
            return self.targets
        counts = self.targets.sum(0)
        rarity = np.where(self.targets > 0, counts, np.inf)
        return np.where(self.targets.any(1), rarity.argmin(1), self.classes)

    def _settle(self) -> None:
        """What follows from the folds."""
        members = np.arange(1 + self.folds)
        self.mass, self.known = np.zeros(len(members)), np.zeros((len(members), self.classes), bool)
        for member in members:
            weights = self.weights * ((member == 0) | (self.fold != member))
            self.mass[member] = weights.sum(dtype=np.float64) or 1.0
            if member == 0:
                self.known[member] = True
            elif self.problem == "softmax":
                self.known[member] = np.bincount(self.targets, weights, self.classes) > 0
            else:
                self.known[member] = weights @ self.targets > 0


def deal(strata: np.ndarray, folds: int, groups: Sequence[Any] | None, seed: int) -> np.ndarray:
    """Folds from 1 on, int16 [n], that share out each stratum evenly; groups stay whole. All 0: two cannot be made.

    Args:
        strata: int [n].
        folds: at most so many; fewer where no stratum has as many examples, or where there are fewer groups.
        groups: n texts or numbers; "" and None: the example is a group of its own. None for all: each is.
        seed: of the order within a stratum.
    """
    random = np.random.default_rng(seed)
    count = len(strata)
    dealt = np.zeros(count, np.int16)
    if groups is None or all(group in ("", None) for group in groups):
        folds = min(folds, int(np.bincount(strata).max()))
        if folds < 2:
            return dealt
        order = random.permutation(count)
        order = order[np.argsort(strata[order], kind="stable")]
        dealt[order] = np.arange(count) % folds + 1
        return dealt
    named = [f"example {row}" if group in ("", None) else f"group {group}" for row, group in enumerate(groups)]
    members = np.unique(named, return_inverse=True)[1].ravel()
    sizes = np.bincount(members)
    folds = min(folds, len(sizes))
    if folds < 2:
        return dealt
    # The largest groups first, each to the fold that has least of its classes so far.
    kinds = int(strata.max()) + 1
    content = np.zeros((len(sizes), kinds))
    np.add.at(content, (members, strata), 1)
    share = content / np.maximum(content.sum(0), 1)
    filled = np.zeros((folds, kinds))
    place = np.zeros(len(sizes), np.int16)
    order = random.permutation(len(sizes))
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        after = (filled + share[group]) ** 2 - filled**2
        place[group] = after.sum(1).argmin()
        filled[place[group]] += share[group]
    return (place + 1)[members].astype(np.int16)


def _weights(values: Any, name: str, count: int) -> np.ndarray:
    """float32 [count], all 1 for None."""
    if values is None:
        return np.ones(count, np.float32)
    weights = np.asarray(values, np.float32)
    if weights.shape != (count,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"{name}: expected {count} finite numbers, zero or more. "
            f"Received: shape {weights.shape}, {np.sum(~(weights >= 0) | ~np.isfinite(weights))} outside."
        )
    return weights
