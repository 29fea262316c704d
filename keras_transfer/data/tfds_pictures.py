"""Images of TensorFlow Datasets with a label, boxes or a mask: encoded images are written once into the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.data import boxes, files, mask_files, masks, tfds_sets
from keras_transfer.data.boxes import Box, BoxedImage
from keras_transfer.data.findings import Raw
from keras_transfer.data.picture_faults import PictureFaults
from keras_transfer.data.records import Record
from keras_transfer.recipe import DataSpec
from keras_transfer.samples.cache import build_once, cache_folder
from keras_transfer.vision import formats

_INDEX = "records.jsonl"

MASK_CLASSES = {"oxford_iiit_pet": ("pet", "background", "border")}
"""The meaning of the values 1, 2, … of masks whose features do not tell it, by the name of the data set.

Of the pets, the border is what the annotators left unclassified (https://www.robots.ox.ac.uk/~vgg/data/pets/, trimaps).
"""

Rest = Callable[[Path, str, Mapping[str, Any]], dict[str, Any]]
"""(folder, id, example) -> what else the index holds of an example."""


def labelled(builder: Any, name: str, spec: DataSpec) -> Raw:
    """Images with a class."""
    features = builder.info.features
    label = tfds_sets.label_feature(features, spec)
    tfds_sets.require(name, features, {"image": "image" in features, "label": label}, "image_classification")

    def rest(folder: Path, id: str, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"label": tfds_sets.decode_label(features[label], row[label])}

    raw, folder = _written(builder, name, label, rest)
    for split, row in _index(folder):
        path = folder / row["file"]
        fields = {"image": str(path), "label": row["label"]}
        content = bytes.fromhex(row["content"])
        raw[split].append(Record(row["id"], fields, f"tfds:{name} {row['id']} ({path})", content))
    return raw


def boxed(builder: Any, name: str, spec: DataSpec) -> Raw:
    """Images with `objects`: a box each and, where there are several classes, a label."""
    features = builder.info.features
    inside = _objects(features)
    wanted = {"image": "image" in features, "objects with bbox": "bbox" in inside}
    tfds_sets.require(name, features, wanted, "object_detection")
    label = inside.get("label")
    classes = tuple(label.names) if label is not None and getattr(label, "names", None) else None

    def rest(folder: Path, id: str, row: Mapping[str, Any]) -> dict[str, Any]:
        objects = row["objects"]
        count = len(objects["bbox"])
        crowd = objects.get("is_crowd", objects.get("is_difficult", np.zeros(count, bool)))
        named = [tfds_sets.decode_label(label, value) for value in objects["label"]] if label is not None else []
        return {
            "bbox": [[float(value) for value in corners] for corners in objects["bbox"]],
            "labels": named or ["object"] * count,
            "crowd": [bool(value) for value in crowd],
        }

    raw, folder = _written(builder, name, "boxes", rest)
    images: dict[str, list[BoxedImage]] = {split: [] for split in raw}
    for split, row in _index(folder):
        where = f"tfds:{name} {row['id']}"
        entries = enumerate(zip(row["bbox"], row["labels"], row["crowd"], strict=True))
        of = [_box(f"{where} objects[{number}]", *entry) for number, entry in entries]
        content = bytes.fromhex(row["content"])
        images[split].append(BoxedImage(row["id"], folder / row["file"], of, where, relative=True, content=content))
    faults = PictureFaults()
    for split, of_split in images.items():
        raw[split] = boxes.records(of_split, classes, faults)
    raw.findings += faults.findings("warn")  # a published set cannot be edited
    return raw


def _objects(features: Any) -> dict[str, Any]:
    """The features of an object by name; none where there are no objects."""
    one = getattr(features["objects"], "feature", None) if "objects" in features else None
    return dict(one.items()) if one is not None and hasattr(one, "items") else {}


def _box(where: str, bbox: list[float], label: str, crowd: bool) -> Box:
    y_min, x_min, y_max, x_max = bbox
    return Box((x_min, y_min, x_max, y_max), label, where, f"ymin, xmin, ymax, xmax {bbox}", crowd)


def masked(builder: Any, name: str, spec: DataSpec) -> Raw:
    """Images with `segmentation_mask`."""
    features = builder.info.features
    wanted = {feature: feature in features for feature in ("image", "segmentation_mask")}
    tfds_sets.require(name, features, wanted, "semantic_segmentation")
    known = MASK_CLASSES.get(builder.name, ())
    listed = known or tuple(getattr(features["segmentation_mask"], "names", None) or ())

    def rest(folder: Path, id: str, row: Mapping[str, Any]) -> dict[str, Any]:
        mask = row["segmentation_mask"].reshape(row["segmentation_mask"].shape[:2])
        if known:
            # From 1 on; what is 0 becomes 255, which does not count.
            mask = mask - np.uint8(1)
        path = f"masks/{id.replace('/', '-')}.png"
        (folder / "masks").mkdir(exist_ok=True)
        mask_files.write(folder / path, mask.astype(np.uint8))
        return {"mask": path}

    raw, folder = _written(builder, name, "masks", rest)
    pairs: dict[str, list[masks.Pair]] = {split: [] for split in raw}
    for split, row in _index(folder):
        paths = folder / row["file"], folder / row["mask"]
        pairs[split].append(masks.Pair(row["id"], *paths, f"tfds:{name} {row['id']}"))
    return masks.load_pairs(raw, pairs, mask_files.Listing(listed), spec, "warn")


def _written(builder: Any, name: str, what: str, rest: Rest) -> tuple[Raw, Path]:
    """An empty list a split, and the folder with the files and the index, written first where it is not there."""
    wanted, findings = tfds_sets.splits_of(builder, name)
    folder = cache_folder() / "tfds" / f"{tfds_sets.identity(builder)}-{what}"
    build_once(folder, lambda new: _write(builder, wanted, rest, new))
    return Raw({split: [] for split in wanted}, findings), folder


def _write(builder: Any, wanted: Mapping[str, str], rest: Rest, folder: Path) -> None:
    """Writes the encoded images of all splits, and an index beside them."""
    import tensorflow_datasets as tfds

    with (folder / _INDEX).open("w", encoding="utf-8") as index:
        for split, own in wanted.items():
            (folder / split).mkdir()
            for number, row in enumerate(tfds_sets.rows(builder, own, {"image": tfds.decode.SkipDecoding()})):
                data = row["image"]
                id = f"{split}/{number:06d}"
                file = id + formats.ENDINGS.get(formats.recognise(data[:132]), ("",))[0]
                (folder / file).write_bytes(data)
                content = hashlib.blake2b(data, digest_size=files.HASH_BYTES).hexdigest()
                line = {"split": split, "id": id, "file": file, "content": content, **rest(folder, id, row)}
                index.write(json.dumps(line) + "\n")


def _index(folder: Path) -> Iterator[tuple[str, Any]]:
    """(split, row) of each example."""
    with (folder / _INDEX).open(encoding="utf-8") as index:
        for line in index:
            row = json.loads(line)
            yield row["split"], row
