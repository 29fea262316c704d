"""Box decoding: a detector's maps and candidates as NumPy, on the training side; by the graph code that serves."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.vision import box_answers, images
from keras_transfer.vision import boxes as geometry
from keras_transfer.vision.box_answers import LEAST_SCORE, MOST, OVERLAP_LIMIT

COMPARED = 10
"""Best scores of an image on which an export must agree with the training side."""
DOUBTFUL = 0.02
"""A suppression whose overlap is so near the limit may fall otherwise by a rounding."""

Found = dict[str, Any]


def whole_views(sizes: Sequence[tuple[int, int]], side: int, how: images.How) -> np.ndarray:
    """float32 [N, 8]: `box_answers.whole_views` of photos of those sizes (height, width)."""
    traced = tf.function(
        box_answers.whole_views, autograph=False
    )  # a loop over each photo, slow where it is not traced
    return traced(tf.constant(np.array(sizes, np.int32).reshape(-1, 2)), side, how).numpy()


def candidates_of(outputs: Mapping[str, np.ndarray], side: int, views: np.ndarray, sizes: np.ndarray) -> list[Found]:
    """What each view reports, before suppression.

    Args:
        outputs: of the head, [N, …].
        side: of the input in pixels.
        views: float32 [N, 8]; see `box_answers`.
        sizes: int32 [N, 2], height and width of the photo of each view.

    Returns:
        A view: `boxes` float32 [n, 4] in pixels of the photo, `scores` [n], `classes` [n], `best_score`, also where
        that is too low for a box.
    """
    find = _candidates(side, *outputs["heat"].shape[1:])
    found = [value.numpy() for value in find(outputs["heat"], outputs["sides"], views, sizes)]
    parts = []
    for boxes, scores, classes in zip(*found, strict=True):
        heard = scores > LEAST_SCORE
        best = float(scores.max(initial=0.0))
        parts.append({"boxes": boxes[heard], "scores": scores[heard], "classes": classes[heard], "best_score": best})
    return parts


def merged(parts: Sequence[Mapping[str, Any]]) -> Found:
    """The boxes of all views of a photo, without doubles, best first.

    Returns:
        As `candidates_of`, with `firm`: how many of the first boxes, at most `COMPARED`, no rounding can change.
    """
    boxes, scores, classes = (np.concatenate([part[name] for part in parts]) for name in ("boxes", "scores", "classes"))
    kept = _suppress(boxes, scores, classes).numpy()
    return {
        "boxes": boxes[kept],
        "scores": scores[kept],
        "classes": classes[kept],
        "best_score": max(part["best_score"] for part in parts),
        "firm": _firm(boxes, scores, classes, kept[:COMPARED]),
    }


def _firm(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, best: np.ndarray) -> int:
    """How many of the best boxes remain the same whatever the last digits of overlaps and scores are."""
    best = best[scores[best] > LEAST_SCORE * 1.1]
    if not len(best):
        return 0
    rivals = np.flatnonzero(scores >= scores[best[-1]])
    overlaps = geometry.overlap(tf.constant(boxes[best]), tf.constant(boxes[rivals])).numpy()
    doubtful = (abs(overlaps - OVERLAP_LIMIT) < DOUBTFUL) & (classes[best][:, None] == classes[rivals])
    # The better one of a doubtful pair stays in any case; from the score of the other one on all is open.
    lower = np.minimum(scores[best][:, None], scores[rivals])[doubtful]
    return int((scores[best] > lower.max(initial=0.0)).sum())


@functools.cache
def _candidates(side: int, rows: int, columns: int, classes: int) -> Any:
    """`box_answers.candidates` for maps of that size, traced once."""
    maps = [tf.TensorSpec([None, rows, columns, channels], tf.float32) for channels in (classes, 4)]
    views = [tf.TensorSpec([None, 8], tf.float32), tf.TensorSpec([None, 2], tf.int32)]

    @tf.function(input_signature=[*maps, *views], autograph=False)
    def find(heat: tf.Tensor, sides: tf.Tensor, views: tf.Tensor, sizes: tf.Tensor) -> Any:
        return box_answers.candidates({"heat": heat, "sides": sides}, side, views, sizes)

    return find


@tf.function(
    input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None]), tf.TensorSpec([None], tf.int32)], autograph=False
)
def _suppress(boxes: tf.Tensor, scores: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    return geometry.suppress(boxes, scores, classes, MOST, OVERLAP_LIMIT, LEAST_SCORE)
