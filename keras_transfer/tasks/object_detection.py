"""Object detection: a box with a class around every object in an image."""

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
from keras_transfer.data.box_inputs import BoxTable, Tiles, WholePhotos
from keras_transfer.data.image_inputs import image_inputs
from keras_transfer.data.records import Record, classes_of, fingerprint
from keras_transfer.labels import Labels, sort_names
from keras_transfer.metrics import boxes as metrics
from keras_transfer.recipe import Recipe
from keras_transfer.tasks.base import Examples, FeatureKind, Modality, Serving, Tensors
from keras_transfer.vision import box_decoding, box_plan, box_signatures, detector, drawing, upright
from keras_transfer.vision.augmentation import Augmentation

IMAGE_SIZE = 320
HEAD_RATE = FINE_TUNE_RATE = 1e-3
"""On the sample `trees_boxes`, after four epochs, this scored 0.448 on validation against 0.36 with 3e-4."""
BARE_RATE = 1e-4
"""For backbones without normalization, such as VGG16, whose weights a high rate ruins."""
THRESHOLD = 0.3
"""From which a box counts, until validation has chosen."""


@dataclass(frozen=True)
class ObjectDetection:
    """A box with a class around every object in an image.

    Options, each decided from the training images where it is absent: `tile_scale` (0: every image is fitted to the
    input whole; above: images are looked at in tiles, a pixel of the image taking so many pixels of a tile),
    `tile_overlap` (what neighbouring tiles share, in pixels of a tile), `stride` (4 or 8, of the map that answers),
    `typical_side` (of an object in the input, in pixels, where learning starts), `typical_objects` (of an input, by
    which the loss is divided), `scale_jitter` (the largest random change of scale in training, as a share).
    """

    name: str = "object_detection"
    title: str = "a box with a class around every object in an image (options: tile_scale, tile_overlap, stride)"
    modality: Modality = "image"
    features: FeatureKind = "pyramid"
    primary_metric: str = "ap50"
    default_backbone: str = "efficientnet_lite0"

    def resolve(self, recipe: Recipe, examples: int) -> Recipe:
        """Decides every open field but rates and epochs, which hang on the images and are left to `fit_inputs`.

        Raises:
            ValueError: for what boxes cannot follow: a crop to the square, mixing and erasing.
        """
        if recipe.data.resize == "crop":
            raise ValueError(
                "data.resize: expected pad or stretch for boxes, since crop cuts objects. Received: 'crop'."
            )
        augment = "flip,color:0.2" if recipe.data.augment == "auto" else recipe.data.augment
        augmentation = Augmentation.parse(augment)
        refused = [name for name in ("mixup", "cutmix", "erase") if getattr(augmentation, name)]
        if refused:
            raise ValueError(
                f"data.augment: {', '.join(refused)} would hide objects whose boxes stay. Expected flip, "
                f"flip_vertical, crop, rotate, translate, color or randaugment. Received: {augment!r}."
            )
        tune, backbone = recipe.fine_tune, recipe.backbone
        own_size = backbone.name.startswith("run:")
        return replace(
            recipe,
            data=replace(
                recipe.data, augment=augment, resize="pad" if recipe.data.resize == "auto" else recipe.data.resize
            ),
            backbone=replace(backbone, image_size=backbone.image_size or (0 if own_size else IMAGE_SIZE)),
            fine_tune=replace(tune, trainable="all" if tune.trainable == "auto" else tune.trainable),
        )

    def fit_inputs(self, recipe: Recipe, backbone: Backbone, train: Sequence[Record]) -> tuple[Recipe, list[str]]:
        """Decides from the training images whether they are looked at whole or in tiles, how finely, and how long."""
        sizes = [_size(record) for record in train]
        boxes = [np.array(record.fields["boxes"], np.float32).reshape(-1, 4) for record in train]
        plan = box_plan.plan(sizes, boxes, backbone.image_size, recipe.options)
        head, tune = recipe.head, recipe.fine_tune
        epochs = box_plan.epochs(plan.examples(sizes, backbone.image_size))
        normed = any("Normalization" in type(layer).__name__ for layer in backbone.model._flatten_layers())
        recipe = replace(
            recipe,
            backbone=replace(recipe.backbone, image_size=backbone.image_size),
            options={**recipe.options, **plan.options()},
            head=replace(
                head,
                epochs=epochs[0] if head.epochs is None else head.epochs,
                learning_rate=head.learning_rate or HEAD_RATE,
            ),
            fine_tune=replace(
                tune,
                epochs=epochs[1] if tune.epochs is None else tune.epochs,
                learning_rate=tune.learning_rate or (FINE_TUNE_RATE if normed else BARE_RATE),
            ),
        )
        return recipe, [plan.describe(backbone.image_size)]

    def learn_labels(self, train: Sequence[Record], recipe: Recipe) -> Labels:
        """The classes that the source lists, or else those of the training boxes.

        Raises:
            ValueError: no training image has a box.
        """
        listed = next((record.fields["classes"] for record in train if record.fields.get("classes")), ())
        seen = {name for record in train for name in classes_of(record)}
        if not seen:
            raise ValueError(
                f"{recipe.data.source}: expected boxes in the training images. Received: {len(train)} images without "
                "any. Check that annotations and images go together."
            )
        extra = sort_names(seen - set(listed))
        return Labels((*listed, *extra))

    def examples(
        self, records: Sequence[Record], labels: Labels, backbone: Backbone, recipe: Recipe, training: bool
    ) -> Examples:
        """Inputs `pixels` float32 [S, S, 3], 0..255; targets `boxes` float32 [M, 4], `classes` int32 [M]."""
        side, how, plan = backbone.image_size, recipe.data.resize, box_plan.from_options(recipe.options)
        sizes = [_size(record) for record in records]
        table = BoxTable.of(records, labels.names)
        augmentation = Augmentation.parse(recipe.data.augment if training else "none")
        augmented = training and recipe.data.augment != "none"
        jitter = plan.scale_jitter if augmented else 0.0
        tiling = plan.tiling(side)
        if tiling is None:
            source: Any = WholePhotos(records, table, side, how, augmentation, jitter)
            photo = np.arange(len(records))
            views = box_decoding.whole_views(sizes, side, how)
        else:
            source = Tiles(records, sizes, table, tiling, augmentation, jitter)
            photo, views = source.photo, source.views
        identity = f"{fingerprint(records)}|{side}|{how}|{tiling}|{source.most}"
        return Examples(
            ids=[records[number].id for number in photo],
            load=source.load,
            meta=[
                {"view": view, "size": sizes[number], "side": side} for number, view in zip(photo, views, strict=True)
            ],
            key=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
            augment=source.augment if augmented else None,
            decoded=tiling is not None,
        )

    def build_head(self, feature_spec: Any, labels: Labels, recipe: Recipe) -> keras.Model:
        """Maps by stride to `heat` [N, H, W, C] and `sides` [N, H, W, 4]; see `vision.detector`."""
        plan = box_plan.from_options(recipe.options)
        return detector.build_head(feature_spec, len(labels), plan.stride, plan.typical_side)

    def loss(
        self, labels: Labels, recipe: Recipe, class_weights: np.ndarray | None
    ) -> Callable[[Tensors, Any], tf.Tensor]:
        """The focal loss of the heat and the GIoU loss of the sides."""
        side, objects = recipe.backbone.image_size, box_plan.from_options(recipe.options).typical_objects
        return lambda targets, outputs: detector.loss(targets, outputs, side, objects)

    def class_weights(self, examples: Examples, labels: Labels, recipe: Recipe) -> np.ndarray | None:
        """None: the focal loss already turns to what is rare."""
        return None

    def exact_problem(self, labels: Labels, recipe: Recipe) -> Literal["softmax", "logistic"] | None:
        """None: boxes are no regression on pooled features."""
        return None

    def decode(self, outputs: Any, meta: Sequence[Mapping[str, Any]], labels: Labels) -> list[dict[str, Any]]:
        """The maps of some views to their candidates: `boxes` [n, 4] in pixels of the image, `scores`, `classes`."""
        if not meta:
            return []
        views = np.stack([about["view"] for about in meta])
        sizes = np.array([about["size"] for about in meta], np.int32)
        return box_decoding.candidates_of(outputs, meta[0]["side"], views, sizes)

    def merge(self, parts: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, Any]:
        """The boxes of all views of an image, without doubles, best first."""
        return box_decoding.merged(parts)

    def references(self, records: Sequence[Record], labels: Labels) -> list[dict[str, Any]]:
        """`boxes` [m, 4], `classes` [m] and `crowd` [m] of each image; a crowd of a class that is not known is none."""
        found = []
        for record in records:
            names = record.fields["labels"]
            crowd = record.fields.get("crowd") or (False,) * len(names)
            kept = [number for number, name in enumerate(names) if not crowd[number] or name in labels.names]
            boxes = np.array(record.fields["boxes"], np.float64).reshape(-1, 4)
            found.append(
                {
                    "boxes": boxes[kept],
                    "classes": np.array([labels.index(names[number]) for number in kept], np.int64),
                    "crowd": np.array(crowd, bool)[kept],
                }
            )
        return found

    def score(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, Any]:
        """COCO's average precisions, and precision, recall and F1 at the threshold; see `metrics.boxes`."""
        return metrics.score(predictions, references, labels.names, _threshold(labels))

    def intervals(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over images; none for a few images."""
        return metrics.intervals(predictions, references, labels.names, _threshold(labels))

    def calibrate(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]], labels: Labels
    ) -> Labels:
        """One threshold for all classes: that of the best F1 on validation."""
        chosen = metrics.choose_threshold(predictions, references, len(labels)) if predictions else None
        return labels if chosen is None else labels.with_thresholds([chosen])

    def serving(
        self, numeric: Callable[[Any], Any], labels: Labels, recipe: Recipe, backbone: Backbone | None = None
    ) -> Serving:
        """`serving_default`: `image_bytes` string [N]; `pixels`: uint8 [N, H, W, 3]; images of any size, N may be 0.

        `boxes` float32 [N, 500, 4] x_min, y_min, x_max, y_max in pixels of the upright image, `labels` string [N, 500],
        `scores` float32 [N, 500], best first; `count` int32 [N] says how many there are, the rest is 0 and "".
        `best_score` float32 [N] is the highest score anywhere, however low.
        """
        side, how = recipe.backbone.image_size, recipe.data.resize
        tiling = box_plan.from_options(recipe.options).tiling(side)
        signatures = box_signatures.signatures(numeric, labels.names, side, how, tiling)
        return Serving(signatures, warmup=box_signatures.requests(side))

    def read_inputs(self, words: Sequence[str]) -> list[tuple[str, Record | str]]:
        """Image files, folders of them, and `-` for paths on standard input."""
        return image_inputs(words)

    def request(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """`image_bytes`: the files as they are."""
        return {"image_bytes": np.array([Path(record.fields["image"]).read_bytes() for record in records], object)}

    def expected(self, predictions: Sequence[Mapping[str, Any]], labels: Labels) -> dict[str, np.ndarray]:
        """`best_score` [N], and the first `scores` [N, k] of each image that no rounding can change."""
        found = {"best_score": np.array([prediction["best_score"] for prediction in predictions], np.float32)}
        count = min((prediction["firm"] for prediction in predictions), default=0)
        if count:
            found["scores"] = np.stack([prediction["scores"][:count] for prediction in predictions])
        return found

    def from_outputs(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """`boxes`, `scores`, `classes` of each image."""
        places = {name.encode(): number for number, name in enumerate(labels.names)}
        return [
            {
                "boxes": outputs["boxes"][row, :count],
                "scores": outputs["scores"][row, :count],
                "classes": np.array([places[name] for name in outputs["labels"][row, :count]], np.int64),
            }
            for row, count in enumerate(outputs["count"])
        ]

    def answers(self, outputs: Mapping[str, np.ndarray], labels: Labels) -> list[dict[str, Any]]:
        """`boxes`, `labels`, `scores` of each image: those from the threshold on, best first."""
        rows = []
        for row, count in enumerate(outputs["count"]):
            shown = int((outputs["scores"][row, :count] >= _threshold(labels)).sum())
            rows.append(
                {
                    "boxes": [[round(float(edge), 2) for edge in box] for box in outputs["boxes"][row, :shown]],
                    "labels": [name.decode() for name in outputs["labels"][row, :shown]],
                    "scores": [float(score) for score in outputs["scores"][row, :shown]],
                }
            )
        return rows

    def draw(self, record: Record, answer: Mapping[str, Any], path: Path) -> None:
        """Writes the picture with the boxes of an answer on it, as PNG."""
        found = (answer[name] for name in ("boxes", "labels", "scores"))
        drawing.draw_boxes(Path(record.fields["image"]), *found, path)


def _size(record: Record) -> tuple[int, int]:
    """Height and width of the upright image."""
    found = upright.size(record.fields["image"])
    if found is None:
        raise ValueError(
            f"{record.where}: expected an image that can be read. Received: {record.fields['image']}, damaged or gone "
            "since the data were checked."
        )
    return found[1], found[0]


def _threshold(labels: Labels) -> float:
    return labels.thresholds[0] if labels.thresholds else THRESHOLD
