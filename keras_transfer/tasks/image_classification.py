"""Image classification: one or several labels for an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones import Backbone
from keras_transfer.data.image_inputs import image_inputs
from keras_transfer.data.records import Record, fingerprint
from keras_transfer.labels import Labels
from keras_transfer.recipe import Recipe
from keras_transfer.tasks import classes
from keras_transfer.tasks.base import Examples, FeatureKind, Modality, Serving, Tensors
from keras_transfer.vision import images
from keras_transfer.vision.augmentation import Augmentation

# How long to fine-tune and how much, by training examples: more passes over fewer photos, so that steps suffice.
# Judgement, from the trees and digits samples (docs/benchmarks.md).
FINE_TUNE_EPOCHS = ((300, 12), (1_000, 8), (10_000, 5), (100_000, 3))
FINE_TUNE_RATE = 1e-4
# Of this network the upper half at a higher rate does better than all of it, in fewer epochs, on the validation rows of
# trees and digits. Where all of it trains, it first loses: validation loss after one epoch on trees was above that of
# the frozen network with each of three seeds, once 2.98 after 0.23.
UPPER_HALF = {"efficientnet_lite0": ("last:4", 3e-4, 5)}
FEWEST_TO_FINE_TUNE_MORE = 300
HEAD_RATE = 1e-3
HEAD_EPOCHS = 20


@dataclass(frozen=True)
class ImageClassification:
    """One or several labels for an image."""

    name: str = "image_classification"
    title: str = "one or several labels for an image"
    modality: Modality = "image"
    features: FeatureKind = "pooled"
    primary_metric: str = "accuracy"
    default_backbone: str = "efficientnet_lite0"

    def resolve(self, recipe: Recipe, examples: int) -> Recipe:
        """Decides every open field for so many training examples."""
        head, tune = recipe.head, recipe.fine_tune
        trainable, rate, epochs = _fine_tuning(recipe, examples, self.default_backbone)
        return replace(
            recipe,
            data=replace(
                recipe.data,
                augment="light" if recipe.data.augment == "auto" else recipe.data.augment,
                resize="crop" if recipe.data.resize == "auto" else recipe.data.resize,
            ),
            head=replace(
                head,
                epochs=HEAD_EPOCHS if head.epochs is None else head.epochs,
                learning_rate=head.learning_rate or HEAD_RATE,
            ),
            fine_tune=replace(
                tune,
                epochs=epochs if tune.epochs is None else tune.epochs,
                learning_rate=tune.learning_rate or rate,
                trainable=trainable,
            ),
        )

    def learn_labels(self, train: Sequence[Record], recipe: Recipe) -> Labels:
        """The classes of the training examples."""
        return classes.learn_labels(train)

    def examples(
        self, records: Sequence[Record], labels: Labels, backbone: Backbone, recipe: Recipe, training: bool
    ) -> Examples:
        """Inputs `pixels` float32 [S, S, 3] in 0..255; targets `label`: int32 [], or float32 [C]."""
        size, how = backbone.image_size, recipe.data.resize
        targets = classes.targets_of(records, labels)
        augmentation = Augmentation.parse(recipe.data.augment) if training else Augmentation.parse("none")
        if augmentation.mixes and labels.kind != "multi":
            targets = np.eye(len(labels), dtype=np.float32)[targets]
        paths = tf.constant([record.fields["image"] for record in records])
        labelled = tf.constant(targets)

        # Plain TensorFlow, no Python control flow over tensors: converting it in each pipeline takes seconds.
        @tf.autograph.experimental.do_not_convert
        def load(index: tf.Tensor) -> tuple[Tensors, Tensors]:
            pixels = images.load(tf.io.read_file(paths[index]), size, how)
            return {"pixels": pixels}, {"label": labelled[index]}

        @tf.autograph.experimental.do_not_convert
        def augment(inputs: Tensors, targets: Tensors, seed: tf.Tensor) -> tuple[Tensors, Tensors]:
            return {"pixels": augmentation.one(inputs["pixels"], seed)}, targets

        @tf.autograph.experimental.do_not_convert
        def mix(inputs: Tensors, targets: Tensors, seeds: tf.Tensor) -> tuple[Tensors, Tensors]:
            pixels, label = augmentation.batch(inputs["pixels"], targets["label"], seeds)
            return {"pixels": pixels}, {"label": label}

        identity = f"{fingerprint(records)}|{size}|{how}"
        return Examples(
            ids=[record.id for record in records],
            load=load,
            meta=[{}] * len(records),
            targets={"label": targets},
            key=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
            augment=augment if training and augmentation != Augmentation.parse("none") else None,
            augment_batch=mix if augmentation.mixes else None,
        )

    def build_head(self, feature_spec: Any, labels: Labels, recipe: Recipe) -> keras.Model:
        """Pooled features [N, F] to `logits` [N, C]."""
        return classes.build_head(feature_spec, labels, recipe)

    def loss(
        self, labels: Labels, recipe: Recipe, class_weights: np.ndarray | None
    ) -> Callable[[Tensors, Any], tf.Tensor]:
        """Cross-entropy of each example."""
        smoothing = max(recipe.head.label_smoothing or 0.0, recipe.fine_tune.label_smoothing or 0.0)
        return classes.loss(labels, smoothing, class_weights)

    def class_weights(self, examples: Examples, labels: Labels, recipe: Recipe) -> np.ndarray | None:
        """float32 [C], or None where classes weigh the same."""
        targets = examples.targets["label"] if examples.targets is not None else np.zeros(0, np.int32)
        targets = targets.argmax(-1) if targets.ndim == 2 and labels.kind != "multi" else targets
        return classes.class_weights(targets, labels, recipe)

    def exact_problem(self, labels: Labels, recipe: Recipe) -> Literal["softmax", "logistic"] | None:
        """Softmax or logistic regression, for the linear head."""
        return classes.exact_problem(labels, recipe)

    def decode(self, outputs: Any, meta: Sequence[Mapping[str, Any]], labels: Labels) -> list[dict[str, Any]]:
        """Logits [B, C] to `probabilities` [C] an example."""
        return classes.decode(outputs, labels)

    def merge(self, parts: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, Any]:
        """An image is one example."""
        return dict(parts[0])

    def references(self, records: Sequence[Record], labels: Labels) -> list[dict[str, Any]]:
        """The target of each record."""
        return classes.references(records, labels)

    def score(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, Any]:
        """Accuracy, macro-F1 and the like; see `metrics.classes`."""
        return classes.score(predictions, references, labels)

    def intervals(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals; see `metrics.intervals`."""
        return classes.intervals(predictions, references, labels)

    def calibrate(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> Labels:
        """Thresholds for multi-label."""
        return classes.calibrate(predictions, references, labels)

    def serving(
        self, numeric: Callable[[Any], Any], labels: Labels, recipe: Recipe, backbone: Backbone | None = None
    ) -> Serving:
        """`serving_default`: `image_bytes` string [N]; `pixels`: uint8 [N, H, W, 3]."""
        size, how = recipe.backbone.image_size, recipe.data.resize

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
        def from_bytes(image_bytes: tf.Tensor) -> Tensors:
            return classes.answer_tensors(numeric(images.decode_batch(image_bytes, size, how)), labels)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")], autograph=False)
        def from_pixels(pixels: tf.Tensor) -> Tensors:
            return classes.answer_tensors(numeric(images.resize_batch(pixels, size, how)), labels)

        grey = np.full((size, size, 3), 127, np.uint8)
        encoded = tf.io.encode_jpeg(grey).numpy()
        warmup = {
            "serving_default": {"image_bytes": np.array([encoded], object)},
            "pixels": {"pixels": grey[None]},
        }
        return Serving({"serving_default": from_bytes, "pixels": from_pixels}, warmup=warmup)

    def read_inputs(self, words: Sequence[str]) -> list[tuple[str, Record | str]]:
        """Image files, folders of them, and `-` for paths on standard input."""
        return image_inputs(words)

    def request(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """`image_bytes`: the files as they are."""
        return {"image_bytes": np.array([Path(record.fields["image"]).read_bytes() for record in records], object)}

    def expected(self, predictions: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, np.ndarray]:
        """`probabilities` [N, C]."""
        return classes.expected(predictions)

    def from_outputs(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """`probabilities` [C] an image."""
        return classes.from_outputs(outputs)

    def answers(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """One JSON answer an image."""
        return classes.answers(outputs, labels)


def _fine_tuning(recipe: Recipe, examples: int, default: str) -> tuple[str, float, int]:
    """What trains, at which rate and for how many epochs, where the recipe leaves it open."""
    tune, name = recipe.fine_tune, (recipe.backbone.name or default).removeprefix("sample:")
    epochs = next((count for most, count in FINE_TUNE_EPOCHS if examples < most), 2)
    if tune.trainable != "auto":
        return tune.trainable, FINE_TUNE_RATE, epochs
    if examples < FEWEST_TO_FINE_TUNE_MORE:
        return "last:3", FINE_TUNE_RATE, epochs
    if name in UPPER_HALF and recipe.backbone.weights != "none":
        trainable, rate, most = UPPER_HALF[name]
        return trainable, rate, min(epochs, most)
    return "all", FINE_TUNE_RATE, epochs
