"""The contract of a task: what is specific to one job, and all that the engine knows about it.

A task is stateless. The engine (phases, evaluation, export, transfer) imports this module and never one task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones import Backbone
from keras_transfer.data.records import Record
from keras_transfer.labels import Labels
from keras_transfer.recipe import Recipe

Tensors = dict[str, tf.Tensor]
Modality = Literal["image", "text"]
FeatureKind = Literal["pooled", "sequence", "pyramid"]


@dataclass(frozen=True)
class Examples:
    """What a task makes of the records of one split: random access, so that order is the engine's alone.

    One record may give several examples (windows of a long text, tiles of a large photo).
    """

    ids: Sequence[str]
    """One id an example; examples of one record share the record's id."""
    load: Callable[[tf.Tensor], tuple[Tensors, Tensors]]
    """Traced inside tf.data: int64 scalar index -> (inputs, targets) of one example, all shapes static but the
    first axis of inputs whose length `lengths` gives."""
    meta: Sequence[Mapping[str, Any]]
    """What scoring and decoding need, one mapping an example (context, answers, image size, offset of the tile)."""
    lengths: np.ndarray | None = None
    """int32 [n]: the length of each example's inputs (tokens), for batches of similar length; None: all equal."""
    bucket_lengths: tuple[int, ...] = ()
    """With `lengths`: the few lengths to which training batches are padded; others pad to at most the last. One alone:
    every batch pads to it."""
    targets: Mapping[str, np.ndarray] | None = None
    """All targets, {name: [n, …]}, where they are in memory anyway."""
    key: str = ""
    """Hash of all that decides the inputs (records, size, resize, tokenizer): the identity of a cache of features."""
    augment: Callable[[Tensors, Tensors, tf.Tensor], tuple[Tensors, Tensors]] | None = None
    """Traced: (inputs, targets, int32 [2] seed of this example and epoch) -> one augmented example."""
    load_batch: Callable[[tf.Tensor, tf.Tensor], tuple[Tensors, Tensors]] | None = None
    """Traced: (int64 [B], int32 scalar, the length or 0) -> a whole batch, where that is cheaper than `load`;
    used where nothing is augmented."""
    augment_batch: Callable[[Tensors, Tensors, tf.Tensor], tuple[Tensors, Tensors]] | None = None
    """Traced: (inputs [B, …], targets [B, …], int32 [B, 2] seeds) -> a mixed batch (MixUp, CutMix, Mosaic)."""
    decoded: bool = False
    """Whether `load` reads pictures that are decoded already, as tiles of a photo do."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Serving:
    """What an export offers."""

    signatures: Mapping[str, Any]
    """By name: a tf.function with an input signature."""
    resources: Sequence[Any] = ()
    """Trackables (tables, tokenizers) that the signatures use."""
    warmup: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """One small request a signature, by input name."""


@runtime_checkable
class FitsInputs(Protocol):
    """A task whose inputs depend on the data, such as on the lengths of the texts."""

    def fit_inputs(self, recipe: Recipe, backbone: Backbone, train: Sequence[Record]) -> tuple[Recipe, list[str]]:
        """The recipe with what the training examples decide about inputs, and lines that say so."""
        ...


@runtime_checkable
class ShowsFields(Protocol):
    """A task whose answers say little without what was asked, such as the question."""

    shown_fields: tuple[str, ...]
    """The fields of a record that `predict` repeats beside its answer."""


@runtime_checkable
class KnowsCertain(Protocol):
    """A task of which an answer may be another one where numbers are rounded otherwise, though its scores are close."""

    def certain(self, predictions: Sequence[Mapping[str, Any]], labels: Labels) -> list[bool]:
        """Which predictions keep their answer all the same; an export is verified on such."""
        ...


@runtime_checkable
class Draws(Protocol):
    """A task whose answers a person can look at on the picture: boxes, masks."""

    def draw(self, record: Record, answer: Mapping[str, Any], path: Path) -> None:
        """Writes the picture with the answer on it, as PNG.

        Args:
            record: the picture that was asked about.
            answer: what `answers` gave for it.
            path: the file to write; its folder exists.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """One job: labels, head, loss, metrics, decoding, serving signature."""

    name: str
    title: str
    """One line for `keras-transfer tasks`."""
    modality: Modality
    features: FeatureKind
    primary_metric: str
    """The score (higher is better) by which the engine chooses weights and epochs."""
    default_backbone: str

    def resolve(self, recipe: Recipe, examples: int) -> Recipe:
        """The recipe with every open field (`auto`, None, 0) decided for so many training examples."""
        ...

    def learn_labels(self, train: Sequence[Record], recipe: Recipe) -> Labels:
        """The class table; learned from the training examples only."""
        ...

    def examples(
        self, records: Sequence[Record], labels: Labels, backbone: Backbone, recipe: Recipe, training: bool
    ) -> Examples:
        """The examples of one split; with augmentation where `training`."""
        ...

    def build_head(self, feature_spec: Any, labels: Labels, recipe: Recipe) -> keras.Model:
        """A Keras model from features (a nested structure of KerasTensor) to raw outputs (logits)."""
        ...

    def loss(
        self, labels: Labels, recipe: Recipe, class_weights: np.ndarray | None
    ) -> Callable[[Tensors, Any], tf.Tensor]:
        """(targets, raw outputs) -> float32 [B], the loss of each example."""
        ...

    def class_weights(self, examples: Examples, labels: Labels, recipe: Recipe) -> np.ndarray | None:
        """float32 [C], or None where classes weigh the same."""
        ...

    def exact_problem(self, labels: Labels, recipe: Recipe) -> Literal["softmax", "logistic"] | None:
        """Which exact solver finds the head on pooled features; None: only gradient descent does."""
        ...

    def decode(self, outputs: Any, meta: Sequence[Mapping[str, Any]], labels: Labels) -> list[dict[str, Any]]:
        """Raw outputs of a batch (NumPy, [B, …]) -> one prediction an example."""
        ...

    def merge(self, parts: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, Any]:
        """The predictions of all examples of one record (windows, tiles), in order -> the record's prediction."""
        ...

    def references(self, records: Sequence[Record], labels: Labels) -> list[dict[str, Any]]:
        """What `score` compares predictions with, one a record."""
        ...

    def score(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, Any]:
        """Metrics by name; numbers, but for `confusion_matrix`, `intervals` and the like. JSON values only."""
        ...

    def intervals(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the main scores, by name."""
        ...

    def calibrate(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> Labels:
        """The labels with thresholds chosen on the validation split; unchanged where there is nothing to choose."""
        ...

    def serving(
        self, numeric: Callable[[Any], Any], labels: Labels, recipe: Recipe, backbone: Backbone | None = None
    ) -> Serving:
        """Signatures from raw input (encoded bytes, strings) to decoded answers.

        `numeric` is the trained model as a function from inputs to raw outputs (its weights may be constants);
        `backbone` gives the tokenizer where the inputs are text.
        """
        ...

    def read_inputs(self, words: Sequence[str]) -> list[tuple[str, Record | str]]:
        """What `predict` was given (files, folders, `-`) -> (name to print, record or what is wrong with it)."""
        ...

    def request(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """The inputs of `serving_default` for some records: encoded bytes, strings."""
        ...

    def expected(self, predictions: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, np.ndarray]:
        """What `serving_default` must answer where the training side predicted this; the outputs worth comparing."""
        ...

    def from_outputs(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """What `serving_default` answered (NumPy, [N, …]) -> predictions as `score` takes them."""
        ...

    def answers(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """What `serving_default` answered (NumPy, [N, …]) -> one JSON answer an input, as `predict` prints it."""
        ...
