"""Boxes: annotated images as records, and what is wrong with their boxes; every source of boxes ends here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_transfer.data import files
from keras_transfer.data.picture_faults import PictureFaults
from keras_transfer.data.records import Record
from keras_transfer.vision import upright

Corners = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max as edges: a box of one pixel in the corner of an image is 0, 0, 1, 1."""

TOLERANCE = 1.0
"""Pixels that a box may reach beyond its image: it is clipped. Tools differ in counting pixels from 0 or from 1, and
rounded shares of a side miss its end by as much."""


@dataclass(frozen=True)
class Box:
    """One box as a source has it."""

    corners: Corners
    label: str
    where: str
    """File, or file:line."""
    written: str
    """The numbers in the source's own terms, for messages."""
    crowd: bool = False
    """Marks what is neither to be found nor wrong to find: a crowd, or an object that the annotators call difficult."""


@dataclass(frozen=True)
class BoxedImage:
    """An image with its boxes as a source has them."""

    id: str
    image: Path
    boxes: Sequence[Box]
    where: str
    """What names the image: file, or file:line."""
    size: tuple[int, int] | None = None
    """Width and height that the source says, where it does."""
    relative: bool = False
    """Corners are shares of width and height, from 0 to 1."""
    group: str = ""
    content: bytes = b""
    """As `Record.content` where it is known already."""


def records(images: Sequence[BoxedImage], classes: tuple[str, ...] | None, faults: PictureFaults) -> list[Record]:
    """The records of annotated images, in order, without those that have a fault.

    Args:
        images: what a source says.
        classes: all class names where the source lists them.
        faults: takes what is wrong.
    """
    paths = [str(image.image) for image in images]
    unhashed = [path for path, image in zip(paths, images, strict=True) if not image.content]
    hashes = dict(zip(unhashed, files.hash_files(unhashed, "reading images"), strict=True))
    sizes = files.in_threads(upright.size, paths, "reading image headers")
    made = (
        _record(image, image.content or hashes[path], size, classes, faults)
        for path, image, size in zip(paths, images, sizes, strict=True)
    )
    return [record for record in made if record is not None]


def _record(
    image: BoxedImage,
    content: bytes,
    size: tuple[int, int] | None,
    classes: tuple[str, ...] | None,
    faults: PictureFaults,
) -> Record | None:
    """One image's record; None where something is wrong with it."""
    if not content:
        faults.add("missing_file", str(image.image), f"named by {image.where}")
        return None
    # A file whose header is damaged keeps its boxes unchecked: `checks` names it and leaves it out.
    if size is not None and image.size is not None and image.size != size:
        faults.add("image_size_mismatch", image.where, f"{_by(image.size)}, {image.image} is {_by(size)}")
        return None
    kept = [_checked(box, size, image, faults) if size is not None else box.corners for box in image.boxes]
    if any(corners is None for corners in kept):
        return None
    fields: dict[str, Any] = {
        "image": str(image.image.absolute()),
        "boxes": tuple(kept),
        "labels": tuple(box.label for box in image.boxes),
    }
    if any(box.crowd for box in image.boxes):
        fields["crowd"] = tuple(box.crowd for box in image.boxes)
    if classes is not None:
        fields["classes"] = classes
    return Record(image.id, fields, str(image.image), content, image.group)


def _checked(box: Box, size: tuple[int, int], image: BoxedImage, faults: PictureFaults) -> Corners | None:
    """The corners in pixels inside the image; None where something is wrong with them."""
    width, height = size
    scale = (width, height, width, height) if image.relative else (1, 1, 1, 1)
    x_min, y_min, x_max, y_max = (float(value * side) for value, side in zip(box.corners, scale, strict=True))
    inside = f"{box.written} in an image of {_by(size)}"
    if x_min > x_max or y_min > y_max:
        faults.add("box_swapped", box.where, box.written)
        return None
    if x_min == x_max or y_min == y_max:
        faults.add("box_without_area", box.where, box.written)
        return None
    if min(x_min, y_min) < -TOLERANCE or x_max > width + TOLERANCE or y_max > height + TOLERANCE:
        faults.add("box_outside_image", box.where, inside)
        return None
    clipped = max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(width)), min(y_max, float(height))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        faults.add("box_outside_image", box.where, inside)
        return None
    return clipped


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def numbers(values: Sequence[Any]) -> tuple[float, ...] | None:
    """Finite numbers of numbers or texts; None where one is none."""
    found = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        if not math.isfinite(number):
            return None
        found.append(number)
    return tuple(found)


def id_of(image: Path, root: Path) -> str:
    """An image's id: its path relative to the source where it lies in it."""
    base = root if root.is_dir() else root.parent
    try:
        return image.relative_to(base).as_posix()
    except ValueError:
        return image.as_posix()
