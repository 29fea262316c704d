"""Masks: images with a mask each, from `images/` and `masks/` with the same stems or from a table, as records."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_transfer.data import boxes, files, image_files, mask_files, tables, yolo
from keras_transfer.data.findings import DataError, Raw, Severity, find
from keras_transfer.data.mask_files import IGNORED, Colour, Listing
from keras_transfer.data.picture_faults import PictureFaults
from keras_transfer.data.records import Record
from keras_transfer.data.table_records import group_of, table_in
from keras_transfer.recipe import DataSpec
from keras_transfer.vision import upright

COLOUR_FILES, NAME_FILES = ("class_dict.csv",), ("classes.txt",)
IGNORE_NAME = "ignore"
"""The name of a colour whose pixels do not count."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask as a source names them."""

    id: str
    image: Path
    mask: Path | None
    where: str
    """What names them: file, or file:line."""
    group: str = ""


def load_folders(root: Path, sections: Mapping[str, Path], spec: DataSpec, severity: Severity) -> Raw:
    """The records of folders of images and masks.

    Args:
        root: ids are relative to it.
        sections: by split name, a folder that holds `images/` and `masks/`, or a folder in `images/`.
        spec: `ignore_index`.
        severity: of an image that is left out.
    """
    pairs: dict[str, list[Pair]] = {}
    raw = Raw()
    for name, place in sections.items():
        pictured, masked = yolo.image_and_label_folders(place, "masks")
        if not masked.is_dir():
            message = f"the split {name!r} has no masks and is left out"
            raw.findings.append(find("unlabelled_split", "warn", message, [str(masked)], "Add its masks"))
            continue
        images, masks = image_files.below(pictured), image_files.below(masked)
        pairs[name] = [
            Pair(boxes.id_of(path, root), path, _mask_of(stem, masks), str(path)) for stem, path in images.items()
        ]
        used = {pair.mask for pair in pairs[name]}
        lost = [str(path) for path in masks.values() if path not in used]
        if lost:
            message = f"{len(lost)} masks have no image of the same name and are left out"
            raw.findings.append(find("mask_without_image", "warn", message, lost, "Restore the images, or remove them"))
    return load_pairs(raw, pairs, listing_of(root, sections), spec, severity)


def _mask_of(stem: str, masks: Mapping[str, Path]) -> Path | None:
    """The mask of a stem; some tools add `_mask` to it."""
    return masks.get(stem) or masks.get(f"{stem}_mask")


def load_tables(root: Path, sections: Mapping[str, Path], spec: DataSpec, severity: Severity) -> Raw:
    """The records of tables with the columns `path` and `mask`, both relative to the table."""
    raw, faults = Raw(), PictureFaults()
    pairs: dict[str, list[Pair]] = {}
    for name, place in sections.items():
        path = place if place.is_file() else table_in(place, spec)
        table = tables.read(path, severity)
        tables.require(path, table.columns, "semantic_segmentation", spec)
        raw.findings += table.faults
        names = [tables.resolve(table.columns, wanted) or wanted for wanted in (spec.path_column, "mask")]
        group = tables.resolve(table.columns, spec.group_column)
        pairs[name] = []
        for line, row in table.rows:
            image, mask = (str(row.get(column) or "").strip() for column in names)
            where = f"{path}:{line}"
            if not image:
                faults.add("missing_file", where, "a row without a path")
                continue
            paths = [(path.parent / Path(text).expanduser()).absolute() if text else None for text in (image, mask)]
            assert paths[0] is not None
            id = boxes.id_of(paths[0], root.absolute())
            pairs[name].append(Pair(id, paths[0], paths[1], where, group_of(row, group)))
    raw.findings += faults.findings(severity)
    base = root if root.is_dir() else root.parent
    return load_pairs(raw, pairs, listing_of(base, sections), spec, severity)


def load_pairs(
    raw: Raw, pairs: Mapping[str, Sequence[Pair]], listing: Listing, spec: DataSpec, severity: Severity
) -> Raw:
    """Adds the records of all splits; what the values of the masks mean is decided over all of them."""
    faults = PictureFaults()
    every = [pair for of in pairs.values() for pair in of]
    named = [str(pair.mask) for pair in every if pair.mask is not None]
    hashes = dict(zip(named, files.hash_files(named, "reading masks"), strict=True))
    by_content = {hashes[path]: Path(path) for path in reversed(named) if hashes[path]}
    masks = mask_files.convert(by_content, listing, spec.ignore_index)
    for name, of in pairs.items():
        raw[name] = _records(of, hashes, masks, faults)
    raw.findings += masks.findings
    raw.findings += faults.findings(severity)
    return raw


def _records(
    pairs: Sequence[Pair], hashes: Mapping[str, bytes], masks: mask_files.Masks, faults: PictureFaults
) -> list[Record]:
    """The records of pairs, in order, without those that have a fault."""
    paths = [str(pair.image) for pair in pairs]
    contents = files.hash_files(paths, "reading images")
    sizes = files.in_threads(upright.size, paths, "reading image headers")
    records = []
    for pair, content, size in zip(pairs, contents, sizes, strict=True):
        if not content:
            faults.add("missing_file", str(pair.image), f"named by {pair.where}")
        elif pair.mask is None:
            faults.add("missing_mask", str(pair.image) if str(pair.image) == pair.where else pair.where)
        elif not hashes[str(pair.mask)]:
            faults.add("missing_mask", str(pair.mask), f"named by {pair.where}")
        elif _fits(pair, masks.by_content[hashes[str(pair.mask)]], size, faults):
            mask = masks.by_content[hashes[str(pair.mask)]]
            records.append(record(pair, mask, masks.classes, content, hashes[str(pair.mask)]))
    return records


def _fits(pair: Pair, mask: mask_files.MaskFile, size: tuple[int, int] | None, faults: PictureFaults) -> bool:
    """Whether a mask can be used for its image; what is wrong is noted."""
    if mask.problem:
        faults.add("unreadable_mask", str(pair.mask), mask.problem)
    elif size is not None and mask.size != size:
        # An image whose header is damaged has no size: `checks` names it.
        sizes = [f"{width}×{height}" for width, height in (mask.size, size)]
        faults.add("mask_size", str(pair.mask), f"{sizes[0]}, {pair.image} is {sizes[1]}")
    elif mask.unknown:
        shown = ", ".join(f"{value} ({count} pixels)" for value, count in mask.unknown)
        faults.add("unknown_mask_value", str(pair.mask), shown)
    else:
        return True
    return False


def record(
    pair: Pair, mask: mask_files.MaskFile, classes: tuple[str, ...], content: bytes, mask_content: bytes
) -> Record:
    """The record of an image and its mask.

    Fields: `image`; `mask`, a grey PNG of class indices and 255 for what does not count; `classes` by index; `pixels`,
    how many there are of each.
    """
    path = mask.path.absolute()
    fields = {"image": str(pair.image.absolute()), "mask": str(path), "classes": classes, "pixels": mask.pixels}
    return Record(pair.id, fields, str(pair.image), content, pair.group, mask_content)


def listing_of(root: Path, sections: Mapping[str, Path]) -> Listing:
    """The classes that a file beside the masks lists: `class_dict.csv` (name,r,g,b) or `classes.txt` (a name a line).

    Raises:
        DataError: it cannot be read.
    """
    places = [root, *sections.values(), *(place.parent for place in sections.values()), root / "masks"]
    for place in dict.fromkeys(places):
        for name in (*COLOUR_FILES, *NAME_FILES):
            if (place / name).is_file():
                return _listing(place / name)
    return Listing()


def _listing(path: Path) -> Listing:
    """Names, with colours where each line ends in three numbers."""
    rows = []
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            rows.append((number, _name_and_colour(line)))
    if rows and rows[0][1][1] is None and path.suffix == ".csv":
        rows = rows[1:]  # the header
    if not rows:
        return Listing()
    coloured = [colour is not None for _, (_, colour) in rows]
    if any(coloured) != all(coloured) or (path.suffix == ".csv" and not all(coloured)):
        number = rows[coloured.index(False)][0]
        raise _fault(path, number, "expected a name and a colour of three numbers from 0 to 255: name,r,g,b")
    names: list[str] = []
    colours: list[Colour] = []
    ignored: list[Colour] = []
    for number, (name, colour) in rows:
        if colour is not None and (colour in colours or colour in ignored):
            raise _fault(path, number, f"the colour {colour} is that of another class")
        if colour is not None and name.lower() == IGNORE_NAME:
            ignored.append(colour)
            continue
        if name in names:
            raise _fault(path, number, f"the class {name!r} is listed twice")
        names.append(name)
        if colour is not None:
            colours.append(colour)
    if len(names) > IGNORED:
        raise _fault(path, rows[IGNORED][0], f"{len(names)} classes; a mask of 8 bits holds at most {IGNORED}")
    return Listing(tuple(names), tuple(colours), tuple(ignored))


def _name_and_colour(line: str) -> tuple[str, Colour | None]:
    """`name`, `name,r,g,b` or `name r g b`."""
    match = re.fullmatch(r"\s*(.+?)[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})\s*", line)
    if match is None or any(int(part) > 255 for part in match.groups()[1:]):
        return line.strip(), None
    name = next(iter(csv.reader([match.group(1)])))[0]
    return name.strip(), (int(match.group(2)), int(match.group(3)), int(match.group(4)))


def _fault(path: Path, number: int, problem: str) -> DataError:
    return DataError(find("class_names", "stop", problem, [f"{path}:{number}"], "Correct the list of classes"))
