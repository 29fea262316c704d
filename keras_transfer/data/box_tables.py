"""Tables of boxes: a row a box (`path,x_min,y_min,x_max,y_max,label`), or a row an image with lists of them (JSONL)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_transfer.data import boxes, tables
from keras_transfer.data.boxes import Box, BoxedImage
from keras_transfer.data.findings import Raw, Severity
from keras_transfer.data.picture_faults import PictureFaults
from keras_transfer.data.table_records import group_of, label_text, table_in
from keras_transfer.recipe import DataSpec


@dataclass
class _Rows:
    """What the rows say of one image."""

    where: str
    group: str
    boxes: list[Box] = field(default_factory=list)
    faulty: bool = False


def load(root: Path, sections: Mapping[str, Path], spec: DataSpec, severity: Severity) -> Raw:
    """The records of tables of boxes; a row whose numbers and label are all empty is an image without boxes.

    Args:
        root: ids are paths relative to it.
        sections: table, or folder with one, by split name.
        spec: names the columns.
        severity: of a row or an image that is left out.

    Raises:
        DataError: a file cannot be read as a table, or has not the columns.
    """
    raw, faults = Raw(), PictureFaults()
    for name, place in sections.items():
        path = place if place.is_file() else table_in(place, spec)
        table = tables.read(path, severity)
        tables.require(path, table.columns, "object_detection", spec)
        raw.findings += table.faults
        rows = _by_image(path, table, spec, faults)
        images = [
            BoxedImage(boxes.id_of(image, root.absolute()), image, of.boxes, of.where, group=of.group)
            for image, of in rows.items()
            if not of.faulty
        ]
        raw[name] = boxes.records(images, None, faults)
    raw.findings += faults.findings(severity)
    return raw


def _by_image(path: Path, table: tables.Table, spec: DataSpec, faults: PictureFaults) -> dict[Path, _Rows]:
    """The rows of each image, in the order of their first."""
    column = tables.resolve(table.columns, spec.path_column) or spec.path_column
    group = tables.resolve(table.columns, spec.group_column)
    listed = tables.resolve(table.columns, "boxes")
    found: dict[Path, _Rows] = {}
    for line, row in table.rows:
        where = f"{path}:{line}"
        name = row.get(column)
        if not isinstance(name, str) or not name.strip():
            faults.add("missing_file", where, "a row without a path")
            continue
        # An absolute path stays as it is.
        image = (path.parent / Path(name.strip()).expanduser()).absolute()
        of = found.setdefault(image, _Rows(where, group_of(row, group)))
        made = _listed(where, row, row.get(listed), spec, faults) if listed else _one(where, row, table, spec, faults)
        if made is None:
            of.faulty = True
        else:
            of.boxes += made
    return found


def _one(
    where: str, row: Mapping[str, Any], table: tables.Table, spec: DataSpec, faults: PictureFaults
) -> list[Box] | None:
    """The box of a row; None, noted, where it is at fault."""
    columns = [tables.resolve(table.columns, name) or name for name in tables.BOX_COLUMNS]
    values = [row.get(name) for name in columns]
    label = label_text(row.get(tables.resolve(table.columns, spec.label_column) or spec.label_column))
    if label is None and all(value is None or value == "" for value in values):
        return []
    return _box(where, dict(zip(tables.BOX_COLUMNS, values, strict=True)), label, faults)


def _box(where: str, values: Mapping[str, Any], label: str | None, faults: PictureFaults) -> list[Box] | None:
    written = ", ".join(f"{name} {'(empty)' if value in (None, '') else value}" for name, value in values.items())
    corners = boxes.numbers([value.strip() if isinstance(value, str) else value for value in values.values()])
    if corners is None:
        faults.add("box_not_numeric", where, written)
        return None
    if label is None:
        faults.add("unlabelled", where, written)
        return None
    x_min, y_min, x_max, y_max = corners
    return [Box((x_min, y_min, x_max, y_max), label, where, written)]


def _listed(where: str, row: Mapping[str, Any], value: Any, spec: DataSpec, faults: PictureFaults) -> list[Box] | None:
    """The boxes of a row that lists them: numbers, with `labels` beside them; or objects with a label each."""
    labels = row.get("labels")
    if value is None:
        return []
    if not isinstance(value, list) or (labels is not None and not isinstance(labels, list)):
        faults.add(
            "box_not_numeric", where, f"boxes: expected a list of [x_min, y_min, x_max, y_max]. Received: {value!r:.60}"
        )
        return None
    if labels is not None and len(labels) != len(value):
        faults.add("unlabelled", where, f"{len(value)} boxes, {len(labels)} labels")
        return None
    made: list[Box] = []
    faulty = False
    for number, entry in enumerate(value):
        at = f"{where} (boxes[{number}])"
        label = label_text(labels[number]) if labels is not None else None
        if isinstance(entry, dict):
            label = label if label is not None else label_text(entry.get(spec.label_column))
            entry = (
                entry["box"] if isinstance(entry.get("box"), list) else [entry.get(name) for name in tables.BOX_COLUMNS]
            )
        elif label is None and spec.label_column in row:
            label = label_text(row[spec.label_column])
        if not isinstance(entry, list) or len(entry) != 4:
            faults.add("box_not_numeric", at, f"expected [x_min, y_min, x_max, y_max]. Received: {entry!r:.60}")
            faulty = True
            continue
        box = _box(at, dict(zip(tables.BOX_COLUMNS, entry, strict=True)), label, faults)
        faulty = faulty or box is None
        made += box or []
    return None if faulty else made
