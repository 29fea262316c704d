"""Metrics of masks: overlap by class over all pixels, and how near the boundaries lie.

Masks come in pairs, one image after the other, and only a few numbers of each class are kept of an image: no more than
one pair is held at once. Pixels whose reference is the ignore index count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.metrics.intervals import bootstrap

IGNORE = 255

TOLERANCE = 0.0075
"""How far a boundary may lie from the reference's, as a share of the image's diagonal: Csurka, Larlus and Perronnin,
What is a good evaluation measure for semantic segmentation? (2013)."""


@dataclass(frozen=True)
class Counts:
    """What is known of n images and C classes."""

    overlap: np.ndarray
    """int64 [n, C]: pixels of the class in both masks."""
    given: np.ndarray
    """int64 [n, C]: pixels that were given the class."""
    real: np.ndarray
    """int64 [n, C]: pixels of the class in the reference."""
    boundary: np.ndarray
    """float64 [n, C]: F1 of the class's boundary in the image; NaN where neither mask has one."""


def count(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: int, boundaries: bool = True) -> Counts:
    """Counts pairs of masks.

    Args:
        pairs: (predicted, reference) of each image, unsigned integers [H, W] each, class indices; `IGNORE` in the
            reference is left out.
        classes: C.
        boundaries: whether to look at the boundaries too, which takes most of the time.

    Raises:
        ValueError: for masks of unequal size, or values that are no class.
    """
    rows: list[tuple[np.ndarray, ...]] = []
    for predicted, reference in pairs:
        if predicted.shape != reference.shape or predicted.ndim != 2:
            raise ValueError(
                f"masks: expected two masks [H, W] of one size. Received: {predicted.shape} and {reference.shape}."
            )
        counted = reference != IGNORE
        given, real = predicted[counted].astype(np.int64), reference[counted].astype(np.int64)
        highest = int(max(given.max(initial=0), real.max(initial=0)))
        if highest >= classes:
            raise ValueError(f"masks: expected class indices below {classes}, or {IGNORE}. Received: {highest}.")
        both = np.bincount(given[given == real], minlength=classes)
        f1 = boundary_f1(predicted, reference, classes) if boundaries else np.full(classes, np.nan)
        rows.append((both, np.bincount(given, minlength=classes), np.bincount(real, minlength=classes), f1))
    if not rows:
        none = np.zeros((0, classes), np.int64)
        return Counts(none, none, none, np.zeros((0, classes)))
    return Counts(*(np.stack(column) for column in zip(*rows, strict=True)))


def scores(counts: Counts, names: Sequence[str]) -> dict[str, Any]:
    """The metrics of counted masks, as JSON values.

    Returns:
        `mean_iou`, `mean_dice`: over the classes that are in a mask of either side, of all pixels together;
        `iou_by_class`, `dice_by_class`: by name, None for a class that is nowhere; `pixel_accuracy`; `boundary_f1`:
        of each class over the images that show it, then over the classes; for two classes `foreground_iou`, of the
        second. None where nothing defines the score.
    """
    overlap, given, real = (part.sum(0) for part in (counts.overlap, counts.given, counts.real))
    iou, dice = _iou(overlap, given, real), _dice(overlap, given, real)
    found = {
        "mean_iou": _mean(iou),
        "iou_by_class": _by_name(iou, names),
        "mean_dice": _mean(dice),
        "dice_by_class": _by_name(dice, names),
        "boundary_f1": _mean(_column_means(counts.boundary)),
        "pixel_accuracy": _number(_ratio(overlap.sum(), real.sum())),
    }
    if len(names) == 2:
        found["foreground_iou"] = _number(iou[1])
    return found


def intervals(counts: Counts, repeats: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals over images of `mean_iou`, `mean_dice`, `pixel_accuracy`, and of `foreground_iou`."""
    if not len(counts.real):
        return {}

    def metric(name: str) -> Any:
        def of_rows(overlap: np.ndarray, given: np.ndarray, real: np.ndarray) -> float | None:
            overlap, given, real = overlap.sum(0), given.sum(0), real.sum(0)
            if name == "pixel_accuracy":
                return _number(_ratio(overlap.sum(), real.sum()))
            by_class = (_dice if name == "mean_dice" else _iou)(overlap, given, real)
            return _number(by_class[1]) if name == "foreground_iou" else _mean(by_class)

        return of_rows

    names = ["mean_iou", "mean_dice", "pixel_accuracy"]
    names += ["foreground_iou"] if counts.real.shape[1] == 2 else []
    arrays = [counts.overlap, counts.given, counts.real]
    found = {name: bootstrap(metric(name), arrays, repeats, seed) for name in names}
    return {name: interval for name, interval in found.items() if interval is not None}


def boundary_f1(predicted: np.ndarray, reference: np.ndarray, classes: int) -> np.ndarray:
    """F1 of each class's boundary in one image, after Csurka et al. (2013).

    A pixel is on the boundary of its class if the one above, below, left or right of it has another class (an ignored
    one says nothing). Precision is the share of the predicted boundary within `TOLERANCE` of the diagonal of the
    reference's; recall the share of the reference's within that of the predicted one.

    Args:
        predicted: unsigned integers [H, W].
        reference: unsigned integers [H, W]; `IGNORE` is left out of both.
        classes: C.

    Returns:
        float64 [C]; NaN where neither mask has a boundary of the class.
    """
    # A tree over boundary pixels, of which there are few, is several times faster than a distance map.
    from scipy.spatial import cKDTree

    ignored = reference == IGNORE
    distance = TOLERANCE * float(np.hypot(*reference.shape))
    edges = [_edge(np.where(ignored, IGNORE, mask)) for mask in (predicted, reference)]
    found = np.full(classes, np.nan)
    points = [np.argwhere(edge) for edge in edges]
    owners = [mask[edge] for mask, edge in zip((predicted, reference), edges, strict=True)]
    for number in range(classes):
        ours, theirs = (place[owner == number] for place, owner in zip(points, owners, strict=True))
        if not len(ours) or not len(theirs):
            found[number] = 0.0 if len(ours) or len(theirs) else np.nan
            continue
        near = [
            np.isfinite(cKDTree(target).query(asked, distance_upper_bound=np.nextafter(distance, np.inf))[0]).mean()
            for asked, target in ((ours, theirs), (theirs, ours))
        ]
        found[number] = 2 * near[0] * near[1] / (near[0] + near[1]) if sum(near) else 0.0
    return found


def _edge(mask: np.ndarray) -> np.ndarray:
    """Bool [H, W]: which pixels have a neighbour of another class."""
    edge = np.zeros(mask.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (mask[one] != mask[other]) & (mask[one] != IGNORE) & (mask[other] != IGNORE)
        edge[one] |= differs
        edge[other] |= differs
    return edge


def _iou(overlap: np.ndarray, given: np.ndarray, real: np.ndarray) -> np.ndarray:
    return _ratio(overlap, given + real - overlap)


def _dice(overlap: np.ndarray, given: np.ndarray, real: np.ndarray) -> np.ndarray:
    return _ratio(2 * overlap, given + real)


def _ratio(part: Any, whole: Any) -> Any:
    """Part by whole, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _column_means(values: np.ndarray) -> np.ndarray:
    """The mean of each column over the rows that know it."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(0), known.sum(0))


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _by_name(values: np.ndarray, names: Sequence[str]) -> Mapping[str, float | None]:
    return {name: _number(value) for name, value in zip(names, values, strict=True)}
