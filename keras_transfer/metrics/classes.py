"""Metrics of classes: one class an example, any number of labels, ordered ratings.

What cannot be computed is None, never NaN: JSON has no NaN. Classes that a test split lacks are left out of means over
classes (recall, F1, AUROC, average precision), as in scikit-learn; an F1 that nothing defines is 0, as there.

An example with a NaN or infinite probability has no prediction: it is wrong in every metric that counts, it makes
the log loss and calibration error None, and `not_finite` says how many there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.metrics.ranking import auroc, average_precision, curve

CALIBRATION_BINS = 15
"""Guo et al., On Calibration of Modern Neural Networks (2017)."""

LEAST_PROBABILITY = float(np.finfo(np.float32).eps)
"""A true class of probability 0 costs -log of this, as in scikit-learn for float32: the log loss stays finite."""

LARGEST_MATRIX = 200
"""Confusion matrices of more classes are None: nobody reads them, and they would swell every record."""

FEW_POSITIVES = 5
"""A label with fewer positive examples takes the threshold that is best for all labels together."""


def single_label(probabilities: Any, targets: Any, names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a classifier that gives one class.

    Args:
        probabilities: float [n, C], 0 to 1.
        targets: int [n].
        names: C class names.

    Returns:
        `accuracy`, `balanced_accuracy` (mean recall of the classes in the targets), `macro_f1` (mean over the classes
        in targets or predictions), `top_5_accuracy` (more than 5 classes only), `log_loss` (natural logarithm),
        `calibration_error` (expected, 15 bins of equal width), `auroc` (mean of one against the rest; of two classes:
        the second's; None with one class in the targets), `confusion_matrix` ([target][predicted]; None above 200
        classes), `per_class` (by name: `precision`, `recall`, `f1`, `support`; None where undefined).

    Raises:
        ValueError: without examples, or for shapes that do not fit.
    """
    chances, goals, finite = checked(probabilities, targets, names, multi=False)
    predicted = predict(chances, finite)
    counts = count(goals, predicted, len(names))
    scores: dict[str, Any] = {**_summary(counts, len(goals))}
    if len(names) > 5:
        own = chances[np.arange(len(goals)), goals]
        # Equal probabilities are ranked by class index, as argmax does.
        ahead = (chances > own[:, None]) | ((chances == own[:, None]) & (np.arange(len(names)) < goals[:, None]))
        scores["top_5_accuracy"] = float(((ahead.sum(1) < 5) & finite).mean())
    scores["log_loss"] = float(log_losses(chances, goals).mean()) if finite.all() else None
    scores["calibration_error"] = calibration_error(chances, goals) if finite.all() else None
    wanted = [1] if len(names) == 2 else range(len(names))
    scores["auroc"] = _mean([auroc(chances[:, c], goals == c) for c in wanted])
    scores["confusion_matrix"] = confusion(goals, predicted, len(names))
    scores["per_class"] = _per_class(counts, names)
    return scores | _not_finite(finite)


def multi_label(probabilities: Any, targets: Any, thresholds: Any, names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a classifier that gives any number of labels.

    Args:
        probabilities: float [n, C], 0 to 1, independent.
        targets: [n, C] of zeros and ones.
        thresholds: float [C]; a label is given from this probability on.
        names: C labels.

    Returns:
        `macro_f1` (mean over the labels in targets or predictions), `micro_f1`, `exact_match` (share of examples with
        every label right), `mean_average_precision` and `auroc` (means over the labels that some examples have and,
        for AUROC, some have not), `hamming_loss` (share of wrong labels), `log_loss` (mean over labels), `per_class`
        (by name: `precision`, `recall`, `f1`, `average_precision`, `support`).

    Raises:
        ValueError: without examples, or for shapes that do not fit.
    """
    chances, goals, finite = checked(probabilities, targets, names, multi=True)
    limits = np.asarray(thresholds, np.float64)
    if limits.shape != (len(names),):
        raise ValueError(f"thresholds: expected one a label, {len(names)}. Received: shape {limits.shape}.")
    given = (chances >= limits.astype(chances.dtype)) & finite[:, None]
    right = (given == goals) & finite[:, None]
    counts = (given & goals).sum(0), goals.sum(0), given.sum(0)
    precisions = [average_precision(chances[:, c], goals[:, c]) for c in range(len(names))]
    hits, support, picked = counts
    per_class = _per_class(counts, names)
    for name, precision in zip(names, precisions, strict=True):
        per_class[name]["average_precision"] = precision
    return {
        "macro_f1": float(macro_f1(*counts)),
        "micro_f1": float(2 * hits.sum() / max(support.sum() + picked.sum(), 1)),
        "exact_match": float(right.all(1).mean()),
        "mean_average_precision": _mean(precisions),
        "auroc": _mean([auroc(chances[:, c], goals[:, c]) for c in range(len(names))]),
        "hamming_loss": float(1 - right.mean()),
        "log_loss": _binary_log_loss(chances, goals) if finite.all() else None,
        "per_class": per_class,
    } | _not_finite(finite)


def ordinal(probabilities: Any, targets: Any, names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a classifier of ordered ratings; the rating given is the most probable.

    Args:
        probabilities: float [n, C], 0 to 1.
        targets: int [n], from the lowest rating to the highest.
        names: C ratings.

    Returns:
        `accuracy`, `balanced_accuracy`, `macro_f1`, `within_one` (share at most one rating off), `mean_absolute_error`
        (in ratings: by their values where all names are numbers, else by steps), `quadratic_kappa` (Cohen's, weighted
        by the square of the steps; None where targets and predictions are all one rating), `log_loss`,
        `confusion_matrix`, `per_class`. An example without a prediction counts as off by the whole scale.

    Raises:
        ValueError: without examples, or for shapes that do not fit.
    """
    chances, goals, finite = checked(probabilities, targets, names, multi=False)
    predicted = predict(chances, finite)
    counts = count(goals, predicted, len(names))
    values = rating_values(names)
    rated = np.where(predicted < 0, np.where(goals * 2 < len(names), len(names) - 1, 0), predicted)
    return {
        **_summary(counts, len(goals)),
        "within_one": float(((abs(rated - goals) <= 1) & finite).mean()),
        "mean_absolute_error": float(abs(values[rated] - values[goals]).mean()),
        "quadratic_kappa": _plain(quadratic_kappa(goals, rated, np.ones(len(goals)))),
        "log_loss": float(log_losses(chances, goals).mean()) if finite.all() else None,
        "confusion_matrix": confusion(goals, predicted, len(names)),
        "per_class": _per_class(counts, names),
    } | _not_finite(finite)


def choose_thresholds(probabilities: Any, targets: Any) -> np.ndarray:
    """The probability from which each label is given, for the best F1 on validation examples.

    A threshold lies midway between two probabilities that occurred; of equally good ones the nearest to 0.5 is taken.
    Labels with fewer than 5 positive examples take the threshold with the best F1 over all labels together, and 0.5
    where that has fewer than 5 as well.

    Args:
        probabilities: float [n, C].
        targets: [n, C] of zeros and ones.

    Returns:
        float32 [C], above 0, at most 1.

    Raises:
        ValueError: without examples, or for shapes that do not fit.
    """
    names = [str(c) for c in range(np.shape(probabilities)[-1])]
    chances, goals, finite = checked(probabilities, targets, names, multi=True)
    chances, goals = chances[finite], goals[finite]
    together = 0.5
    if goals.sum() >= FEW_POSITIVES:
        together = _best_threshold(chances.ravel(), goals.ravel())
    return np.array(
        [
            _best_threshold(chances[:, c], goals[:, c]) if goals[:, c].sum() >= FEW_POSITIVES else together
            for c in range(len(names))
        ],
        np.float32,
    )


def predict(probabilities: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """The most probable class, int [n]; -1 where there is no prediction."""
    return np.where(finite, probabilities.argmax(1), -1)


def count(targets: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By class, int [C] each: hits, examples in the targets, predictions."""
    hits = np.bincount(targets[targets == predicted], minlength=classes)
    return hits, np.bincount(targets, minlength=classes), np.bincount(predicted[predicted >= 0], minlength=classes)


def balanced_accuracy(hits: np.ndarray, support: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """Mean recall of the classes in the targets, from counts [..., C]."""
    present = support > 0
    return np.asarray((hits / np.maximum(support, 1)).sum(-1) / np.maximum(present.sum(-1), 1))


def macro_f1(hits: np.ndarray, support: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes in targets or predictions, from counts [..., C]; 0 where there are none."""
    either = support + picked
    return np.asarray((2 * hits / np.maximum(either, 1)).sum(-1) / np.maximum((either > 0).sum(-1), 1))


def confusion(targets: np.ndarray, predicted: np.ndarray, classes: int) -> list[list[int]] | None:
    """Counts [target][predicted]; None for more than 200 classes."""
    if classes > LARGEST_MATRIX:
        return None
    known = predicted >= 0
    cells = np.bincount(targets[known] * classes + predicted[known], minlength=classes**2)
    return [[int(value) for value in row] for row in cells.reshape(classes, classes)]


def log_losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Minus the logarithm of each example's probability of its class, float64 [n]."""
    own = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return np.asarray(-np.log(np.clip(own, LEAST_PROBABILITY, 1.0)))


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over 15 bins, by their share of examples."""
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == targets
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gap = np.bincount(bins, confidence - right, CALIBRATION_BINS)
    return float(abs(gap).sum() / len(targets))


def rating_values(names: Sequence[str]) -> np.ndarray:
    """The ratings' values, float [C], where all names are numbers; else 0, 1, 2 and so on."""
    try:
        values = np.array([float(name) for name in names])
    except ValueError:
        return np.arange(len(names), dtype=float)
    return values if np.isfinite(values).all() else np.arange(len(names), dtype=float)


def quadratic_kappa(targets: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights (Cohen, Weighted kappa, 1968), NaN where chance alone agrees fully.

    Args:
        targets: int [m], rating steps.
        predicted: int [m].
        counts: [..., m], how often each pair occurs.
    """
    total = counts.sum(-1)
    means = [(counts @ steps) / total for steps in (targets, predicted, targets**2, predicted**2)]
    seen = (counts @ (targets - predicted) ** 2) / total
    chance = means[2] + means[3] - 2 * means[0] * means[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance > 0, 1 - seen / chance, np.nan))


def _best_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """The threshold with the best F1."""
    hits, given, distinct = curve(scores, positive)
    below = np.append(distinct[1:], 0.0)
    middle = ((distinct.astype(np.float64) + below) / 2).astype(np.float32)
    # Between neighbours in float32 the middle is one of them: it must be the upper.
    middle = np.where(middle <= below, distinct, middle)
    quality = 2 * hits / (given + positive.sum())
    best = np.flatnonzero(quality >= quality.max() - 1e-12)
    chosen = float(middle[best[abs(middle[best] - 0.5).argmin()]])
    return min(max(chosen, LEAST_PROBABILITY), 1.0)


def checked(
    probabilities: Any, targets: Any, names: Sequence[str], multi: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities with zeros for rows that are not finite, targets (bool for several labels), and finite rows."""
    chances, goals = np.asarray(probabilities), np.asarray(targets)
    if chances.dtype.kind != "f":
        chances = chances.astype(np.float64)
    if chances.ndim != 2 or chances.shape[1] != len(names):
        raise ValueError(
            f"probabilities: expected [examples, {len(names)}], one column a class. Received: shape {chances.shape}."
        )
    if not len(chances):
        raise ValueError("probabilities: expected at least one example to score. Received: none. Is the split empty?")
    shape = chances.shape if multi else chances.shape[:1]
    if goals.shape != shape:
        raise ValueError(f"targets: expected shape {shape}, as the probabilities have. Received: {goals.shape}.")
    if multi:
        goals = goals > 0.5
    elif goals.dtype.kind not in "iu" or goals.min() < 0 or goals.max() >= len(names):
        raise ValueError(
            f"targets: expected class indices, whole numbers from 0 to {len(names) - 1}. "
            f"Received: {goals.dtype} from {goals.min()} to {goals.max()}."
        )
    else:
        goals = goals.astype(np.int64)
    finite = np.isfinite(chances).all(1)
    return np.where(finite[:, None], chances, 0), goals, finite


def _summary(counts: tuple[np.ndarray, np.ndarray, np.ndarray], examples: int) -> dict[str, float]:
    return {
        "accuracy": float(counts[0].sum() / examples),
        "balanced_accuracy": float(balanced_accuracy(*counts)),
        "macro_f1": float(macro_f1(*counts)),
    }


def _per_class(
    counts: tuple[np.ndarray, np.ndarray, np.ndarray], names: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        name: {
            "precision": share(hits, picked),
            "recall": share(hits, support),
            "f1": share(2 * hits, support + picked),
            "support": support,
        }
        for name, hits, support, picked in zip(names, *(values.tolist() for values in counts), strict=True)
    }


def _binary_log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    own = np.where(targets, probabilities, 1 - probabilities.astype(np.float64))
    return float(-np.log(np.clip(own, LEAST_PROBABILITY, 1.0)).mean())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _not_finite(finite: np.ndarray) -> dict[str, int]:
    return {} if finite.all() else {"not_finite": int((~finite).sum())}
