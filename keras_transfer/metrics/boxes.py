"""Scores of boxes: COCO's average precision, and precision and recall at a threshold.

Average precision is computed by pycocotools, COCO's own code (Lin et al., 2014, arXiv 1405.0312), with as many boxes a
picture as there are: its usual 100 would cut a photo of 279 objects.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MATCHED = 0.5
"""Intersection over union from which a found box is right, for precision, recall and the choice of a threshold."""
RECALLS = 101
REPEATS = 500
FEWEST = 5
"""Pictures from which an interval is stated: drawn from fewer it says nothing."""
LEVEL = 0.95

Boxes = Mapping[str, Any]


@dataclass(frozen=True)
class Matches:
    """Every found box of every picture, at `MATCHED`, best first within each picture and class."""

    picture: np.ndarray
    """int64 [n]."""
    label: np.ndarray
    """int64 [n]: the class."""
    score: np.ndarray
    """float64 [n]."""
    right: np.ndarray
    """bool [n]: it found an object that no better box had found."""
    objects: np.ndarray
    """int64 [pictures, classes]: the objects that there are, crowds left out."""


def score(
    predictions: Sequence[Boxes], references: Sequence[Boxes], names: Sequence[str], threshold: float
) -> dict[str, Any]:
    """Average precision, overall, by size and by class; precision, recall and F1 at a threshold.

    Args:
        predictions: a picture: `boxes` [n, 4] x_min, y_min, x_max, y_max in pixels, `scores` [n], `classes` [n].
        references: a picture: `boxes` [m, 4], `classes` [m], `crowd` bool [m].
        names: of the classes.
        threshold: boxes from this score on count for precision, recall and F1.

    Returns:
        `ap` (mean over overlaps of 0.5 to 0.95), `ap50`, `ap75`, `ap_small` (below 32² pixels), `ap_medium`, `ap_large`
        (above 96²), `ap_by_class`, `precision`, `recall`, `f1`, `threshold`. None where there is nothing to find.

    Raises:
        ValueError: pycocotools is not installed.
    """
    evaluation = evaluate(predictions, references, len(names))
    precision = evaluation.eval["precision"]  # overlaps, recalls, classes, sizes, boxes a picture
    by_class = {name: _mean(precision[:, :, number, 0, -1]) for number, name in enumerate(names)}
    found = matches(evaluation, len(references), len(names))
    return {
        "ap": _mean(precision[:, :, :, 0, -1]),
        "ap50": _mean(precision[0, :, :, 0, -1]),
        "ap75": _mean(precision[5, :, :, 0, -1]),
        "ap_small": _mean(precision[:, :, :, 1, -1]),
        "ap_medium": _mean(precision[:, :, :, 2, -1]),
        "ap_large": _mean(precision[:, :, :, 3, -1]),
        "ap_by_class": by_class,
        **at_threshold(found, threshold),
        "threshold": float(threshold),
    }


def evaluate(predictions: Sequence[Boxes], references: Sequence[Boxes], classes: int) -> Any:
    """COCO's evaluation, done: a `pycocotools.cocoeval.COCOeval`."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise ValueError(
            "metrics of boxes: expected pycocotools. Received: not installed. pip install pycocotools"
        ) from None
    truth, found, most = COCO(), COCO(), 1
    objects, answers = [], []
    for picture, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        crowd = reference.get("crowd") if reference.get("crowd") is not None else np.zeros(len(reference["boxes"]))
        for box, label, is_crowd in zip(reference["boxes"], reference["classes"], crowd, strict=True):
            objects.append(_annotation(len(objects) + 1, picture, box, label) | {"iscrowd": int(is_crowd)})
        for box, label, chance in zip(prediction["boxes"], prediction["classes"], prediction["scores"], strict=True):
            answers.append(_annotation(len(answers) + 1, picture, box, label) | {"score": float(chance), "iscrowd": 0})
        most = max(most, len(prediction["boxes"]))
    pictures = [{"id": picture} for picture in range(len(references))]
    categories = [{"id": number} for number in range(classes)]
    with contextlib.redirect_stdout(io.StringIO()):
        for side, annotations in ((truth, objects), (found, answers)):
            side.dataset = {"images": pictures, "categories": categories, "annotations": annotations}
            side.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = [most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def matches(evaluation: Any, pictures: int, classes: int) -> Matches:
    """Which found boxes are right, from COCO's evaluation, at `MATCHED`; those on crowds are left out."""
    areas = len(evaluation.params.areaRng)
    columns: dict[str, list[np.ndarray]] = {"picture": [], "label": [], "score": [], "right": []}
    objects = np.zeros((pictures, classes), np.int64)
    for label in range(classes):
        for picture in range(pictures):
            # By class, then by size (all sizes are first), then by picture.
            one = evaluation.evalImgs[(label * areas) * pictures + picture]
            if one is None:
                continue
            objects[picture, label] = int((~np.asarray(one["gtIgnore"], bool)).sum())
            counted = ~np.asarray(one["dtIgnore"][0], bool)
            count = int(counted.sum())
            columns["picture"].append(np.full(count, picture))
            columns["label"].append(np.full(count, label))
            columns["score"].append(np.asarray(one["dtScores"], np.float64)[counted])
            columns["right"].append(np.asarray(one["dtMatches"][0])[counted] > 0)
    joined = {name: np.concatenate([np.zeros(0), *parts]) for name, parts in columns.items()}
    return Matches(
        joined["picture"].astype(np.int64),
        joined["label"].astype(np.int64),
        joined["score"],
        joined["right"].astype(bool),
        objects,
    )


def at_threshold(found: Matches, threshold: float) -> dict[str, float | None]:
    """`precision`, `recall` and `f1` over all boxes from that score on; None where there is nothing to divide by."""
    spoken = found.score >= threshold
    right, count, objects = int((found.right & spoken).sum()), int(spoken.sum()), int(found.objects.sum())
    return {
        "precision": right / count if count else None,
        "recall": right / objects if objects else None,
        "f1": 2 * right / (count + objects) if count + objects else None,
    }


def choose_threshold(predictions: Sequence[Boxes], references: Sequence[Boxes], classes: int) -> float | None:
    """The score from which boxes count with the best F1; None where no box is right."""
    found = matches(evaluate(predictions, references, classes), len(references), classes)
    order = np.argsort(-found.score, kind="stable")
    scores, right = found.score[order], np.cumsum(found.right[order])
    if not len(scores) or not right[-1]:
        return None
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + found.objects.sum())
    # Only where the next score is lower can a threshold stand.
    stands = np.append(scores[1:] < scores[:-1], True)
    best = int(np.argmax(np.where(stands, f1, -1)))
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    # Half way to the next box, so that rounding moves none across.
    return float((scores[best] + below) / 2)


def intervals(
    predictions: Sequence[Boxes],
    references: Sequence[Boxes],
    names: Sequence[str],
    threshold: float,
    repeats: int = REPEATS,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals over pictures of `ap50`, `precision`, `recall`, `f1`; none for fewer than `FEWEST`."""
    pictures = len(references)
    if pictures < FEWEST:
        return {}
    found = matches(evaluate(predictions, references, len(names)), pictures, len(names))
    random = np.random.default_rng(seed)
    order = np.argsort(-found.score, kind="stable")
    by_class = [order[found.label[order] == label] for label in range(len(names))]
    spoken = found.score >= threshold
    drawn: dict[str, list[float]] = {"ap50": [], "precision": [], "recall": [], "f1": []}
    for _ in range(repeats):
        often = np.bincount(random.integers(0, pictures, pictures), minlength=pictures)
        times = often[found.picture]
        objects = often @ found.objects
        precisions = [
            average_precision(found.right[rows], times[rows], int(total))
            for rows, total in zip(by_class, objects, strict=True)
            if total
        ]
        right, count = int((times * (found.right & spoken)).sum()), int((times * spoken).sum())
        drawn["ap50"].append(float(np.mean(precisions)) if precisions else np.nan)
        drawn["precision"].append(right / count if count else np.nan)
        drawn["recall"].append(right / objects.sum() if objects.sum() else np.nan)
        drawn["f1"].append(2 * right / (count + objects.sum()) if count + objects.sum() else np.nan)
    return {name: interval for name, values in drawn.items() if (interval := _interval(values)) is not None}


def average_precision(right: np.ndarray, times: np.ndarray, objects: int) -> float:
    """COCO's interpolated average precision of one class at one overlap.

    Args:
        right: bool [n], by falling score.
        times: int [n], how often each box counts.
        objects: how many there are to find, at least 1.
    """
    hits, misses = np.cumsum(times * right), np.cumsum(times * ~right)
    recall = hits / objects
    precision = hits / np.maximum(hits + misses, 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, RECALLS), side="left")
    return float(np.append(best_from_here, 0.0)[np.minimum(at, len(right))].mean())


def _annotation(number: int, picture: int, box: Any, label: Any) -> dict[str, Any]:
    """A box as COCO writes it: left, top, width, height."""
    left, top, right, bottom = (float(edge) for edge in box)
    wide, high = right - left, bottom - top
    return {
        "id": number,
        "image_id": picture,
        "category_id": int(label),
        "bbox": [left, top, wide, high],
        "area": wide * high,
    }


def _mean(precision: np.ndarray) -> float | None:
    """The mean of what is defined; None where nothing is (COCO writes -1)."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    known = np.asarray(values)[np.isfinite(values)]
    if 2 * len(known) < len(values) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
