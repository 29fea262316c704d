"""Question answering: the part of a context that answers a question, or that there is none."""

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
from keras_transfer.metrics import spans as metrics
from keras_transfer.metrics.intervals import bootstrap
from keras_transfer.recipe import Recipe
from keras_transfer.tasks.base import Examples, FeatureKind, Modality, Serving, Tensors
from keras_transfer.text import answers as answering
from keras_transfer.text import networks, offsets, packing, spans, windows
from keras_transfer.text.windows import Windowing

# By training questions: the rate and the epochs. Fewer questions need more of both; the last are those of Devlin et
# al., BERT, for SQuAD. The first two from validation questions of the sample `countries`.
FINE_TUNE = ((1_000, 1e-4, 4), (20_000, 1e-4, 2))
FINE_TUNE_MANY = (5e-5, 2)
HEAD_RATE = 1e-3
WEIGHT_DECAY = 0.01
ANSWER_TOKENS = 30
N_BEST = 5
MEASURED = 1_000  # questions by which the plan says how many contexts are longer than a window


@dataclass(frozen=True)
class QuestionAnswering:
    """The part of a context that answers a question, or that there is none."""

    name: str = "question_answering"
    title: str = (
        "the part of a text that answers a question, or none "
        "(options: overlap, question_tokens, answer_tokens, all in tokens; n_best)"
    )
    modality: Modality = "text"
    features: FeatureKind = "sequence"
    primary_metric: str = "exact_match"
    default_backbone: str = "minilm"
    shown_fields: tuple[str, ...] = ("question",)
    """What `predict` repeats beside an answer."""

    def resolve(self, recipe: Recipe, examples: int) -> Recipe:
        """Decides every open field for so many training questions.

        The head phase is left out unless it is asked for: a linear head on frozen features finds few spans (0.14 exact
        match on the sample `countries`).

        Raises:
            ValueError: if the features are to be cached: those of every token would fill the disk.
        """
        if recipe.cache not in ("auto", "off"):
            raise ValueError(
                "cache: expected auto or off for question answering, whose features are of every token. "
                f"Received: {recipe.cache!r}."
            )
        head, tune = recipe.head, recipe.fine_tune
        rate, epochs = next(((rate, epochs) for most, rate, epochs in FINE_TUNE if examples < most), FINE_TUNE_MANY)
        head_epochs = 3 if tune.epochs == 0 else 0
        return replace(
            recipe,
            cache="off",
            data=replace(recipe.data, augment="none"),
            head=replace(
                head,
                epochs=head_epochs if head.epochs is None else head.epochs,
                learning_rate=head.learning_rate or HEAD_RATE,
            ),
            fine_tune=replace(
                tune,
                epochs=epochs if tune.epochs is None else tune.epochs,
                learning_rate=tune.learning_rate or rate,
                trainable="all" if tune.trainable == "auto" else tune.trainable,
                schedule="linear" if tune.schedule == "auto" else tune.schedule,
                weight_decay=WEIGHT_DECAY if tune.weight_decay is None else tune.weight_decay,
            ),
        )

    def learn_labels(self, train: Sequence[Record], recipe: Recipe) -> Labels:
        """No classes. The threshold of no answer: never, unless a training question has none (SQuAD 2.0)."""
        possible = all(record.fields["answers"] for record in train)
        return Labels((), "none", (spans.ALWAYS if possible else 0.0,))

    def fit_inputs(self, recipe: Recipe, backbone: Backbone, train: Sequence[Record]) -> tuple[Recipe, list[str]]:
        """The recipe with the length of a window, and how many contexts are longer."""
        length = min(recipe.backbone.sequence_length or windows.LENGTH, backbone.sequence_length)
        recipe = replace(recipe, backbone=replace(recipe.backbone, sequence_length=length))
        windowing = _windowing(recipe, backbone)
        step = max(1, len(train) // MEASURED)
        found = windows.table(windowing, *_texts(train[::step]))
        several = float((np.bincount(found.record) > 1).mean()) if len(found) else 0.0
        said = f"windows of up to {length} tokens, {windowing.overlap} of them shared by two"
        return recipe, [f"{said}; {several:.1%} of the questions need several"]

    def examples(
        self, records: Sequence[Record], labels: Labels, backbone: Backbone, recipe: Recipe, training: bool
    ) -> Examples:
        """The windows of each question: inputs as the backbone takes them, int32 [T] each; targets as `spans.loss`.

        A window that does not hold the whole answer is one without an answer. Of several answers the first is taught.
        """
        windowing, names = _windowing(recipe, backbone), networks.input_names(backbone.model)
        questions, contexts = _texts(records)
        found = windows.table(windowing, questions, contexts)
        longest, most = _answer_tokens(recipe), _n_best(recipe)
        right = np.array(
            [
                answering.place(records[number].fields["answers"], found, window)
                for window, number in enumerate(found.record)
            ],
            np.int32,
        ).reshape(-1, 2)
        counts = np.array([len(starts) for starts in found.starts], np.int32)
        targets = {
            "start": right[:, 0],
            "end": right[:, 1],
            "first": found.first,
            "count": counts,
            "null": found.null,
        }
        constants = {name: tf.constant(value, tf.int32) for name, value in targets.items()}

        def load(index: tf.Tensor) -> tuple[Tensors, Tensors]:
            return found.packed.one(index, names), {name: value[index] for name, value in constants.items()}

        def load_batch(index: tf.Tensor, width: tf.Tensor) -> tuple[Tensors, Tensors]:
            chosen = {name: tf.gather(value, index) for name, value in constants.items()}
            return found.packed.batch(index, width, names), chosen

        identity = f"{fingerprint(records)}|{windowing.identity}"
        return Examples(
            ids=[records[number].id for number in found.record],
            load=load,
            load_batch=load_batch,
            meta=[
                {
                    "context": contexts[number],
                    "first": int(first),
                    "null": int(null),
                    "starts": starts,
                    "ends": ends,
                    "longest": longest,
                    "most": most,
                }
                for number, first, null, starts, ends in zip(
                    found.record, found.first, found.null, found.starts, found.ends, strict=True
                )
            ],
            lengths=found.packed.lengths,
            bucket_lengths=packing.buckets(windowing.length, backbone.family),
            targets=targets,
            key=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
        )

    def build_head(self, feature_spec: Any, labels: Labels, recipe: Recipe) -> keras.Model:
        """`sequence` [N, T, F] and `mask` [N, T] to `logits` [N, T, 2]: a token as first and as last of the answer."""
        inputs = {
            name: keras.Input(shape=spec.shape[1:], dtype=spec.dtype, name=name) for name, spec in feature_spec.items()
        }
        x = inputs["sequence"]
        dropout = max(recipe.head.dropout, recipe.fine_tune.dropout)
        if dropout:
            x = keras.layers.Dropout(dropout, seed=recipe.seed, name="dropout")(x)
        # float32 whatever the precision policy: log-softmax of bfloat16 logits loses three digits.
        logits = keras.layers.Dense(2, dtype="float32", name="logits")(x)
        mask = keras.ops.cast(inputs["mask"], "float32")[:, :, None]
        return keras.Model(inputs, logits + (mask - 1.0) * -spans.IMPOSSIBLE, name="head")

    def loss(
        self, labels: Labels, recipe: Recipe, class_weights: np.ndarray | None
    ) -> Callable[[Tensors, Any], tf.Tensor]:
        """Cross-entropy of the first and the last token."""
        return lambda targets, outputs: spans.loss(outputs, targets)

    def class_weights(self, examples: Examples, labels: Labels, recipe: Recipe) -> np.ndarray | None:
        """There are no classes."""
        return None

    def exact_problem(self, labels: Labels, recipe: Recipe) -> Literal["softmax", "logistic"] | None:
        """None: a softmax over tokens is no regression on pooled features."""
        return None

    def decode(self, outputs: Any, meta: Sequence[Mapping[str, Any]], labels: Labels) -> list[dict[str, Any]]:
        """Logits [B, T, 2] to the best spans of each window; see `spans.candidates`."""
        if not meta:
            return []
        first, null = (np.array([about[name] for about in meta], np.int32) for name in ("first", "null"))
        starts, ends = (spans.ragged([about[name] for about in meta]) for name in ("starts", "ends"))
        best = spans.best_in_batch(meta[0]["longest"], meta[0]["most"])
        found, nothing = best(tf.constant(outputs, tf.float32), spans.Places(first, null, starts, ends))
        return spans.candidates(spans.Spans(*(value.numpy() for value in found)), nothing.numpy(), meta)

    def merge(self, parts: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, Any]:
        """The best spans of a question over its windows."""
        return spans.merge(parts)

    def references(self, records: Sequence[Record], labels: Labels) -> list[dict[str, Any]]:
        """`answers`: the acceptable texts of each question, none where it has no answer."""
        return [{"answers": [answer["text"] for answer in record.fields["answers"]]} for record in records]

    def score(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, Any]:
        """SQuAD's `exact_match` and `f1`, from 0 to 1, and those of questions with and without an answer."""
        texts = [answering.answer_of(prediction, labels)["answer"] for prediction in predictions]
        return metrics.spans_score(texts, [reference["answers"] for reference in references])

    def intervals(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of `exact_match` and `f1`."""
        rules: metrics.Rules = "1.1" if all(reference["answers"] for reference in references) else "2.0"
        each = np.array(
            [
                metrics.score_one(answering.answer_of(prediction, labels)["answer"], reference["answers"], rules)
                for prediction, reference in zip(predictions, references, strict=True)
            ]
        )
        found = {name: bootstrap(np.mean, [each[:, column]]) for column, name in enumerate(("exact_match", "f1"))}
        return {name: interval for name, interval in found.items() if interval is not None}

    def calibrate(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> Labels:
        """The threshold of no answer with the best exact match on validation, where a question has none."""
        chosen = answering.threshold_for(predictions, references)
        return labels if chosen is None else labels.with_thresholds([chosen])

    def serving(
        self, numeric: Callable[[Any], Any], labels: Labels, recipe: Recipe, backbone: Backbone | None = None
    ) -> Serving:
        """`serving_default`: `question`, `context` string [N] -> `answer`, `start`, `end`, `score` [N]; N may be 0.

        `start` and `end` count characters (code points) of the context, the end not included; without an answer they
        are -1 and `answer` is "". `score`, 0 to 1, is the probability of the answer in its window, or of there being
        none. `n_best_answer`, `n_best_start`, `n_best_end`, `n_best_score` [N, K]: the best spans, whatever the
        threshold; "", -1, -1, 0 where there are fewer.

        Raises:
            ValueError: without a backbone that brings its tokenizer.
        """
        if backbone is None or backbone.tokenizer is None:
            raise ValueError("backbone: expected the text backbone that the model was trained with. Received: none.")
        windowing, names = _windowing(recipe, backbone), networks.input_names(backbone.model)
        width = packing.width_of_all(backbone.family, windowing.length)
        longest, most, threshold = _answer_tokens(recipe), _n_best(recipe), answering.threshold_of(labels)
        strings = [tf.TensorSpec([None], tf.string, name=name) for name in ("question", "context")]

        @tf.function(input_signature=strings, autograph=False)
        def answer(question: tf.Tensor, context: tf.Tensor) -> Tensors:
            question, context = offsets.repaired(question), offsets.repaired(context)
            found = windowing.graph(question, context)
            inputs = windowing.tokenizer.dense(found.ids, found.segments, names, width)
            places = spans.Places(found.first, found.null, found.starts, found.ends)
            tokens, nothing = spans.best_in_chunks(numeric, inputs, places, longest, most)
            characters = spans.in_characters(tokens, places)
            best, least = spans.merge_windows(characters, nothing, found.record, tf.size(context), most)
            return answering.answer_tensors(best, least, context, threshold)

        request = {
            "question": np.array([b"What is the capital?"], object),
            "context": np.array([b"The capital is Paris."], object),
        }
        return Serving({"serving_default": answer}, windowing.tokenizer.resources, {"serving_default": request})

    def read_inputs(self, words: Sequence[str]) -> list[tuple[str, Record | str]]:
        """JSONL, CSV and TSV files of `question` and `context`, and `-` for lines of JSON on standard input."""
        return text_inputs(words, ("question", "context"))

    def request(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """`question` and `context`, UTF-8."""
        columns = zip(("question", "context"), _texts(records), strict=True)
        return {name: np.array([text.encode() for text in texts], object) for name, texts in columns}

    def certain(self, predictions: Sequence[Mapping[str, Any]], labels: Labels) -> list[bool]:
        """Whether each question's answer stays the same where numbers are rounded otherwise; see `answers.certain`."""
        return [answering.certain(prediction, labels) for prediction in predictions]

    def expected(self, predictions: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, np.ndarray]:
        """`n_best_score` [N, K], and where each answer is certain also `answer`, `start`, `end`, `score` [N].

        Scores in order change little where numbers are rounded otherwise, as bfloat16 does on another processor; which
        of two answers of nearly one score comes first may change, and is no fault of an export.
        """
        return answering.expected(predictions, labels, N_BEST)

    def from_outputs(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """The answers as they were decided."""
        return [{"decided": answering.output_of(outputs, "", number)} for number in range(len(outputs["answer"]))]

    def answers(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """`answer`, `start`, `end`, `score`, and the best spans as `n_best`, one a question."""
        rows = []
        for number, starts in enumerate(outputs["n_best_start"]):
            found = [answering.output_of(outputs, "n_best_", (number, k)) for k in range(len(starts))]
            listed = [answer for answer in found if answer["start"] >= 0]
            rows.append({**answering.output_of(outputs, "", number), "n_best": listed})
        return rows


def _windowing(recipe: Recipe, backbone: Backbone) -> Windowing:
    """How the recipe wants windows made."""
    return Windowing(
        backbone.tokenizer,
        recipe.backbone.sequence_length or min(windows.LENGTH, backbone.sequence_length),
        _option(recipe, "overlap", windows.OVERLAP, 0),
        _option(recipe, "question_tokens", windows.QUESTION, 1),
    )


def _answer_tokens(recipe: Recipe) -> int:
    return _option(recipe, "answer_tokens", ANSWER_TOKENS, 1)


def _n_best(recipe: Recipe) -> int:
    return _option(recipe, "n_best", N_BEST, 1)


def _option(recipe: Recipe, name: str, default: int, least: int) -> int:
    """A whole number among the options; a command line gives it as text."""
    value = recipe.options.get(name, default)
    if not str(value).isdecimal() or int(value) < least:
        raise ValueError(f"options.{name}: expected a whole number of at least {least}. Received: {value!r}.")
    return int(value)


def _texts(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Questions and contexts, fit for UTF-8."""
    questions, contexts = (
        [offsets.encodable(record.fields[name]) for record in records] for name in ("question", "context")
    )
    return questions, contexts
