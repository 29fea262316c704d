"""Tables: CSV, TSV and JSONL files as rows with line numbers, and which task their columns are for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_transfer.data import files
from keras_transfer.data.findings import DataError, Finding, Severity, find
from keras_transfer.recipe import DataSpec

LINES = (".jsonl", ".ndjson")
ENDINGS = (".csv", ".tsv", *LINES)

BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
_FIELD_LIMIT = 1 << 30  # characters in a cell; the csv module's own 131,072 is less than a long document
_HEAD_LINES = 20


@dataclass(frozen=True)
class Table:
    """A file's rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, Any]], ...]
    """(line on which the row begins, value by column); cells of CSV are text."""
    faults: tuple[Finding, ...] = ()
    """Rows that cannot be read; they are not among `rows`."""


def columns(path: Path) -> tuple[str, ...]:
    """The columns of a table from its first lines; empty where there are none."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        if path.suffix.lower() in LINES:
            found: dict[str, None] = {}
            for _, line in zip(range(_HEAD_LINES), file, strict=False):
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    found.update(dict.fromkeys(row))
            return tuple(found)
        head = file.read(1 << 16)
    with _large_fields():
        try:
            first = next(csv.reader(io.StringIO(head, newline=""), delimiter=_delimiter(path, head)), [])
        except csv.Error:
            return ()
    return tuple(name.strip() for name in first)


def task_of(found: Sequence[str], spec: DataSpec) -> str:
    """The task that a table with these columns is for, first match; "" where none fits."""
    for task, wanted in _expected(spec):
        if all(resolve(found, name) is not None for name in wanted):
            return task
    return ""


def resolve(found: Sequence[str], wanted: str) -> str | None:
    """The column of that name; case, surrounding spaces and underscores (`xmin`) make no difference where one fits."""
    if wanted in found:
        return wanted
    near = [name for name in found if _plain(name) == _plain(wanted)]
    return near[0] if len(near) == 1 else None


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "")


def require(path: Path, found: Sequence[str], task: str, spec: DataSpec) -> None:
    """Raises `DataError` unless the columns that a task needs are there."""
    ways = [wanted for name, wanted in _expected(spec) if name == task]
    if ways and not any(all(resolve(found, name) is not None for name in wanted) for wanted in ways):
        problem, mend = _missing(path, found, [ways[-1]], spec)
        raise DataError(find("missing_column", "stop", problem, [f"{path}:1"], mend))


def why_no_task(path: Path, spec: DataSpec) -> tuple[str, str]:
    """What is wrong with a table that is for no task, and the mend."""
    found = columns(path)
    if not found:
        return f"{path}: no columns; the file is empty or no table", "The first line of a CSV names its columns"
    return _missing(path, found, [wanted for _, wanted in _expected(spec)], spec)


def _expected(spec: DataSpec) -> list[tuple[str, tuple[str, ...]]]:
    """(task, columns) in order of preference; the plainest set of a task comes last among its own."""
    path, text, label = spec.path_column, spec.text_column, spec.label_column
    return [
        ("object_detection", (path, "boxes")),
        ("object_detection", (path, *BOX_COLUMNS, label)),
        ("semantic_segmentation", (path, "mask")),
        ("image_classification", (path, label)),
        ("text_classification", (text, label)),
        ("question_answering", ("question", "context", "answers")),
    ]


def _missing(path: Path, found: Sequence[str], ways: Sequence[Sequence[str]], spec: DataSpec) -> tuple[str, str]:
    """What is wrong with the columns, and how the right ones are named."""
    nearest = max(ways, key=lambda wanted: sum(resolve(found, name) is not None for name in wanted))
    shown = ways if not any(resolve(found, name) is not None for name in nearest) else [nearest]
    expected = " or ".join(",".join(wanted) for wanted in shown)
    options = {spec.path_column: "path", spec.text_column: "text", spec.label_column: "label"}
    missing = [name for wanted in shown for name in wanted if resolve(found, name) is None]
    named = [options[name] for name in dict.fromkeys(missing) if name in options]
    flags = " ".join(f"--data.{name}_column NAME" for name in named)
    mend = f"Name the columns that the file has: {flags}" if flags else "Rename the columns in the file"
    return f"{path}: found the columns {','.join(found)}; expected {expected}", mend


def read(path: Path, severity: Severity = "stop") -> Table:
    """All rows of a table.

    Args:
        path: a file with one of `ENDINGS`, in UTF-8.
        severity: of the faults of single rows.

    Raises:
        DataError: the file is empty, is no UTF-8, or its header is broken.
    """
    text = files.read_text(path)
    if not text.strip():
        raise DataError(
            find("malformed_table", "stop", "the file is empty", [str(path)], "Write a header and rows into it")
        )
    if path.suffix.lower() in LINES:
        return _read_lines(path, text, severity)
    if path.suffix.lower() == ".tsv":
        # Some TSV is written without quoting, and then a text may begin with a quotation mark.
        quoted = _read_separated(path, text, severity, csv.QUOTE_MINIMAL)
        plain = _read_separated(path, text, severity, csv.QUOTE_NONE) if quoted.faults else quoted
        return quoted if plain.faults else plain
    return _read_separated(path, text, severity, csv.QUOTE_MINIMAL)


def _read_separated(path: Path, text: str, severity: Severity, quoting: Any) -> Table:
    """Rows of CSV or TSV."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=_delimiter(path, text), strict=True, quoting=quoting)
    header: tuple[str, ...] = ()
    rows: list[tuple[int, Mapping[str, Any]]] = []
    ragged: list[tuple[int, int]] = []
    faults: list[Finding] = []
    with _large_fields():
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                message = f"{error}: a quotation mark is not closed, or not doubled inside a quoted text"
                mend = 'Close the quotation; write " inside quotes as ""'
                faults.append(
                    find("malformed_table", "stop", f"{message}; no row after it is read", [f"{path}:{line}"], mend)
                )
                break
            if cells is None:
                break
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _header(path, line, cells)
            elif len(cells) != len(header):
                ragged.append((line, len(cells)))
            else:
                rows.append((line, dict(zip(header, cells, strict=True))))
    if ragged:
        places = [f"{path}:{line} ({count} cells)" for line, count in ragged]
        separator = {",": "a comma", ";": "a semicolon", "\t": "a tab"}[_delimiter(path, text)]
        message = f"{len(ragged)} rows have not the {len(header)} cells that the header names"
        mend = f'Put texts that contain {separator} or a line end in "quotes", and leave no cell out'
        faults.insert(0, find("malformed_table", severity, message, places, mend))
    return Table(header, tuple(rows), tuple(faults))


def _header(path: Path, line: int, cells: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns."""
    names = tuple(cell.strip() for cell in cells)
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        message = f"the header names {', '.join(twice)} more than once"
        raise DataError(find("malformed_table", "stop", message, [f"{path}:{line}"], "Give each column its own name"))
    return names


def _read_lines(path: Path, text: str, severity: Severity) -> Table:
    """Rows of JSONL."""
    found: dict[str, None] = {}
    rows: list[tuple[int, Mapping[str, Any]]] = []
    broken: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            broken.append(f"{path}:{number} ({error})")
            continue
        if not isinstance(row, dict):
            broken.append(f"{path}:{number} (expected an object. Received: {type(row).__name__})")
            continue
        found.update(dict.fromkeys(row))
        rows.append((number, row))
    faults: tuple[Finding, ...] = ()
    if broken:
        mend = 'Write one JSON object a line, such as {"text": "…", "label": "…"}'
        faults = (find("malformed_table", severity, f"{len(broken)} lines are no JSON objects", broken, mend),)
    return Table(tuple(found), tuple(rows), faults)


def _delimiter(path: Path, text: str) -> str:
    """A tab in .tsv; in .csv the comma, or what spreadsheets of other countries write, told by the header."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = text.lstrip("\r\n").split("\n", 1)[0]
    return next((one for one in (",", ";", "\t") if one in header), ",")


@contextmanager
def _large_fields() -> Iterator[None]:
    """Cells of any length inside; the limit is a setting of the whole process."""
    before = csv.field_size_limit(_FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)
