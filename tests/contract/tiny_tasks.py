"""Tiny made data and tiny backbones, by task: what `test_tasks.py` trains each task on.

A new task is one entry of `TINY`: its records, the recipe's fields that it needs, and its backbones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from conftest import draw_photo
from tiny_scenes import CLASSES, Scene, draw_scene

from keras_transfer import backbones
from keras_transfer.backbones import Backbone
from keras_transfer.data import files
from keras_transfer.data.records import Record
from keras_transfer.data.squad import AnswerFaults, question_record
from keras_transfer.recipe import BackboneSpec
from keras_transfer.vision import families

SIZE = 32
DEEP_SIZE = 64  # of the registry: at 32 pixels the last maps are one cell, whose statistics say nothing

SCENE = 64

MakeBackbone = Callable[[Path], Backbone]
MakeRecords = Callable[[Path, str, int], tuple[Record, ...]]


@dataclass(frozen=True)
class Tiny:
    """What one task is tried on."""

    records: MakeRecords
    """(folder, split, count) -> records that a small network can learn; other splits have other records."""
    backbones: Mapping[str, MakeBackbone]
    """The fast ones, each of another kind; the first is published as well."""
    slow: Mapping[str, MakeBackbone] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Overrides that the task needs for so little data."""
    by_heart: float = 1.0
    """The primary score from which eight examples count as learned."""
    rates: tuple[float, float] = (0.05, 5e-3)
    """Learning rates by which a small network learns them, in the head phase and in fine-tuning."""


def photos(folder: Path, split: str, count: int) -> tuple[Record, ...]:
    """Photos of two kinds in turn."""
    records = []
    (folder / split).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / split / f"{index}.png"
        draw_photo(index % 2, 2, SIZE, [index, *split.encode()]).save(path)
        label = ("blue", "red")[index % 2]
        fields = {"image": str(path), "label": label}
        records.append(Record(f"{split}/{index}", fields, str(path), files.hash_text(split, str(index))))
    return tuple(records)


def reviews(folder: Path, split: str, count: int) -> tuple[Record, ...]:
    """Short reviews of two kinds in turn, of different lengths."""
    words = (("dull", "boring"), ("great", "clever"))
    records = []
    for index in range(count):
        kind = index % 2
        text = " ".join(["a", "film", words[kind][index // 2 % 2], *["film"] * (index * 3), split])
        fields = {"text": text, "label": ("bad", "good")[kind]}
        records.append(Record(f"{split}/{index}", fields, f"{split}.csv:{index + 2}", files.hash_text(text)))
    return tuple(records)


def questions(folder: Path, split: str, count: int) -> tuple[Record, ...]:
    """Questions whose answer stands in their context."""
    places = ("lisbon", "oslo", "quito", "riga")
    records = []
    for index in range(count):
        place = places[index % len(places)]
        context = f"{'the film ' * (index % 3)}was great in {place} for {split} {index}"
        answers = [{"text": place, "answer_start": context.index(place)}]
        record = question_record(f"{split}/{index}", split, "where was the film ?", context, answers, AnswerFaults())
        assert record is not None
        records.append(record)
    return tuple(records)


def _scenes(folder: Path, split: str, count: int) -> Iterator[tuple[str, Scene, Path]]:
    """(id, scene, file of the picture) of made scenes."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene = draw_scene(SCENE + index % 3, SCENE, [index, *split.encode()])
        path = folder / split / f"scene{index}.png"
        scene.image.save(path)
        yield f"{split}/{index}", scene, path


def boxes(folder: Path, split: str, count: int) -> tuple[Record, ...]:
    """Scenes with a box around every object."""
    return tuple(
        Record(
            id,
            {"image": str(path), "boxes": scene.boxes, "labels": scene.labels},
            str(path),
            files.hash_text(id),
        )
        for id, scene, path in _scenes(folder, split, count)
    )


def masks(folder: Path, split: str, count: int) -> tuple[Record, ...]:
    """Scenes with the class of every pixel."""
    records = []
    for id, scene, path in _scenes(folder, split, count):
        mask = path.with_suffix(".mask.png")
        scene.mask.save(mask)
        fields = {"image": str(path), "mask": str(mask), "classes": ("background", *CLASSES)}
        records.append(Record(id, fields, str(path), files.hash_text(id)))
    return tuple(records)


WORDS = """a the film dull boring great clever where was in for ? , . train validation lisbon oslo quito riga
0 1 2 3 4 5 6 7 8 9"""


def tiny_bert(folder: Path) -> Backbone:
    """A BERT of two layers of 16, from a preset folder, as a user's own would be."""
    import keras_hub

    preset = folder / "tiny_bert"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    network = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=64,
    )
    network.save_to_preset(str(preset))
    keras_hub.tokenizers.BertTokenizer(vocabulary=vocabulary, lowercase=True).save_to_preset(str(preset))
    return backbones.load(BackboneSpec(name=str(preset)))


def registered(name: str, size: int = SIZE) -> MakeBackbone:
    """A network of the registry with random weights, at that size or the smallest that it takes."""
    size = max(size, families.ARCHITECTURES[name].family.smallest)

    def make(folder: Path) -> Backbone:
        backbone = backbones.load(BackboneSpec(name=name, weights="none", image_size=size))
        _settle_statistics(backbone, size)
        return backbone

    return make


def _settle_statistics(backbone: Backbone, size: int) -> None:
    """Gives BatchNormalization the statistics of photos of many kinds, without dropout.

    With none, or those of a few alike, a deep random network answers all photos alike or in the thousands, and its
    training is so chaotic that no two ways of computing it agree.
    """
    layers = backbone.model._flatten_layers()
    norms = [(layer, "momentum") for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    drops = [(layer, "rate") for layer in backbone.model._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
    if not norms:
        return
    photos = np.stack([np.asarray(draw_photo(index % 8, 8, size, index), np.float32) for index in range(64)])
    before = [getattr(layer, name) for layer, name in (*norms, *drops)]
    for layer, name in (*norms, *drops):
        setattr(layer, name, 0.0)
    backbone.model(backbone.preprocess(photos), training=True)
    for (layer, name), value in zip((*norms, *drops), before, strict=True):
        setattr(layer, name, value)


def depthwise(folder: Path) -> Backbone:
    """A caller's own network of inverted residuals, as MobileNetV2's."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization(name="stem_bn")(layers.Conv2D(12, 3, 2, "same", name="stem_conv")(inputs))
    for number in (1, 2):
        y = layers.Conv2D(24, 1, name=f"unit{number}_expand")(x)
        y = layers.ReLU(6.0, name=f"unit{number}_relu")(layers.BatchNormalization(name=f"unit{number}_bn1")(y))
        y = layers.DepthwiseConv2D(3, padding="same", name=f"unit{number}_depthwise")(y)
        y = layers.Conv2D(12, 1, name=f"unit{number}_project")(y)
        y = layers.BatchNormalization(name=f"unit{number}_bn2")(y)
        x = layers.Add(name=f"unit{number}_add")([x, y])
    return backbones.wrap(keras.Model(inputs, x, name="depthwise"), preprocess="tf")


def residual(folder: Path) -> Backbone:
    """A caller's own residual network with BatchNormalization."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(16, 3, 2, "same", name="stem_conv")(inputs)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    for number in (1, 2):
        y = layers.Conv2D(16, 3, padding="same", name=f"unit{number}_conv")(x)
        y = layers.BatchNormalization(name=f"unit{number}_bn")(y)
        y = layers.Dropout(0.3, name=f"unit{number}_dropout")(y)
        x = layers.ReLU(name=f"unit{number}_out")(layers.Add(name=f"unit{number}_add")([x, y]))
    return backbones.wrap(keras.Model(inputs, x, name="residual"), preprocess="tf")


def pyramidal(folder: Path) -> Backbone:
    """A caller's own network with maps of strides 2 to 32, with BatchNormalization."""
    layers = keras.layers
    x = inputs = keras.Input((SCENE, SCENE, 3))
    for number in range(1, 6):
        x = layers.Conv2D(16, 3, 2, "same", name=f"stage{number}_conv")(x)
        x = layers.ReLU(name=f"stage{number}_out")(layers.BatchNormalization(name=f"stage{number}_bn")(x))
    return backbones.wrap(keras.Model(inputs, x, name="pyramidal"), preprocess="tf")


def layer_normed(folder: Path) -> Backbone:
    """A caller's own network of depthwise convolutions with LayerNormalization, as ConvNeXt's."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.LayerNormalization(name="stem_norm")(layers.Conv2D(16, 4, 4, name="stem_conv")(inputs))
    for number in (1, 2):
        y = layers.DepthwiseConv2D(5, padding="same", name=f"unit{number}_depthwise")(x)
        y = layers.LayerNormalization(name=f"unit{number}_norm")(y)
        y = layers.Dense(32, activation="gelu", name=f"unit{number}_wide")(y)
        x = layers.Add(name=f"unit{number}_add")([x, layers.Dense(16, name=f"unit{number}_narrow")(y)])
    return backbones.wrap(keras.Model(inputs, x, name="layer_normed"), preprocess="tf")


SMALLEST = (
    *("vgg16", "resnet50", "resnet50_v2", "inception_v3", "inception_resnet_v2", "xception", "mobilenet"),
    *("mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0", "efficientnet_b0", "efficientnet_v2_b0"),
    *("densenet121", "convnext_tiny", "nasnet_mobile"),
)
"""One of each family of the registry, the smallest."""

TINY: dict[str, Tiny] = {
    "image_classification": Tiny(
        photos,
        {"residual": residual},
        {
            "depthwise": depthwise,
            "layer_normed": layer_normed,
            **{name: registered(name, DEEP_SIZE) for name in SMALLEST},
        },
        {"data.augment": "none"},
    ),
    "object_detection": Tiny(
        boxes,
        {"pyramidal": pyramidal},
        {"vgg16": registered("vgg16", SCENE)},
        {"data.augment": "none"},
        by_heart=0.8,
        rates=(0.01, 3e-3),
    ),
    "semantic_segmentation": Tiny(
        masks,
        {"pyramidal": pyramidal},
        {"vgg16": registered("vgg16", SCENE)},
        {"data.augment": "none", "options": {"width": 16}},
        by_heart=0.8,
    ),
    "text_classification": Tiny(reviews, {"tiny_bert": tiny_bert}),
    "question_answering": Tiny(questions, {"tiny_bert": tiny_bert}),
}
"""By the name of the task."""
