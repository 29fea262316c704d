"""COCO: JSON files of images, annotations and categories, as boxes; `coco_masks` makes masks of the polygons.

Form: https://cocodataset.org/#format-data. Positions in messages are those in the file's lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_transfer.data import boxes, files, image_files
from keras_transfer.data.boxes import Box, BoxedImage
from keras_transfer.data.findings import DataError, Raw, Severity, find
from keras_transfer.data.picture_faults import PictureFaults

_MEND = 'Expected {"images": [{"id", "file_name", …}], "annotations": [{"image_id", "category_id", "bbox"}], ' \
    '"categories": [{"id", "name"}]}'  # fmt: skip


@dataclass
class CocoImage:
    """One entry of `images` with its annotations."""

    id: str
    path: Path
    where: str
    size: tuple[int, int] | None
    annotations: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """(place in the file, entry)."""
    faulty: bool = False


@dataclass(frozen=True)
class CocoFile:
    """What a file says, without the images that have a fault."""

    images: Sequence[CocoImage]
    categories: Mapping[Any, str]
    """Name by id, in the order of the ids."""


def load(root: Path, sections: Mapping[str, Path], severity: Severity) -> Raw:
    """The boxes of COCO files.

    Args:
        root: ids of images are relative to it.
        sections: JSON file by split name.
        severity: of an image that is left out.

    Raises:
        DataError: a file is no JSON, or has not COCO's lists.
    """
    raw, faults = Raw(), PictureFaults()
    for name, path in sections.items():
        content = read(path, root, name, faults)
        classes = tuple(dict.fromkeys(content.categories.values()))
        images = [made for image in content.images if (made := _boxed(image, content.categories, faults)) is not None]
        raw[name] = boxes.records(images, classes, faults)
    raw.findings += faults.findings(severity)
    return raw


def read(path: Path, root: Path, split: str, faults: PictureFaults) -> CocoFile:
    """The content of a COCO file.

    Raises:
        DataError: it is no JSON, or has not COCO's lists.
    """
    content = _parse(path)
    categories = _categories(path, content)
    images = _images(path, root, split, content["images"], faults)
    _annotate(path, content["annotations"], images, faults)
    # An id that two images have is in the list of both: neither can be trusted.
    return CocoFile([image for images_of in images.values() for image in images_of if not image.faulty], categories)


def _parse(path: Path) -> Mapping[str, Any]:
    """The file's object with its three lists."""
    try:
        content = json.loads(files.read_text(path))
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        raise DataError(find("malformed_json", "stop", error.msg, [place], "Correct or restore the file")) from None
    except RecursionError:
        raise DataError(find("malformed_json", "stop", "too deeply nested", [str(path)], _MEND)) from None
    if not isinstance(content, dict):
        message = f"expected an object. Received: a {type(content).__name__}"
        raise DataError(find("malformed_json", "stop", message, [str(path)], _MEND))
    lacking = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if lacking:
        received = ", ".join(map(str, content)) or "nothing"
        message = f"no list {', '.join(map(repr, lacking))}. Received: {received}"
        raise DataError(find("malformed_json", "stop", message, [str(path)], _MEND))
    return content


def _categories(path: Path, content: Mapping[str, Any]) -> dict[Any, str]:
    """Name by id, in the order of the ids, which need not follow each other."""
    found: dict[Any, str] = {}
    wrong, twice = [], []
    for number, entry in enumerate(content["categories"]):
        place = f"{path}: categories[{number}]"
        id, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not _is_id(id) or not isinstance(name, str) or not name.strip():
            wrong.append(f"{place}: expected an id and a name. Received: {_short(entry)}")
        elif id in found or name in found.values():
            twice.append(f"{place}: {_short(entry)}")
        else:
            found[id] = name
    if wrong:
        raise DataError(find("malformed_json", "stop", f"{len(wrong)} categories cannot be read", wrong, _MEND))
    if twice:
        message = f"{len(twice)} categories have the id or the name of another one"
        raise DataError(find("duplicate_id", "stop", message, twice, "Give each category its own id and name"))
    # Some tools add the common heading of all categories as one more, which no box has.
    used = {entry.get("category_id") for entry in content["annotations"] if isinstance(entry, dict)}
    headings = {entry.get("supercategory") for entry in content["categories"]}
    kept = {id: name for id, name in found.items() if id in used or name not in headings} or found
    numeric = all(isinstance(id, int) for id in kept)
    return dict(sorted(kept.items(), key=lambda item: item[0] if numeric else files.natural_key(str(item[0]))))


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _images(
    path: Path, root: Path, split: str, entries: Sequence[Any], faults: PictureFaults
) -> dict[Any, list[CocoImage]]:
    """The images by id."""
    found: dict[Any, list[CocoImage]] = {}
    finder = image_files.Finder(_folders(path, split))
    for number, entry in enumerate(entries):
        place = f"{path}: images[{number}]"
        id, name = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if not _is_id(id) or not isinstance(name, str) or not name:
            faults.add("malformed_json", place, f"expected an id and a file_name. Received: {_short(entry)}")
            continue
        image = finder.find(name)
        place = f"{place} (id {id})"
        made = CocoImage(boxes.id_of(image or Path(name), root), image or Path(name), place, _size(entry))
        if image is None:
            faults.add("missing_file", place, name)
            made.faulty = True
        others = found.setdefault(id, [])
        if others:
            faults.add("duplicate_id", place, f"the image id of {name} and of {others[0].path.name}")
            made.faulty = others[0].faulty = True
        others.append(made)
    return found


def _folders(path: Path, split: str) -> list[Path]:
    """Where the images of a file are usually kept, such as `train2017/` for `annotations/instances_train2017.json`."""
    own = path.stem.lower().removeprefix("instances_")
    bases = [path.parent, path.parent.parent]
    inside = [base for base in bases] + [
        folder for base in bases if (folder := image_files.folder_named(base, "images")) is not None
    ]
    named = [folder for base in inside if (folder := image_files.folder_named(base, own, split)) is not None]
    return [path.parent, *named, *inside]


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height that an entry says."""
    width, height = entry.get("width"), entry.get("height")
    if isinstance(width, int | float) and isinstance(height, int | float) and min(width, height) > 0:
        return int(width), int(height)
    return None


def _annotate(path: Path, entries: Sequence[Any], images: dict[Any, list[CocoImage]], faults: PictureFaults) -> None:
    """Gives each image its annotations."""
    seen: set[Any] = set()
    for number, entry in enumerate(entries):
        place = f"{path}: annotations[{number}]"
        if not isinstance(entry, dict) or not _is_id(entry.get("image_id")):
            faults.add("malformed_json", place, f"expected an image_id. Received: {_short(entry)}")
            continue
        id = entry.get("id")
        place = f"{place} (id {id})" if _is_id(id) else place
        of = images.get(entry["image_id"])
        if of is None:
            faults.add("unknown_image", place, f"image_id {entry['image_id']!r}")
            continue
        of[0].annotations.append((place, entry))
        if _is_id(id) and id in seen:
            faults.add("duplicate_id", place, "another annotation has the same id")
            of[0].faulty = True
        elif _is_id(id):
            seen.add(id)


def class_of(place: str, entry: Mapping[str, Any], categories: Mapping[Any, str], faults: PictureFaults) -> str | None:
    """The class of an annotation; None, noted, for a category that is not listed."""
    id = entry.get("category_id")
    if not _is_id(id) or id not in categories:
        faults.add("unknown_class", place, f"category_id {id!r}; listed: {_listed(categories)}")
        return None
    return categories[id]


def _listed(categories: Mapping[Any, str]) -> str:
    first = ", ".join(str(id) for id in list(categories)[:10])
    return first + (", …" if len(categories) > 10 else "")


def _boxed(image: CocoImage, categories: Mapping[Any, str], faults: PictureFaults) -> BoxedImage | None:
    found = list(_boxes(image, categories, faults))
    if any(box is None for box in found):
        return None
    return BoxedImage(image.id, image.path, [box for box in found if box is not None], image.where, image.size)


def _boxes(image: CocoImage, categories: Mapping[Any, str], faults: PictureFaults) -> Iterator[Box | None]:
    for place, entry in image.annotations:
        label = class_of(place, entry, categories, faults)
        given = entry.get("bbox")
        written = f"bbox {_short(given)}"
        corners = boxes.numbers(given) if isinstance(given, list) and len(given) == 4 else None
        if corners is None:
            faults.add("box_not_numeric", place, f"{written}; expected [x, y, width, height]")
        if corners is None or label is None:
            yield None
            continue
        x, y, width, height = corners
        yield Box((x, y, x + width, y + height), label, place, written, bool(entry.get("iscrowd")))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"
