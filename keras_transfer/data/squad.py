"""SQuAD: questions with their context and answers, from SQuAD 1.1 or 2.0 JSON and from columns of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_transfer.data import files
from keras_transfer.data.findings import DataError, Finding, Raw, Severity, find
from keras_transfer.data.records import Record

Answer = dict[str, Any]

_MEND_ANSWER = (
    "Copy the answer from its context as it stands there; --data.bad_files skip goes on without these questions"
)


@dataclass
class AnswerFaults:
    """What is wrong with answers, gathered over all questions."""

    outside: list[str] = field(default_factory=list)
    """Places of questions with an answer that is nowhere in its context."""
    moved: list[str] = field(default_factory=list)
    """Places of questions whose answer stands elsewhere in the context than said."""
    malformed: list[str] = field(default_factory=list)

    def findings(self, severity: Severity) -> Iterator[Finding]:
        """One finding a kind."""
        if self.malformed:
            mend = 'Write answers as [{"text": "…", "answer_start": 0}], or as the text alone; [] is no answer'
            yield find("malformed_answers", severity, "answers that cannot be read", self.malformed, mend)
        if self.outside:
            message = "questions with an answer that is not in its context"
            yield find("answer_outside_context", severity, message, self.outside, _MEND_ANSWER)
        if self.moved:
            message = "answers that stand elsewhere in their context than answer_start says; the nearest place is taken"
            mend = "Count answer_start in characters (Unicode code points), from 0, with line ends as they are"
            yield find("answer_moved", "warn", message, self.moved, mend)


def question_record(
    id: str, where: str, question: str, context: str, answers: Any, faults: AnswerFaults, group: str = ""
) -> Record | None:
    """The record of one question, or None where its answers are at fault.

    Args:
        id: the question's own id, or its place.
        where: what a message names.
        question: as asked.
        context: as given; positions count its characters.
        answers: a list of {"text", "answer_start"}, {"text": [...], "answer_start": [...]}, texts, one text, or
            either of these in JSON.
        faults: takes what is wrong.
        group: see `Record.group`.
    """
    listed = _answers(answers)
    if listed is None:
        faults.malformed.append(where)
        return None
    placed: list[Answer] = []
    for text, start in listed:
        at = _place(context, text, start)
        if at < 0:
            faults.outside.append(f"{where} ({text[:60]!r})")
            return None
        if start is not None and at != start:
            faults.moved.append(where)
        placed.append({"text": text, "answer_start": at})
    fields = {"question": question, "context": context, "answers": placed}
    return Record(id, fields, where, files.hash_text(question, context), group)


def _place(context: str, text: str, start: int | None) -> int:
    """Where an answer stands: at `start`, else the nearest place, else the first; -1 for nowhere."""
    if start is None:
        return context.find(text)
    if context.startswith(text, max(start, 0)) and start >= 0:
        return start
    after, before = context.find(text, max(start, 0)), context.rfind(text, 0, max(start, 0) + len(text))
    if after < 0 or before < 0:
        return max(after, before)
    return after if after - start < start - before else before


def _answers(value: Any) -> list[tuple[str, int | None]] | None:
    """(text, start) of each answer; None for what cannot be read."""
    if value is None:
        return []
    if isinstance(value, str):
        stripped = value.strip()
        if stripped[:1] in ("[", "{"):
            try:
                return _answers(json.loads(stripped))
            except ValueError:
                pass
        return [(value, None)] if stripped else []
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, str):
            return _answers([value])
        if not isinstance(texts, list):
            return None
        starts = starts if isinstance(starts, list) else [None] * len(texts)
        if len(starts) != len(texts):
            return None
        return _answers([{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)])
    if not isinstance(value, list):
        return None
    listed: list[tuple[str, int | None]] = []
    for one in value:
        text, start = (one.get("text"), one.get("answer_start")) if isinstance(one, Mapping) else (one, None)
        if not isinstance(text, str) or not text or not (start is None or isinstance(start, int)):
            return None
        listed.append((text, start))
    return listed


def load(root: Path, sections: Mapping[str, Path], severity: Severity) -> Raw:
    """The records of SQuAD files; a question's id is that of the file.

    Args:
        root: the folder or file of the source.
        sections: file, or folder with one, by split name.
        severity: of a question that is left out.

    Raises:
        DataError: a file is no SQuAD JSON.
    """
    raw = Raw()
    faults = AnswerFaults()
    for name, place in sections.items():
        paths = [place] if place.is_file() else [p for p in files.entries(place)[1] if p.suffix.lower() == ".json"]
        raw[name] = [record for path in paths for record in _records(path, faults)]
    raw.findings += faults.findings(severity)
    return raw


def _records(path: Path, faults: AnswerFaults) -> Iterator[Record]:
    """The questions of one file."""
    try:
        articles = json.loads(files.read_text(path))["data"]
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}"
        raise DataError(
            find("malformed_json", "stop", f"{error.msg} at column {error.colno}", [place], "Correct the file")
        ) from None
    except (KeyError, TypeError):
        raise _structure(path, 'the object has no list "data"') from None
    seen: set[str] = set()
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(_part(path, article, "paragraphs", f"data[{a}]")):
            at = f"data[{a}].paragraphs[{p}]"
            context = _part(path, paragraph, "context", at)
            for q, item in enumerate(_part(path, paragraph, "qas", at)):
                place = f"{at}.qas[{q}]"
                question = _part(path, item, "question", place)
                own = str(item.get("id") or place)
                own = own if own not in seen else f"{own} {place}"
                seen.add(own)
                answers = [] if item.get("is_impossible") else item.get("answers", [])
                record = question_record(own, f"{path}: {own}", question, context, answers, faults)
                if record is not None:
                    yield record


def _part(path: Path, item: Any, key: str, at: str) -> Any:
    """One field of the file's structure."""
    wanted = str if key in ("context", "question") else list
    if not isinstance(item, dict) or not isinstance(item.get(key), wanted):
        raise _structure(path, f"{at} has no {'text' if wanted is str else 'list'} {key!r}")
    return item[key]


def _structure(path: Path, problem: str) -> DataError:
    mend = (
        'Expected {"data": [{"paragraphs": [{"context": "…", "qas": [{"id": "…", "question": "…", "answers": […]}]}]}]}'
    )
    return DataError(find("malformed_json", "stop", problem, [str(path)], mend))
