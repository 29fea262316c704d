"""Answers: what is said where spans are found, in and outside a graph: the best one, or that there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.labels import Labels
from keras_transfer.metrics import spans as metrics
from keras_transfer.text import offsets, spans
from keras_transfer.text.windows import WindowTable

ROUNDING = 0.1
"""By how much two log-probabilities may move apart where numbers are rounded otherwise: more than twice the 0.03 by
which an export in bfloat16 may differ from the training side."""


def place(answers: Sequence[Mapping[str, Any]], found: WindowTable, window: int) -> tuple[int, int]:
    """The first and the last token of the first answer, as places in the input; of "no answer" if it is not whole."""
    null, starts, ends = int(found.null[window]), found.starts[window], found.ends[window]
    if not answers or not len(starts):
        return null, null
    start = int(answers[0]["answer_start"])
    end = start + len(answers[0]["text"])
    before, after = found.at[window] > 0, found.at[window] + len(starts) < found.total[window]
    from_token = int(np.searchsorted(ends, start, side="right"))
    to_token = int(np.searchsorted(starts, end, side="left")) - 1
    if from_token > to_token or (before and starts[0] > start) or (after and ends[-1] < end):
        return null, null
    first = int(found.first[window])
    return first + from_token, first + to_token


def threshold_of(labels: Labels) -> float:
    """Nothing is answered where the score of "no answer" is above that of the best span by more than this."""
    return labels.thresholds[0] if labels.thresholds else 0.0


def margin_of(prediction: Mapping[str, Any]) -> float:
    """The score of the best span less that of no answer."""
    return prediction["candidates"][0]["margin"] if prediction["candidates"] else spans.IMPOSSIBLE


def answer_of(prediction: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    """What is answered under the labels' threshold; `answer_tensors` outside a graph."""
    if "decided" in prediction:
        return prediction["decided"]
    if not prediction["candidates"] or -margin_of(prediction) > threshold_of(labels):
        return {"answer": "", "start": -1, "end": -1, "score": float(np.exp(prediction["no_answer"]))}
    best = prediction["candidates"][0]
    text = prediction["context"][best["start"] : best["end"]]
    return {"answer": text, "start": best["start"], "end": best["end"], "score": float(np.exp(best["log_probability"]))}


def threshold_for(predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]) -> float | None:
    """The threshold of no answer with the best exact match; None where every question has an answer."""
    answerable = [bool(reference["answers"]) for reference in references]
    if not predictions or all(answerable):
        return None
    always = Labels((), "none", (spans.ALWAYS,))
    best = [answer_of(prediction, always)["answer"] for prediction in predictions]
    correct = [
        metrics.score_one(answer, reference["answers"])[0] for answer, reference in zip(best, references, strict=True)
    ]
    spoken = [bool(metrics.normalise(answer)) for answer in best]
    differences = [-margin_of(prediction) for prediction in predictions]
    return metrics.choose_no_answer_threshold(differences, correct, answerable, spoken)[0]


def certain(prediction: Mapping[str, Any], labels: Labels) -> bool:
    """Whether the answer stays the same where logits are rounded otherwise, by up to `ROUNDING`.

    Two rivals may take the best span's place: the second best, and "no answer", which the threshold decides.
    """
    found = prediction["candidates"]
    if not found:
        return True
    if abs(-margin_of(prediction) - threshold_of(labels)) <= ROUNDING:
        return False
    if -margin_of(prediction) > threshold_of(labels):
        return True
    return len(found) < 2 or found[0]["log_probability"] - found[1]["log_probability"] > ROUNDING


def expected(predictions: Sequence[Mapping[str, Any]], labels: Labels, most: int) -> dict[str, np.ndarray]:
    """What an export must answer: scores of the best spans, and the answers themselves where all are certain.

    Args:
        predictions: of the training side.
        labels: with the threshold.
        most: how many spans an export gives, where there is no prediction to say it.
    """
    scores = np.zeros((len(predictions), max((each["most"] for each in predictions), default=most)), np.float32)
    for row, prediction in zip(scores, predictions, strict=True):
        shares = [candidate["log_probability"] for candidate in prediction["candidates"]]
        row[: len(shares)] = np.exp(shares)
    if not all(certain(prediction, labels) for prediction in predictions):
        return {"n_best_score": scores}
    found = [answer_of(prediction, labels) for prediction in predictions]
    return {
        "n_best_score": scores,
        "answer": np.array([answer["answer"].encode() for answer in found], object),
        "start": np.array([answer["start"] for answer in found], np.int32),
        "end": np.array([answer["end"] for answer in found], np.int32),
        "score": np.array([answer["score"] for answer in found], np.float32),
    }


def answer_tensors(best: spans.Spans, nothing: tf.Tensor, context: tf.Tensor, threshold: float) -> dict[str, tf.Tensor]:
    """The outputs of an export, from spans [N, K] of characters."""
    possible = best.log_probability > spans.POSSIBLE
    starts, ends = tf.where(possible, best.start, -1), tf.where(possible, best.end, -1)
    scores = tf.where(possible, tf.exp(best.log_probability), 0.0)
    shape = tf.shape(starts)
    repeated = tf.reshape(tf.repeat(context, shape[1]), [-1])
    texts = tf.reshape(offsets.graph_slices(repeated, tf.reshape(starts, [-1]), tf.reshape(ends, [-1])), shape)
    answered = possible[:, 0] & (-best.margin[:, 0] <= threshold)
    return {
        "answer": tf.where(answered, texts[:, 0], ""),
        "start": tf.where(answered, starts[:, 0], -1),
        "end": tf.where(answered, ends[:, 0], -1),
        "score": tf.where(answered, scores[:, 0], tf.exp(nothing)),
        "n_best_answer": texts,
        "n_best_start": starts,
        "n_best_end": ends,
        "n_best_score": scores,
    }


def output_of(outputs: Mapping[str, np.ndarray], prefix: str, number: Any) -> dict[str, Any]:
    """One answer of an export as JSON values."""
    text = outputs[f"{prefix}answer"][number]
    return {
        "answer": text.decode() if isinstance(text, bytes) else str(text),
        "start": int(outputs[f"{prefix}start"][number]),
        "end": int(outputs[f"{prefix}end"][number]),
        "score": float(outputs[f"{prefix}score"][number]),
    }
