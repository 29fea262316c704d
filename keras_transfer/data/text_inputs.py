"""Text inputs: the texts that `predict` was pointed at."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.data import files, tables
from keras_transfer.data.findings import DataError
from keras_transfer.data.records import Record

SHOWN = 200  # characters of a line of standard input that stand for it in the answers

Inputs = list[tuple[str, Record | str]]


def text_inputs(words: Sequence[str], fields: Sequence[str], optional: Sequence[str] = ()) -> Inputs:
    """Files, folders (their .txt files, sorted), tables and `-` (standard input), in order.

    A .txt file is one text; a row of a CSV, TSV or JSONL file is one input, its columns named as `fields`; a line of
    standard input is one text, or a JSON object of `fields`.

    Args:
        words: as the command line gave them.
        fields: names of the texts of one input; the first is what a plain text fills.
        optional: further names that an input may have.

    Returns:
        The path, `path:line`, or the text from standard input; with a record of the texts, or with what is wrong.
    """
    return [found for word in words for found in _inputs(word, fields, optional)]


def _inputs(word: str, fields: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[str, Record | str]]:
    if word == "-":
        yield from _standard_input(fields, optional)
        return
    if os.path.isdir(word):
        for path in files.walk(Path(word)):
            if path.suffix.lower() == ".txt":
                yield str(path), _file(path, fields)
        return
    path = Path(word)
    if path.suffix.lower() in tables.ENDINGS:
        yield from _table(path, fields, optional)
    else:
        yield word, _file(path, fields)


def _file(path: Path, fields: Sequence[str]) -> Record | str:
    """A file as one text."""
    if len(fields) > 1:
        return f"a text file cannot hold {' and '.join(fields)}; give a CSV or JSONL file with these columns"
    try:
        text = files.read_text(path)
    except DataError as error:
        return _reason(error)
    return _record({fields[0]: text}, str(path), str(path), fields, ())


def _table(path: Path, fields: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[str, Record | str]]:
    """The rows of a table, and its faulty rows."""
    try:
        table = tables.read(path, "warn")
    except DataError as error:
        yield str(path), _reason(error)
        return
    columns = {name: column for name in (*fields, *optional) if (column := tables.resolve(table.columns, name))}
    missing = [name for name in fields if name not in columns]
    if missing:
        yield str(path), f"expected the column {', '.join(missing)}; found {', '.join(table.columns) or 'none'}"
        return
    found: list[tuple[int, str, Record | str]] = []
    for line, row in table.rows:
        where = f"{path}:{line}"
        record = _record({name: row.get(column) for name, column in columns.items()}, where, where, fields, optional)
        found.append((line, where, record))
    for fault in table.faults:
        for where in fault.files:
            number = re.search(r":(\d+)", where.removeprefix(str(path)))
            found.append((int(number[1]) if number else 0, where, f"cannot be read: {fault.kind.replace('_', ' ')}"))
    for _, where, value in sorted(found, key=lambda entry: entry[0]):
        yield where, value
    left = sum(fault.count - len(fault.files) for fault in table.faults)
    if left > 0:
        yield str(path), f"{left:,} more rows cannot be read; `keras-transfer check` says what is wrong"


def _standard_input(fields: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[str, Record | str]]:
    """One input a line."""
    for number, raw in enumerate(getattr(sys.stdin, "buffer", sys.stdin), 1):
        where = f"line {number} of standard input"
        try:
            line = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        except UnicodeDecodeError as error:
            yield where, f"byte 0x{raw[error.start]:02x} is no UTF-8"
            continue
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        values: Any = _object(line)
        if values is None and len(fields) > 1:
            yield (
                line[:SHOWN],
                f"expected a JSON object such as {json.dumps(dict.fromkeys(fields, '…'), ensure_ascii=False)}",
            )
            continue
        values = {fields[0]: line} if values is None else values
        shown = str(values.get(fields[0], line))
        yield shown[:SHOWN], _record(values, f"stdin:{number}", where, fields, optional)


def _object(line: str) -> dict[str, Any] | None:
    """A JSON object; None for any other line, which is a text."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _record(
    values: Mapping[str, Any], name: str, where: str, fields: Sequence[str], optional: Sequence[str]
) -> Record | str:
    """The texts of one input, or what is wrong with them."""
    for field in fields:
        value = values.get(field)
        if not isinstance(value, str):
            return f"expected the field {field} with a text; received {value!r}"
        if not value.strip():
            return f"the {field} is empty"
    texts = {field: values[field] for field in (*fields, *optional) if isinstance(values.get(field), str)}
    return Record(name, texts, where)


def _reason(error: DataError) -> str:
    """What is wrong, with the mend."""
    return "; ".join(f"{finding.message}. {finding.mend}".rstrip(". ") for finding in error.findings)
