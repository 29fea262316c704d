"""Text classification: one or several labels, or a rating, for a text or a pair of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones import Backbone
from keras_transfer.data.records import Record, fingerprint
from keras_transfer.data.text_inputs import text_inputs
from keras_transfer.labels import Labels
from keras_transfer.recipe import Recipe
from keras_transfer.tasks import classes
from keras_transfer.tasks.base import Examples, FeatureKind, Modality, Serving, Tensors
from keras_transfer.text import networks, packing

# Fine-tuning by training examples: more passes over fewer texts. The small default backbone's rate, the smoothing and
# three epochs were chosen on validation rows of the movie reviews, means of three seeds. For larger networks, the
# middle of what BERT's authors advise.
FINE_TUNE_EPOCHS = ((500, 8), (2_000, 4), (20_000, 3))
FINE_TUNE_RATE = 3e-5
FINE_TUNE_RATE_SMALL = 1e-4
LABEL_SMOOTHING = 0.1
HEAD_RATE = 1e-3
HEAD_EPOCHS = 20
# Of AdamW, as in BERT's own fine-tuning (Devlin et al., https://arxiv.org/abs/1810.04805).
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class TextClassification:
    """One or several labels, or a rating, for a text or a pair of texts."""

    name: str = "text_classification"
    title: str = (
        "one or several labels, or a rating, for a text or a pair (options.ordinal: labels are ordered ratings)"
    )
    modality: Modality = "text"
    features: FeatureKind = "pooled"
    primary_metric: str = "accuracy"
    default_backbone: str = "minilm"

    def resolve(self, recipe: Recipe, examples: int) -> Recipe:
        """Decides every open field for so many training examples."""
        epochs = next((count for most, count in FINE_TUNE_EPOCHS if examples < most), 2)
        head, tune = recipe.head, recipe.fine_tune
        small = recipe.backbone.name.removeprefix("sample:") in ("", self.default_backbone)
        return replace(
            recipe,
            data=replace(recipe.data, augment="none"),
            head=replace(
                head,
                epochs=HEAD_EPOCHS if head.epochs is None else head.epochs,
                learning_rate=head.learning_rate or HEAD_RATE,
            ),
            fine_tune=replace(
                tune,
                epochs=epochs if tune.epochs is None else tune.epochs,
                learning_rate=tune.learning_rate or (FINE_TUNE_RATE_SMALL if small else FINE_TUNE_RATE),
                trainable="all" if tune.trainable == "auto" else tune.trainable,
                schedule="linear" if tune.schedule == "auto" else tune.schedule,
                weight_decay=WEIGHT_DECAY if tune.weight_decay is None else tune.weight_decay,
                label_smoothing=LABEL_SMOOTHING if tune.label_smoothing is None else tune.label_smoothing,
            ),
        )

    def learn_labels(self, train: Sequence[Record], recipe: Recipe) -> Labels:
        """The classes of the training examples, or with `options.ordinal` their ratings in order.

        Raises:
            ValueError: fewer than two classes, or ordinal ratings of several labels an example.
        """
        labels = classes.learn_labels(train)
        if not truth(recipe.options.get("ordinal")):
            return labels
        if labels.kind == "multi":
            raise ValueError(
                "options.ordinal: expected one rating an example. Received: examples with several labels. Leave the "
                'option out, or set data.label_separator to "".'
            )
        return replace(labels, kind="ordinal")

    def fit_inputs(self, recipe: Recipe, backbone: Backbone, train: Sequence[Record]) -> tuple[Recipe, list[str]]:
        """The recipe with the length of inputs, and whether they are pairs, as the training examples advise."""
        pair = any("text_pair" in record.fields for record in train)
        length, said = packing.choose_length(
            backbone.tokenizer, texts_of(train, pair), recipe.backbone.sequence_length, backbone.sequence_length
        )
        spec = replace(recipe.backbone, sequence_length=length)
        options = {**recipe.options, "text_pair": True} if pair else recipe.options
        return replace(recipe, backbone=spec, options=options), [said]

    def examples(
        self, records: Sequence[Record], labels: Labels, backbone: Backbone, recipe: Recipe, training: bool
    ) -> Examples:
        """Inputs as the backbone takes them, int32 [T] each; targets `label`: int32 [], or float32 [C]."""
        targets = classes.targets_of(records, labels)
        labelled = tf.constant(targets)
        length = recipe.backbone.sequence_length
        pair = truth(recipe.options.get("text_pair"))
        packed = packing.pack(backbone.tokenizer, texts_of(records, pair), length)
        names = networks.input_names(backbone.model)

        def load(index: tf.Tensor) -> tuple[Tensors, Tensors]:
            return packed.one(index, names), {"label": labelled[index]}

        def load_batch(index: tf.Tensor, width: tf.Tensor) -> tuple[Tensors, Tensors]:
            return packed.batch(index, width, names), {"label": tf.gather(labelled, index)}

        identity = f"{fingerprint(records)}|{length}|{pair}|{backbone.tokenizer.identity}"
        return Examples(
            ids=[record.id for record in records],
            load=load,
            load_batch=load_batch,
            meta=[{}] * len(records),
            lengths=packed.lengths,
            bucket_lengths=packing.buckets(length, backbone.family),
            targets={"label": targets},
            key=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
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
        assert examples.targets is not None
        return classes.class_weights(examples.targets["label"], labels, recipe)

    def exact_problem(self, labels: Labels, recipe: Recipe) -> Literal["softmax", "logistic"] | None:
        """Softmax or logistic regression, for the linear head."""
        return classes.exact_problem(labels, recipe)

    def decode(self, outputs: Any, meta: Sequence[Mapping[str, Any]], labels: Labels) -> list[dict[str, Any]]:
        """Logits [B, C] to `probabilities` [C] an example."""
        return classes.decode(outputs, labels)

    def merge(self, parts: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, Any]:
        """A text is one example."""
        return dict(parts[0])

    def references(self, records: Sequence[Record], labels: Labels) -> list[dict[str, Any]]:
        """The target of each record."""
        return classes.references(records, labels)

    def score(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, Any]:
        """Accuracy, macro-F1 and the like; for ratings also their distances. See `metrics.classes`."""
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
        """`serving_default`: `text` string [N], and `text_pair` string [N] where it was trained on pairs.

        Raises:
            ValueError: without a backbone that brings its tokenizer.
        """
        if backbone is None or backbone.tokenizer is None:
            raise ValueError("backbone: expected the text backbone that the model was trained with. Received: none.")
        tokenizer, names = backbone.tokenizer, networks.input_names(backbone.model)
        length = recipe.backbone.sequence_length or backbone.sequence_length
        width = packing.width_of_all(backbone.family, length)
        strings = tf.TensorSpec([None], tf.string, name="text")
        pairs = tf.TensorSpec([None], tf.string, name="text_pair")

        def answer(text: tf.Tensor, text_pair: tf.Tensor | None = None) -> Tensors:
            second = None if text_pair is None else tokenizer.graph_encode(text_pair)
            ids, segments = tokenizer.graph_pack(tokenizer.graph_encode(text), second, length)
            return classes.answer_tensors(numeric(tokenizer.dense(ids, segments, names, width)), labels)

        example = np.array(["A short text."], object)
        if truth(recipe.options.get("text_pair")):

            @tf.function(input_signature=[strings, pairs], autograph=False)
            def from_pair(text: tf.Tensor, text_pair: tf.Tensor) -> Tensors:
                return answer(text, text_pair)

            warmup = {"serving_default": {"text": example, "text_pair": example}}
            return Serving({"serving_default": from_pair}, tokenizer.resources, warmup)

        @tf.function(input_signature=[strings], autograph=False)
        def from_text(text: tf.Tensor) -> Tensors:
            return answer(text)

        return Serving({"serving_default": from_text}, tokenizer.resources, {"serving_default": {"text": example}})

    def read_inputs(self, words: Sequence[str]) -> list[tuple[str, Record | str]]:
        """Text files, folders of them, tables, and `-` for texts on standard input."""
        return text_inputs(words, ("text",), ("text_pair",))

    def request(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """`text`, and `text_pair` where the records have it."""
        pair = any("text_pair" in record.fields for record in records)
        names = ("text", "text_pair") if pair else ("text",)
        return {name: np.array([record.fields.get(name, "").encode() for record in records], object) for name in names}

    def expected(self, predictions: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, np.ndarray]:
        """`probabilities` [N, C]."""
        return classes.expected(predictions)

    def from_outputs(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """`probabilities` [C] a text."""
        return classes.from_outputs(outputs)

    def answers(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """One JSON answer a text."""
        return classes.answers(outputs, labels)


def texts_of(records: Sequence[Record], pair: bool) -> list[tuple[str, ...]]:
    """The text of each record, or its two texts."""
    names = ("text", "text_pair") if pair else ("text",)
    return [tuple(record.fields.get(name, "") for name in names) for record in records]


def truth(value: Any) -> bool:
    """An option as yes or no; a command line gives it as text."""
    return value.strip().lower() in ("true", "yes", "1") if isinstance(value, str) else bool(value)
