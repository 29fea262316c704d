"""Records of tables: rows of CSV, TSV and JSONL as labelled images, texts or questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_transfer.data import files, squad, tables
from keras_transfer.data.findings import Finding, Raw, Severity, find
from keras_transfer.data.records import Record
from keras_transfer.recipe import DataSpec

SEPARATOR = "|"
"""What separates the labels of one example in a column, unless `label_separator` says otherwise."""

Label = str | tuple[str, ...]


@dataclass
class _Faults:
    """Rows that are left out, by why."""

    unlabelled: list[str] = field(default_factory=list)
    not_text: list[str] = field(default_factory=list)
    no_path: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    answers: squad.AnswerFaults = field(default_factory=squad.AnswerFaults)

    def findings(self, severity: Severity, spec: DataSpec) -> list[Finding]:
        """One finding a kind."""
        skip = "--data.bad_files skip goes on without them"
        kinds = (
            (
                "unlabelled",
                self.unlabelled,
                "rows without a label",
                f"Fill in {spec.label_column!r}, or remove them; {skip}",
            ),
            ("not_text", self.not_text, "rows whose text is no text", f"Write text into the column; {skip}"),
            (
                "missing_file",
                self.no_path,
                "rows without a path",
                f"Fill in {spec.path_column!r}, or remove them; {skip}",
            ),
            (
                "missing_file",
                self.missing,
                f"{len(self.missing)} images that the table names do not exist",
                f"Paths are relative to the table's folder; correct them or restore the files; {skip}",
            ),
        )
        found = [find(kind, severity, message, places, mend) for kind, places, message, mend in kinds if places]
        return [*found, *self.answers.findings(severity)]


def load(root: Path, sections: Mapping[str, Path], task: str, spec: DataSpec, severity: Severity) -> Raw:
    """The records of tables.

    Args:
        root: the folder or file of the source; ids are `file:line` relative to it.
        sections: table, or folder with one, by split name.
        task: `image_classification`, `text_classification` or `question_answering`.
        spec: names the columns.
        severity: of a row that is left out.

    Raises:
        DataError: a file cannot be read as a table, or has not the columns.
    """
    raw, faults = Raw(), _Faults()
    labels = _Labels(spec.label_separator)
    for name, place in sections.items():
        path = place if place.is_file() else table_in(place, spec)
        table = tables.read(path, severity)
        tables.require(path, table.columns, task, spec)
        raw.findings += table.faults
        base = path.name if root.is_file() else path.relative_to(root).as_posix()
        make = {"image_classification": _images, "text_classification": _texts, "question_answering": _questions}[task]
        raw[name] = make(path, base, table, spec, labels, faults)
    raw.findings += faults.findings(severity, spec)
    return raw


def table_in(folder: Path, spec: DataSpec) -> Path:
    """The one table of a split's folder that `forms` found."""
    found = [path for path in files.entries(folder)[1] if path.suffix.lower() in tables.ENDINGS]
    return next(path for path in found if tables.task_of(tables.columns(path), spec))


class _Labels:
    """Reads labels of any type."""

    def __init__(self, separator: str):
        self._separator = SEPARATOR if separator == "auto" else separator

    def read(self, value: Any) -> Label | None:
        """A label as text, or several as a tuple; None where there is none."""
        if isinstance(value, list | tuple):
            return tuple(dict.fromkeys(text for one in value if (text := label_text(one)) is not None))
        text = label_text(value)
        if text is not None and self._separator and self._separator in text:
            return tuple(dict.fromkeys(part.strip() for part in text.split(self._separator) if part.strip()))
        return text


def label_text(value: Any) -> str | None:
    """One label of any type as text: 3 and 3.0 are `3`, a boolean `true` or `false`; None where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None if value != value else repr(value)
    return str(value)


def _labelled(
    table: tables.Table, path: Path, spec: DataSpec, labels: _Labels, faults: _Faults
) -> Sequence[tuple[int, Mapping[str, Any], Label, str]]:
    """(line, row, label, group) of the rows that have a label."""
    label_column = tables.resolve(table.columns, spec.label_column) or spec.label_column
    group_column = tables.resolve(table.columns, spec.group_column)
    read = [(line, row, labels.read(row.get(label_column))) for line, row in table.rows]
    # Where some have several, an empty cell is an example of no class.
    multi = any(isinstance(label, tuple) for _, _, label in read)
    kept = []
    for line, row, label in read:
        if label is None and not (multi and row.get(label_column) == ""):
            faults.unlabelled.append(f"{path}:{line}")
        else:
            kept.append((line, row, () if label is None else label, group_of(row, group_column)))
    return kept


def group_of(row: Mapping[str, Any], column: str | None) -> str:
    """The group of a row; "" where there is no such column."""
    value = row.get(column) if column else None
    return "" if value is None else str(value)


def _images(
    path: Path, base: str, table: tables.Table, spec: DataSpec, labels: _Labels, faults: _Faults
) -> list[Record]:
    column = tables.resolve(table.columns, spec.path_column) or spec.path_column
    rows = []
    for line, row, label, group in _labelled(table, path, spec, labels, faults):
        name = row.get(column)
        if not isinstance(name, str) or not name.strip():
            faults.no_path.append(f"{path}:{line}")
            continue
        # An absolute path stays as it is.
        rows.append((line, (path.parent / Path(name.strip()).expanduser()).absolute(), label, group))
    records = []
    hashes = files.hash_files([str(image) for _, image, _, _ in rows], "reading images")
    for (line, image, label, group), content in zip(rows, hashes, strict=True):
        if not content:
            faults.missing.append(f"{image} ({path}:{line})")
            continue
        fields = {"image": str(image), "label": label}
        records.append(Record(f"{base}:{line}", fields, str(image), content, group))
    return records


def _texts(
    path: Path, base: str, table: tables.Table, spec: DataSpec, labels: _Labels, faults: _Faults
) -> list[Record]:
    column = tables.resolve(table.columns, spec.text_column) or spec.text_column
    pair_column = tables.resolve(table.columns, spec.text_pair_column)
    records = []
    for line, row, label, group in _labelled(table, path, spec, labels, faults):
        texts = [_text(row.get(name)) for name in (column, pair_column) if name]
        written = [text for text in texts if text is not None]
        if len(written) < len(texts):
            faults.not_text.append(f"{path}:{line}")
            continue
        fields = {**dict(zip(("text", "text_pair"), written, strict=False)), "label": label}
        records.append(Record(f"{base}:{line}", fields, f"{path}:{line}", files.hash_text(*written), group))
    return records


def _text(value: Any) -> str | None:
    """A cell as text; a missing one is empty, which `checks` reports."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else None


def _questions(
    path: Path, base: str, table: tables.Table, spec: DataSpec, labels: _Labels, faults: _Faults
) -> list[Record]:
    names = {name: tables.resolve(table.columns, name) or name for name in ("question", "context", "answers", "id")}
    group_column = tables.resolve(table.columns, spec.group_column)
    records = []
    seen: set[str] = set()
    for line, row in table.rows:
        question, context = _text(row.get(names["question"])), _text(row.get(names["context"]))
        where = f"{path}:{line}"
        if question is None or context is None:
            faults.not_text.append(where)
            continue
        own = str(row.get(names["id"]) or f"{base}:{line}")
        own = own if own not in seen else f"{own} {base}:{line}"
        seen.add(own)
        group = group_of(row, group_column)
        record = squad.question_record(own, where, question, context, row.get(names["answers"]), faults.answers, group)
        if record is not None:
            records.append(record)
    return records
