"""YOLO: images and label files with the same stems, in `images/` and `labels/` or side by side.

A row of a label file is the index of a class and a box in shares of the image's width and height.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from keras_transfer.data import boxes, files, image_files
from keras_transfer.data.boxes import Box, BoxedImage
from keras_transfer.data.findings import DataError, Raw, Severity, find
from keras_transfer.data.picture_faults import PictureFaults

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
"""Where the names of the classes are looked for, in order."""
_NO_LABELS = frozenset({"classes.txt"})  # annotation tools put it among the labels

_YAML_MEND = "Write `names: [cat, dog]`, or one name a line: `names:` and below it `  - cat` or `  0: cat`"


def load(root: Path, sections: Mapping[str, Path], severity: Severity) -> Raw:
    """The records of images and label files; an image without a label file has no boxes.

    Args:
        root: ids are relative to it, and the names of classes are looked for in it.
        sections: by split name, a folder that holds `images/` and `labels/`, or a folder in `images/`.
        severity: of an image that is left out.

    Raises:
        DataError: the names of the classes cannot be read.
    """
    raw, faults = Raw(), PictureFaults()
    names = class_names(root, sections)
    for name, place in sections.items():
        pictured, labelled = image_and_label_folders(place, "labels")
        if not labelled.is_dir():
            message = f"the split {name!r} has no labels and is left out"
            raw.findings.append(find("unlabelled_split", "warn", message, [str(labelled)], "Add its label files"))
            continue
        images = image_files.below(pictured)
        labels = _label_files(labelled)
        read = [_read(path, labels.get(stem), root, names, faults) for stem, path in images.items()]
        raw[name] = boxes.records([image for image in read if image is not None], names, faults)
        raw.findings += _unmatched(images, labels)
    raw.findings += faults.findings(severity)
    return raw


def image_and_label_folders(place: Path, labels: str) -> tuple[Path, Path]:
    """The folders of a split's images and of their labels (or masks).

    Args:
        place: `train/`, which holds `images/` and `labels/`, or both kinds of files side by side; or `images/train/`,
            beside which is `labels/train/`.
        labels: the name of the latter.
    """
    images = image_files.folder_named(place, "images")
    if images is not None:
        return images, image_files.folder_named(place, labels) or place / labels
    if place.parent.name.lower() != "images":
        return place, place
    beside = image_files.folder_named(place.parent.parent, labels) or place.parent.parent / labels
    return place, image_files.folder_named(beside, place.name.lower()) or beside / place.name


def _label_files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in files.walk(folder)
        if path.suffix.lower() == ".txt" and path.name.lower() not in _NO_LABELS
    }


def _read(
    image: Path, labels: Path | None, root: Path, names: tuple[str, ...] | None, faults: PictureFaults
) -> BoxedImage | None:
    """One image; None where a row of its labels is at fault."""
    found: list[Box | None] = []
    if labels is not None:
        try:
            lines = files.read_text(labels).splitlines()
        except DataError as error:
            faults.add("malformed_row", error.findings[0].files[0], error.findings[0].message)
            return None
        rows = [(f"{labels}:{number}", line.strip()) for number, line in enumerate(lines, 1)]
        found = [_box(where, line, names, faults) for where, line in rows if line]
    kept = [box for box in found if box is not None]
    if len(kept) < len(found):
        return None
    return BoxedImage(boxes.id_of(image, root), image, kept, str(labels or image), relative=True)


def _box(where: str, line: str, names: tuple[str, ...] | None, faults: PictureFaults) -> Box | None:
    """The box of one row; None, noted, where it is at fault."""
    cells = line.split()
    shown = line if len(line) <= 60 else f"{line[:59]}…"
    if len(cells) != 5:
        faults.add("malformed_row", where, f"{len(cells)} fields, expected 5: {shown!r}")
        return None
    values = boxes.numbers(cells)
    if values is None or values[0] != int(values[0]) or values[0] < 0:
        what = "expected five numbers, the first a class index" if values is None else "the class is no index"
        faults.add("malformed_row", where, f"{what}: {shown!r}")
        return None
    index, (x, y, width, height) = int(values[0]), values[1:]
    if not all(0 <= value <= 1 for value in values[1:]):
        faults.add("malformed_row", where, f"values outside 0 to 1: {shown!r}")
        return None
    if names is not None and index >= len(names):
        faults.add("unknown_class", where, f"class {index}; listed: {len(names)} ({', '.join(names[:5])}, …)")
        return None
    label = names[index] if names is not None else str(index)
    corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return Box(corners, label, where, f"{shown!r}")


def _unmatched(images: Mapping[str, Path], labels: Mapping[str, Path]) -> Iterator:
    """Images without a label file, and label files without an image."""
    alone = [str(path) for stem, path in images.items() if stem not in labels]
    if alone:
        message = f"{len(alone)} of {len(images)} images have no label file and count as images without boxes"
        yield find("no_label_file", "warn", message, alone, "Nothing, if nothing is on them; an empty file says so")
    lost = [str(path) for stem, path in labels.items() if stem not in images]
    if lost:
        message = f"{len(lost)} label files have no image of the same name and are left out"
        yield find("label_without_image", "warn", message, lost, "Restore the images, or remove the files")


def class_names(root: Path, sections: Mapping[str, Path]) -> tuple[str, ...] | None:
    """The names of the classes in the order of their indices; None where nothing lists them.

    Raises:
        DataError: the file that lists them cannot be read.
    """
    base = root if root.is_dir() else root.parent
    places = [
        base,
        *sections.values(),
        base / "labels",
        *(image_and_label_folders(p, "labels")[1] for p in sections.values()),
    ]
    for place in dict.fromkeys(places):
        for name in NAME_FILES:
            path = place / name
            if path.is_file():
                return _yaml_names(path) if path.suffix in (".yaml", ".yml") else _listed_names(path)
    return None


def _listed_names(path: Path) -> tuple[str, ...] | None:
    """One name a line; an empty line within them would move the indices."""
    lines = [line.strip() for line in files.read_text(path).rstrip().splitlines()]
    return _checked(path, lines) if lines else None


def _checked(path: Path, names: list[str]) -> tuple[str, ...]:
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            problem = f"class {number} has {'no name' if not name else f'the name of another one, {name!r}'}"
            raise DataError(find("class_names", "stop", problem, [f"{path}:{number + 1}"], "Give each its own name"))
    return tuple(names)


def _yaml_names(path: Path) -> tuple[str, ...] | None:
    """The value of `names:` at the top level of a YAML file, in the forms that YOLO's tools write."""
    lines = files.read_text(path).splitlines()
    for number, line in enumerate(lines):
        if match := re.match(r"names\s*:(.*)", line):
            value = _uncommented(match.group(1))
            if value.startswith(("[", "{")):
                return _checked(path, _flow_names(path, number, value, lines))
            if value:
                raise _yaml_fault(path, number, line)
            return _checked(path, _block_names(path, number, lines))
    return None


def _uncommented(text: str) -> str:
    return re.sub(r"(^|\s)#.*$", "", text).strip()


def _flow_names(path: Path, number: int, value: str, lines: list[str]) -> list[str]:
    """`[a, 'b', "c"]` or `{0: a, 1: b}`, over one or more lines."""
    closing = "]" if value[0] == "[" else "}"
    last = number
    while not value.endswith(closing):
        last += 1
        if last >= len(lines):
            raise _yaml_fault(path, number, lines[number])
        value = f"{value} {_uncommented(lines[last])}"
    items = re.findall(r"""\s*((?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,'"])+)(?:,|$)""", value[1:-1])
    items = [item for item in items if item.strip()]
    if closing == "]":
        return [_scalar(path, number, item) for item in items]
    return _by_index(path, [(number, item) for item in items])


def _block_names(path: Path, number: int, lines: list[str]) -> list[str]:
    """`- a` or `0: a`, a line each."""
    block = []
    for at, line in enumerate(lines[number + 1 :], number + 1):
        text = _uncommented(line)
        if not text:
            continue
        if not line.startswith((" ", "\t", "-")):
            break
        block.append((at, text))
    if not block:
        raise _yaml_fault(path, number, lines[number])
    if all(text.startswith("-") for _, text in block):
        return [_scalar(path, at, text[1:]) for at, text in block]
    return _by_index(path, block)


def _by_index(path: Path, items: list[tuple[int, str]]) -> list[str]:
    """The names of `index: name` in order of the indices, which are 0, 1, ..."""
    found: dict[int, str] = {}
    for at, item in items:
        match = re.fullmatch(r"""\s*['"]?(\d+)['"]?\s*:\s*(.+)""", item)
        if match is None or int(match.group(1)) in found:
            raise _yaml_fault(path, at, item)
        found[int(match.group(1))] = _scalar(path, at, match.group(2))
    if sorted(found) != list(range(len(found))):
        raise _yaml_fault(path, items[0][0], "the indices are not 0, 1, 2, …")
    return [found[index] for index in range(len(found))]


def _scalar(path: Path, at: int, text: str) -> str:
    """A plain or quoted YAML text."""
    text = text.strip()
    if text[:1] == '"' and text[-1:] == '"' and len(text) > 1:
        try:
            return str(json.loads(text))
        except ValueError:
            raise _yaml_fault(path, at, text) from None
    if text[:1] == "'" and text[-1:] == "'" and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if not text or text[0] in "[{&*!|>%@`\"'":
        raise _yaml_fault(path, at, text)
    return text


def _yaml_fault(path: Path, at: int, line: str) -> DataError:
    message = f"the names of the classes cannot be read: {line.strip()[:80]!r}"
    return DataError(find("class_names", "stop", message, [f"{path}:{at + 1}"], _YAML_MEND))
