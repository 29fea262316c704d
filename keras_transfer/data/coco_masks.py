"""COCO's polygons and run lengths as masks: each pixel has the class of the object on top of it, or `background`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.data import coco, files, mask_files, masks
from keras_transfer.data.coco import CocoImage
from keras_transfer.data.findings import DataError, Raw, Severity, find
from keras_transfer.data.picture_faults import PictureFaults
from keras_transfer.data.records import Record
from keras_transfer.samples.cache import build_once, cache_folder
from keras_transfer.vision import upright

FORMAT = 1
"""Raised whenever the same file could give other masks."""
BACKGROUND = "background"


def load(root: Path, sections: Mapping[str, Path], severity: Severity) -> Raw:
    """The records of COCO files with masks, written once into the cache.

    The classes are `background` and the categories in the order of their ids; a category of that name is the
    background itself.

    Args:
        root: ids of images are relative to it.
        sections: JSON file by split name.
        severity: of an image that is left out.

    Raises:
        DataError: a file is no JSON, has not COCO's lists, or pycocotools is not installed.
    """
    raw, faults = Raw(), PictureFaults()
    for name, path in sections.items():
        content = coco.read(path, root, name, faults)
        raw[name] = _records(path, content, faults)
    raw.findings += faults.findings(severity)
    return raw


def _records(path: Path, content: coco.CocoFile, faults: PictureFaults) -> list[Record]:
    """The records of one file, without the images that have a fault."""
    named = content.categories
    own = [name for name in named.values() if name.casefold() != BACKGROUND]
    classes = (BACKGROUND, *own)
    if len(classes) > mask_files.IGNORED:
        message = f"{len(own)} categories; a mask of 8 bits holds at most {mask_files.IGNORED - 1} and the background"
        raise DataError(find("too_many_mask_values", "stop", message, [str(path)], "Leave out categories"))
    index_of = {id: classes.index(name) if name in own else 0 for id, name in named.items()}
    images = [str(image.path) for image in content.images]
    contents = files.hash_files(images, "reading images")
    sizes = list(files.in_threads(upright.size, images, "reading image headers"))
    wanted: list[tuple[CocoImage, bytes, tuple[int, int]]] = []
    for image, hashed, size in zip(content.images, contents, sizes, strict=True):
        declared = size or image.size or (1, 1)  # an image whose header is damaged: `checks` names it
        if image.size is not None and image.size != declared:
            shown = [f"{width}×{height}" for width, height in (image.size, declared)]
            faults.add("image_size_mismatch", image.where, f"{shown[0]}, {image.path} is {shown[1]}")
        else:
            wanted.append((image, hashed, declared))
    digest = hashlib.blake2b(files.hash_file(path), digest_size=12)
    digest.update(repr((FORMAT, [(image.where, size) for image, _, size in wanted])).encode())
    folder = cache_folder() / "masks" / f"coco-{digest.hexdigest()}"
    build_once(folder, lambda new: _build(new, [(image, size) for image, _, size in wanted], index_of, len(classes)))
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    records = []
    for number, ((image, hashed, size), row) in enumerate(zip(wanted, index, strict=True)):
        for kind, place, why in row["faults"]:
            faults.add(kind, place, why)
        if not row["faults"]:
            mask = mask_files.MaskFile(folder / _name(number), size, tuple(row["pixels"]))
            pair = masks.Pair(image.id, image.path, mask.path, image.where)
            records.append(masks.record(pair, mask, classes, hashed, bytes.fromhex(row["content"])))
    return records


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _build(
    folder: Path, images: Sequence[tuple[CocoImage, tuple[int, int]]], index_of: Mapping[Any, int], classes: int
) -> None:
    """Writes a mask an image, and `index.json` beside them."""
    numbered = list(enumerate(images))

    def row(item: tuple[int, tuple[CocoImage, tuple[int, int]]]) -> dict[str, Any]:
        number, (image, size) = item
        noted: list[tuple[str, str, str]] = []
        indices = _paint(image, size, index_of, noted)
        if not noted:
            mask_files.write(folder / _name(number), indices)
        content = hashlib.blake2b(indices.tobytes(), digest_size=files.HASH_BYTES).hexdigest()
        return {"pixels": mask_files.pixels_of(indices, classes), "content": content, "faults": noted}

    rows = list(files.in_threads(row, numbered, "drawing masks"))
    (folder / "index.json").write_text(json.dumps(rows), encoding="utf-8")


def _paint(
    image: CocoImage, size: tuple[int, int], index_of: Mapping[Any, int], noted: list[tuple[str, str, str]]
) -> np.ndarray:
    """uint8 [H, W] of class indices.

    The file does not say what lies on top: crowds are painted first, then larger objects before smaller ones.
    """
    width, height = size
    indices = np.zeros((height, width), np.uint8)
    layers = []
    for number, (place, entry) in enumerate(image.annotations):
        if entry.get("category_id") not in index_of:
            noted.append(("unknown_class", place, f"category_id {entry.get('category_id')!r}"))
            continue
        try:
            inside = _inside(entry.get("segmentation"), height, width)
        except ValueError as error:
            noted.append(("malformed_segmentation", place, str(error)))
            continue
        layers.append((not entry.get("iscrowd"), -int(inside.sum()), number, index_of[entry["category_id"]], inside))
    for _, _, _, index, inside in sorted(layers, key=lambda layer: layer[:3]):
        indices[inside] = index
    return indices


def _inside(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Bool [H, W]: the pixels of an object.

    Raises:
        ValueError: for what is neither polygons nor run lengths of this size.
    """
    mask = _pycocotools()
    if isinstance(segmentation, list) and segmentation:
        for polygon in segmentation:
            numbers = coco.boxes.numbers(polygon) if isinstance(polygon, list) else None
            if numbers is None or len(numbers) < 6 or len(numbers) % 2:
                shown = repr(polygon)[:60]
                raise ValueError(f"a polygon needs three or more points as x, y, x, y, … Received: {shown}")
        return mask.decode(mask.merge(mask.frPyObjects(segmentation, height, width))).astype(bool)
    if isinstance(segmentation, dict) and {"size", "counts"} <= set(segmentation):
        if segmentation["size"] != [height, width]:
            raise ValueError(f"size {segmentation['size']} (height, width), the image is {height}, {width}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != height * width:
                raise ValueError(f"the run lengths do not add up to the {height * width} pixels of the image")
            runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            return runs.reshape((height, width), order="F")
        if isinstance(counts, str):
            return mask.decode({"size": [height, width], "counts": counts.encode()}).astype(bool)
    raise ValueError(f"segmentation {repr(segmentation)[:60]}")


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        message = "the package pycocotools, which draws COCO's polygons, is not installed"
        mend = "pip install pycocotools"
        raise DataError(find("missing_package", "stop", message, mend=mend)) from None
    return mask
