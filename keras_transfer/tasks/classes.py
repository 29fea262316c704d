"""What image and text classification share: labels, loss, head, decoding, scores.

Not a task: a piece that both hold, so that a label table, a loss or a metric is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.records import Record
from keras_transfer.labels import Labels, sort_names
from keras_transfer.metrics import classes
from keras_transfer.metrics import intervals as bootstrapped
from keras_transfer.recipe import Recipe
from keras_transfer.tasks.base import Tensors


def learn_labels(train: Sequence[Record]) -> Labels:
    """The classes of the training examples; several labels in any example make it multi-label.

    Raises:
        ValueError: fewer than two classes.
    """
    multi = any(isinstance(record.fields["label"], tuple) for record in train)
    names: set[str] = set()
    for record in train:
        label = record.fields["label"]
        names.update(label if isinstance(label, tuple) else (label,))
    if len(names) < 2:
        raise ValueError(
            f"The training examples: expected at least two classes. Received: {sorted(names) or 'no example'}. "
            "Add examples of another class."
        )
    return Labels(sort_names(names), "multi" if multi else "single")


def targets_of(records: Sequence[Record], labels: Labels) -> np.ndarray:
    """int32 [n], or float32 [n, C] for multi-label.

    Raises:
        ValueError: for a label that no training example has, with the file or line.
    """
    encoded = []
    for record in records:
        try:
            encoded.append(labels.encode(record.fields["label"]))
        except ValueError as error:
            raise ValueError(f"{record.where}: {error}") from None
    shape = (0, len(labels)) if labels.kind == "multi" else (0,)
    return np.stack(encoded) if encoded else np.zeros(shape, np.float32 if labels.kind == "multi" else np.int32)


def class_weights(targets: np.ndarray, labels: Labels, recipe: Recipe) -> np.ndarray | None:
    """float32 [C] with mean 1 over the training examples, or None where classes weigh the same.

    Source: scikit-learn's "balanced": n / (C * n_c). Multi-label is not weighed.
    """
    if recipe.class_weights == "none" or labels.kind == "multi" or not len(targets):
        return None
    counts = np.bincount(targets, minlength=len(labels)).astype(np.float64)
    if recipe.class_weights == "auto" and counts.max() <= 3 * max(counts.min(), 1):
        return None
    return (len(targets) / (len(labels) * np.maximum(counts, 1))).astype(np.float32)


def build_head(feature_spec: Any, labels: Labels, recipe: Recipe) -> keras.Model:
    """Dropout and one Dense layer, `logits` [N, C] in float32; `options.hidden` puts a ReLU layer before it."""
    inputs = keras.Input(shape=feature_spec.shape[1:], dtype=feature_spec.dtype, name="features")
    x = inputs
    hidden = int(recipe.options.get("hidden", 0))
    if hidden:
        x = keras.layers.Dense(hidden, activation="relu", name="hidden")(x)
    dropout = max(recipe.head.dropout, recipe.fine_tune.dropout)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=recipe.seed, name="dropout")(x)
    # float32 whatever the precision policy: log-softmax of bfloat16 logits loses three digits.
    return keras.Model(inputs, keras.layers.Dense(len(labels), dtype="float32", name="logits")(x), name="head")


def loss(labels: Labels, label_smoothing: float, weights: np.ndarray | None) -> Callable[[Tensors, Any], tf.Tensor]:
    """Cross-entropy of each example, from logits; targets are indices, or rows of chances (multi-label, MixUp)."""
    count = len(labels)

    def each(targets: Tensors, logits: Any) -> tf.Tensor:
        label = targets["label"]
        if labels.kind == "multi":
            smooth = label * (1.0 - label_smoothing) + 0.5 * label_smoothing
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(smooth, logits), axis=-1)
        if label.shape.rank == 1:
            label = tf.one_hot(label, count)
        values = label * (1.0 - label_smoothing) + label_smoothing / count
        entropy = tf.nn.softmax_cross_entropy_with_logits(values, logits)
        if weights is not None:
            entropy *= tf.linalg.matvec(label, tf.constant(weights))
        return entropy

    return each


def exact_problem(labels: Labels, recipe: Recipe) -> Literal["softmax", "logistic"] | None:
    """A linear head on pooled features is a regression; a hidden layer is not."""
    if recipe.options.get("hidden"):
        return None
    return "logistic" if labels.kind == "multi" else "softmax"


def probabilities_of(logits: Any, labels: Labels) -> tf.Tensor:
    """float32 [N, C]."""
    return tf.sigmoid(logits) if labels.kind == "multi" else tf.nn.softmax(logits)


def decode(outputs: Any, labels: Labels) -> list[dict[str, Any]]:
    """Logits [B, C] to one dictionary an example, with `probabilities` [C]."""
    return [{"probabilities": row} for row in probabilities_of(outputs, labels).numpy()]


def references(records: Sequence[Record], labels: Labels) -> list[dict[str, Any]]:
    """The target of each record."""
    return [{"label": target} for target in targets_of(records, labels)]


def score(
    predictions: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]], labels: Labels
) -> dict[str, Any]:
    """Metrics of classes; see `metrics.classes`."""
    return _measured(classes, predictions, answers, labels)


def intervals(
    predictions: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]], labels: Labels
) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of the main scores; see `metrics.intervals`."""
    return _measured(bootstrapped, predictions, answers, labels)


def _measured(measures: Any, predictions: Sequence[Mapping[str, Any]], answers: Any, labels: Labels) -> dict[str, Any]:
    """The scores, or their intervals, for the kind of the labels: both modules have the same functions."""
    probabilities = np.stack([prediction["probabilities"] for prediction in predictions])
    targets = np.stack([answer["label"] for answer in answers])
    if labels.kind == "multi":
        return measures.multi_label(probabilities, targets, thresholds(labels), labels.names)
    if labels.kind == "ordinal":
        return measures.ordinal(probabilities, targets, labels.names)
    return measures.single_label(probabilities, targets, labels.names)


def thresholds(labels: Labels) -> np.ndarray:
    """float32 [C]: the probability from which each label is given."""
    return np.asarray(labels.thresholds or [0.5] * len(labels), np.float32)


def calibrate(predictions: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]], labels: Labels) -> Labels:
    """Multi-label: the thresholds that give the best F1 of each class on validation."""
    if labels.kind != "multi" or not predictions:
        return labels
    probabilities = np.stack([prediction["probabilities"] for prediction in predictions])
    return labels.with_thresholds(
        classes.choose_thresholds(probabilities, np.stack([answer["label"] for answer in answers]))
    )


def answer_tensors(logits: Any, labels: Labels) -> dict[str, tf.Tensor]:
    """The outputs of an export: `label`, `probability`, `probabilities`; or `labels`, `count` for multi-label."""
    probabilities = tf.cast(probabilities_of(logits, labels), tf.float32)
    names = tf.constant(labels.names)
    if labels.kind != "multi":
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
            "probability": tf.reduce_max(probabilities, axis=-1),
            "probabilities": probabilities,
        }
    given = probabilities >= tf.constant(thresholds(labels))
    # Given labels first, by probability; the rest of the row is "".
    order = tf.argsort(tf.where(given, probabilities, probabilities - 2.0), axis=-1, direction="DESCENDING")
    kept = tf.gather(given, order, batch_dims=1)
    return {
        "labels": tf.where(kept, tf.gather(names, order), ""),
        "count": tf.reduce_sum(tf.cast(given, tf.int32), axis=-1),
        "probabilities": probabilities,
    }


def expected(predictions: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The outputs of an export that must agree with the training side."""
    return {"probabilities": np.stack([prediction["probabilities"] for prediction in predictions])}


def from_outputs(outputs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """What an export answered, as `score` takes it."""
    return [{"probabilities": row} for row in outputs["probabilities"]]


def answers(outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
    """One JSON answer an input."""
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(outputs["probabilities"]):
        shares = {name: float(value) for name, value in zip(labels.names, row, strict=True)}
        if labels.kind == "multi":
            count = int(outputs["count"][number])
            given = [_text(value) for value in outputs["labels"][number][:count]]
            rows.append({"labels": given, "probabilities": shares})
        else:
            answer = {"label": _text(outputs["label"][number]), "probability": float(outputs["probability"][number])}
            rows.append({**answer, "probabilities": shares})
    return rows


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
