"""Metrics of ranking: how well scores order positive examples before negative ones, whatever the threshold."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half; None without both.

    Mann and Whitney, On a test of whether one of two random variables is stochastically larger (1947).
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    total = ranks[place.ravel()[positive]].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Precision at each distinct score, weighted by the recall gained there; None without positives."""
    if not positive.any():
        return None
    hits, given, _ = curve(scores, positive)
    gains = np.diff(hits, prepend=0)
    return float((gains * hits / given).sum() / hits[-1])


def curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each distinct score, from the highest: positives among those at or above it, their number, the score."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    return np.cumsum(positive[order])[last], np.arange(1, len(scores) + 1)[last], ranked[last]
