"""Semantic segmentation: a class for every pixel of an image."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_transfer.backbones import Backbone
from keras_transfer.data.image_inputs import image_inputs
from keras_transfer.data.records import Record, fingerprint
from keras_transfer.labels import Labels
from keras_transfer.metrics import masks as metrics
from keras_transfer.recipe import Recipe
from keras_transfer.tasks.base import Examples, FeatureKind, Modality, Serving, Tensors
from keras_transfer.vision import images, mask_decoder, mask_drawing, masks
from keras_transfer.vision.augmentation import Augmentation

IMAGE_SIZE = 256
"""Side of the square where the recipe says none: a multiple of every stride."""
HEAD_RATE, FINE_TUNE_RATE = 1e-3, 3e-4
HEAD_STEPS, FINE_TUNE_STEPS = 25, 125
"""Of training at least, however few examples there are: from the validation tiles of the sample `nuclei`."""
HEAD_EPOCHS, FINE_TUNE_EPOCHS = ((10_000, 2),), ((1_000, 25), (10_000, 12), (100_000, 5))
"""By training examples, where these give more steps; judgements. Beyond the last: `LEAST_EPOCHS`."""
LEAST_EPOCHS = 1, 3
COUNTED = 500
"""Training masks at least from which the pixels of each class are counted."""


@dataclass(frozen=True)
class SemanticSegmentation:
    """A class for every pixel of an image."""

    name: str = "semantic_segmentation"
    title: str = (
        "a class for every pixel of an image (options: width, the channels of the decoder; "
        "views, how often an epoch sees each image, differently augmented)"
    )
    modality: Modality = "image"
    features: FeatureKind = "pyramid"
    primary_metric: str = "mean_iou"
    default_backbone: str = "efficientnet_lite0"

    def resolve(self, recipe: Recipe, examples: int) -> Recipe:
        """Decides every open field for so many training examples.

        Raises:
            ValueError: for `data.resize` crop, and for augmentations that masks cannot follow.
        """
        data, head, tune = recipe.data, recipe.head, recipe.fine_tune
        how = "pad" if data.resize == "auto" else data.resize
        if how == "crop":
            raise ValueError(
                "data.resize: expected pad or stretch for semantic segmentation, since crop leaves the rim of an image "
                "without an answer. Received: 'crop'."
            )
        views = max(examples, 1) * _option(recipe, "views", 1)
        # What does not fill a batch is padded with examples that count for nothing.
        batch = min(data.batch_size, views)
        steps = math.ceil(views / batch)
        return replace(
            recipe,
            data=replace(data, augment=masks.followed(data.augment), resize=how, batch_size=batch),
            backbone=replace(recipe.backbone, image_size=recipe.backbone.image_size or IMAGE_SIZE),
            head=replace(
                head,
                epochs=_epochs(examples, steps, HEAD_STEPS, HEAD_EPOCHS, LEAST_EPOCHS[0])
                if head.epochs is None
                else head.epochs,
                learning_rate=head.learning_rate or HEAD_RATE,
            ),
            fine_tune=replace(
                tune,
                epochs=_epochs(examples, steps, FINE_TUNE_STEPS, FINE_TUNE_EPOCHS, LEAST_EPOCHS[1])
                if tune.epochs is None
                else tune.epochs,
                learning_rate=tune.learning_rate or FINE_TUNE_RATE,
                trainable="all" if tune.trainable == "auto" else tune.trainable,
            ),
        )

    def learn_labels(self, train: Sequence[Record], recipe: Recipe) -> Labels:
        """The classes that the source lists, in the order of the masks' values.

        Raises:
            ValueError: for fewer than two classes, or more than a mask of 8 bits can tell apart.
        """
        names = tuple(dict.fromkeys(name for listed in _listed(train) for name in listed))
        if not 2 <= len(names) <= masks.IGNORE:
            raise ValueError(
                f"The training masks: expected from 2 to {masks.IGNORE} classes. Received: {len(names)}: "
                f"{', '.join(names[:20]) or 'none'}. Add masks of another class, or merge classes."
            )
        return Labels(names)

    def examples(
        self, records: Sequence[Record], labels: Labels, backbone: Backbone, recipe: Recipe, training: bool
    ) -> Examples:
        """Inputs `pixels` float32 [S, S, 3] in 0..255; targets `mask` uint8 [S, S], 255 where nothing counts."""
        size, how = backbone.image_size, recipe.data.resize
        augmentation = Augmentation.parse(recipe.data.augment) if training else Augmentation()
        if training:
            records = [record for record in records for _ in range(_option(recipe, "views", 1))]
        paths = tf.constant([record.fields["image"] for record in records])
        mask_paths = tf.constant([record.fields["mask"] for record in records])
        tables = {names: _table(names, labels, where) for names, where in _listed(records).items()}
        order = list(tables)
        table_of = tf.constant([order.index(tuple(record.fields["classes"])) for record in records], tf.int32)
        lookup = tf.constant(np.stack(list(tables.values())))

        # Plain TensorFlow, no Python control flow over tensors: converting it in each pipeline takes seconds.
        @tf.autograph.experimental.do_not_convert
        def load(index: tf.Tensor) -> tuple[Tensors, Tensors]:
            pixels = images.load(tf.io.read_file(paths[index]), size, how)
            stored = masks.fit(masks.decode(tf.io.read_file(mask_paths[index])), size, how)
            return {"pixels": pixels}, {"mask": tf.gather(lookup[table_of[index]], tf.cast(stored, tf.int32))}

        @tf.autograph.experimental.do_not_convert
        def augment(inputs: Tensors, targets: Tensors, seed: tf.Tensor) -> tuple[Tensors, Tensors]:
            pixels, mask = masks.augment(augmentation, inputs["pixels"], targets["mask"], seed)
            return {"pixels": pixels}, {"mask": mask}

        identity = f"{fingerprint(records)}|{size}|{how}"
        return Examples(
            ids=[record.id for record in records],
            load=load,
            meta=[_meta(record, tables, how) for record in records],
            key=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
            augment=augment if augmentation != Augmentation() else None,
        )

    def build_head(self, feature_spec: Any, labels: Labels, recipe: Recipe) -> keras.Model:
        """Maps by stride to `logits` [N, S, S, C]."""
        width = _option(recipe, "width", mask_decoder.WIDTH, mask_decoder.GROUPS)
        dropout = max(recipe.head.dropout, recipe.fine_tune.dropout)
        size = recipe.backbone.image_size
        return mask_decoder.build(feature_spec, len(labels), size, width, dropout, recipe.seed)

    def loss(
        self, labels: Labels, recipe: Recipe, class_weights: np.ndarray | None
    ) -> Callable[[Tensors, Any], tf.Tensor]:
        """Cross-entropy and Dice of each example."""
        return lambda targets, outputs: mask_decoder.loss(targets["mask"], outputs, class_weights)

    def class_weights(self, examples: Examples, labels: Labels, recipe: Recipe) -> np.ndarray | None:
        """float32 [C] by the training pixels of each class, or None; see `mask_decoder.class_weights`."""
        if recipe.class_weights == "none" or not len(examples):
            return None
        counts = np.zeros(len(labels))
        for about in examples.meta[:: max(1, len(examples) // COUNTED)]:
            counts += _pixels(about, len(labels))
        return mask_decoder.class_weights(counts, always=recipe.class_weights == "balanced")

    def exact_problem(self, labels: Labels, recipe: Recipe) -> Literal["softmax", "logistic"] | None:
        """None: the decoder is no regression."""
        return None

    def decode(self, outputs: Any, meta: Sequence[Mapping[str, Any]], labels: Labels) -> list[dict[str, Any]]:
        """Logits [B, S, S, C] to `mask_png` at the size of each image, `class_share` and `mean_probability` [C]."""
        if not meta:
            return []
        sides = np.array([(about["height"], about["width"]) for about in meta], np.int32)
        size, classes = outputs.shape[-2:]
        answer = _answering(meta[0]["resize"], size, classes)(tf.constant(outputs, tf.float32), tf.constant(sides))
        return self.from_outputs({name: value.numpy() for name, value in answer.items()}, labels)

    def merge(self, parts: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, Any]:
        """An image is one example."""
        return dict(parts[0])

    def references(self, records: Sequence[Record], labels: Labels) -> list[dict[str, Any]]:
        """The file of each mask, and the class of each of its values."""
        tables = {names: _table(names, labels, where) for names, where in _listed(records).items()}
        return [{"mask": record.fields["mask"], "table": tables[tuple(record.fields["classes"])]} for record in records]

    def score(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, Any]:
        """Overlap and boundaries at the size of the images; see `metrics.masks`."""
        return metrics.scores(metrics.count(_pairs(predictions, references), len(labels)), labels.names)

    def intervals(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over images."""
        return metrics.intervals(metrics.count(_pairs(predictions, references), len(labels), boundaries=False))

    def calibrate(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> Labels:
        """Nothing to choose: the likeliest class is given."""
        return labels

    def serving(
        self, numeric: Callable[[Any], Any], labels: Labels, recipe: Recipe, backbone: Backbone | None = None
    ) -> Serving:
        """`serving_default`: `image_bytes` string [N]; `pixels`: uint8 [N, H, W, 3]; N may be 0.

        Both answer `mask_png` string [N]: PNG, grey, class indices in the order of `labels.txt`, at the size of the
        upright image sent; `class_share` float [N, C]: the share of its pixels given each class; `mean_probability`
        float [N, C]: the probability of each class, on average over the image.
        """
        size, how = recipe.backbone.image_size, recipe.data.resize
        square = tf.TensorSpec([size, size, 3], tf.float32), tf.TensorSpec([2], tf.int32)

        def answers(squares: tf.Tensor, sides: tf.Tensor) -> Tensors:
            logits = tf.cast(numeric(squares), tf.float32)
            logits = tf.ensure_shape(logits, [None, size, size, len(labels)])
            return masks.answers(logits, sides, how)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
        def from_bytes(image_bytes: tf.Tensor) -> Tensors:
            squares, sides = tf.map_fn(
                lambda data: images.load_with_size(data, size, how), image_bytes, fn_output_signature=square
            )
            return answers(squares, sides)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")], autograph=False)
        def from_pixels(pixels: tf.Tensor) -> Tensors:
            count = tf.shape(pixels)[0]
            return answers(
                images.resize_batch(pixels, size, how), tf.tile(tf.shape(pixels)[1:3][tf.newaxis], [count, 1])
            )

        grey = np.full((size, size, 3), 127, np.uint8)
        warmup = {
            "serving_default": {"image_bytes": np.array([tf.io.encode_jpeg(grey).numpy()], object)},
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
        """`mean_probability` [N, C]: a pixel between two classes may fall to either, by a rounding."""
        return {"mean_probability": np.stack([prediction["mean_probability"] for prediction in predictions])}

    def from_outputs(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """As `decode`."""
        names = ("mask_png", "class_share", "mean_probability")
        return [{name: outputs[name][number] for name in names} for number in range(len(outputs["mask_png"]))]

    def answers(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """`mask` (the PNG in base64), `height`, `width` in pixels and `class_share` by class name, one an image."""
        rows = []
        for png, share in zip(outputs["mask_png"], outputs["class_share"], strict=True):
            with Image.open(io.BytesIO(png)) as mask:
                width, height = mask.size
            shares = {name: float(value) for name, value in zip(labels.names, share, strict=True)}
            text = base64.b64encode(png).decode()
            rows.append({"mask": text, "height": height, "width": width, "class_share": shares})
        return rows

    def draw(self, record: Record, answer: Mapping[str, Any], path: Path) -> None:
        """Writes the picture with its classes in colours and a legend, as PNG."""
        pixels = images.decode(tf.constant(Path(record.fields["image"]).read_bytes())).numpy()
        with Image.open(io.BytesIO(base64.b64decode(answer["mask"]))) as mask:
            mask_drawing.draw(pixels, np.asarray(mask), answer["class_share"]).save(path)


def _option(recipe: Recipe, name: str, default: int, multiple: int = 1) -> int:
    """A whole number among the options; a command line gives it as text."""
    value = recipe.options.get(name, default)
    if not str(value).isdecimal() or int(value) < 1 or int(value) % multiple:
        kind = f"a multiple of {multiple}" if multiple > 1 else "a whole number"
        raise ValueError(f"options.{name}: expected {kind} of at least {multiple}. Received: {value!r}.")
    return int(value)


def _epochs(examples: int, steps: int, least_steps: int, table: Sequence[tuple[int, int]], least: int) -> int:
    """Epochs of so many steps for so many examples."""
    by_examples = next((epochs for most, epochs in table if examples < most), least)
    return max(by_examples, math.ceil(least_steps / steps))


def _listed(records: Sequence[Record]) -> dict[tuple[str, ...], str]:
    """The lists of class names that the records bring, each with the first file that has it."""
    found: dict[tuple[str, ...], str] = {}
    for record in records:
        found.setdefault(tuple(record.fields["classes"]), record.where)
    return found


def _table(names: Sequence[str], labels: Labels, where: str) -> np.ndarray:
    """uint8 [256]: the model's class of each value in a mask whose classes are these; others are ignored."""
    table = np.full(masks.IGNORE + 1, masks.IGNORE, np.uint8)
    for value, name in enumerate(names):
        try:
            table[value] = labels.index(name)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return table


def _meta(record: Record, tables: Mapping[tuple[str, ...], np.ndarray], how: str) -> dict[str, Any]:
    """What decoding needs, the size of the upright image (which is the mask's), and what counting classes needs."""
    with Image.open(record.fields["mask"]) as mask:
        width, height = mask.size
    table = tables[tuple(record.fields["classes"])]
    return {"height": height, "width": width, "resize": how, "mask": record.fields["mask"], "table": table}


def _pixels(about: Mapping[str, Any], classes: int) -> np.ndarray:
    """int64 [C]: how many pixels of a mask are of each of the model's classes."""
    return np.bincount(_read(about["mask"], about["table"]).ravel(), minlength=masks.IGNORE + 1)[:classes]


def _read(path: str, table: np.ndarray) -> np.ndarray:
    """uint8 [H, W]: a reference mask in the model's classes."""
    with Image.open(path) as mask:
        return table[np.asarray(mask)]


def _pairs(
    predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each predicted mask with its reference, one at a time."""
    for prediction, reference in zip(predictions, references, strict=True):
        with Image.open(io.BytesIO(prediction["mask_png"])) as predicted:
            yield np.asarray(predicted), _read(reference["mask"], reference["table"])


@functools.cache
def _answering(how: images.How, size: int, classes: int) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """`masks.answers` for logits of that shape, traced once."""
    signature = [tf.TensorSpec([None, size, size, classes], tf.float32), tf.TensorSpec([None, 2], tf.int32)]
    return tf.function(
        lambda logits, sides: masks.answers(logits, sides, how), input_signature=signature, autograph=False
    )
