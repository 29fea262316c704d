"""Duplicates: the same or nearly the same example in two splits, twice in one, or with two labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from keras_transfer.data import near_duplicates
from keras_transfer.data.findings import Finding, find
from keras_transfer.data.records import Record

Parts = Mapping[str, Sequence[Record]]
Placed = tuple[str, Record]
"""(split, record)."""

_TRAINING = ("all", "train")


def check(parts: Parts) -> Iterator[Finding]:
    """Exact duplicates by content, then near duplicates among what is left."""
    by_content: dict[bytes, list[Placed]] = defaultdict(list)
    for split, records in parts.items():
        for record in records:
            if record.content:
                by_content[record.content].append((split, record))
    twins = [placed for placed in by_content.values() if len(placed) > 1]
    yield from _across(twins, "same_in_two_splits", "in both", exact=True)
    yield from _same_contexts(parts)
    yield from _within(twins)
    yield from _conflicts(twins)
    yield from _near([placed[0] for placed in by_content.values()])


def _across(groups: Sequence[Sequence[Placed]], kind: str, how: str, exact: bool) -> Iterator[Finding]:
    """Examples that two splits share. Only those of training and a test stop: the score would be worth nothing."""
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    for placed in groups:
        by_split: dict[str, Record] = {}
        for split, record in placed:
            by_split.setdefault(split, record)
        for (one, first), (other, second) in combinations(by_split.items(), 2):
            if not (one.startswith("test") and other.startswith("test")):
                shared[one, other].append(
                    f"{first.where} = {second.where}" if exact else f"{first.where} ~ {second.where}"
                )
    for (one, other), places in shared.items():
        tested = one.startswith("test") or other.startswith("test")
        stops = exact and tested and (one in _TRAINING or other in _TRAINING)
        message = f"{len(places)} examples of {one} and {other} are {how}"
        harm = _harm(one, other)
        mend = f"Remove them from one of the two ({harm}); a group column keeps what belongs together in one split"
        yield find(kind, "stop" if stops else "warn", message, places, mend)


def _harm(one: str, other: str) -> str:
    """What the overlap of two splits spoils."""
    if one.startswith("test") or other.startswith("test"):
        return "the score on the test would flatter"
    return "choices made on validation would favour what is learned by heart"


def _same_contexts(parts: Parts) -> Iterator[Finding]:
    """Other questions about the same context in training and in a test."""
    first: dict[str, str] = {}
    for name in _TRAINING:
        for record in parts.get(name, ()):
            if "context" in record.fields:
                first.setdefault(record.fields["context"], record.where)
    for split, records in parts.items():
        if not split.startswith("test") or not first:
            continue
        places = [f"{first[r.fields['context']]} = {r.where}" for r in records if r.fields.get("context") in first]
        if places:
            message = f"{len(places)} questions of {split} are about contexts that training has too"
            yield find(
                "same_context", "warn", message, places, "Split by document if the score is to hold for new ones"
            )


def _within(twins: Sequence[Sequence[Placed]]) -> Iterator[Finding]:
    """The same example twice in one split."""
    copies: dict[str, list[str]] = defaultdict(list)
    for placed in twins:
        by_split: dict[str, list[Record]] = defaultdict(list)
        for split, record in placed:
            by_split[split].append(record)
        for split, records in by_split.items():
            copies[split] += [f"{record.where} = {records[0].where}" for record in records[1:]]
    for split, places in copies.items():
        if places:
            what = "" if split == "all" else f" in {split}"
            message = f"{len(places)} examples are copies of another one{what}"
            yield find("duplicate", "warn", message, places, "Remove the copies: they weigh double")


def _conflicts(twins: Sequence[Sequence[Placed]]) -> Iterator[Finding]:
    """The same example with different labels, boxes or masks."""
    places = []
    for placed in twins:
        by_label: dict[object, Record] = {}
        for _, record in placed:
            if (label := _answer(record)) is not None:
                by_label.setdefault(label, record)
        if len(by_label) > 1:
            places.append(" = ".join(f"{record.where} ({_shown(label)})" for label, record in by_label.items()))
    if places:
        message = f"{len(places)} examples have different labels in different places"
        yield find("conflicting_labels", "warn", message, places, "Correct the labels")


def _answer(record: Record) -> object:
    """What is to be learned of an example; None where nothing is said."""
    if "boxes" in record.fields:
        pairs = zip(record.fields["labels"], record.fields["boxes"], strict=True)
        return frozenset(pairs)
    return record.target or record.fields.get("label")


def _shown(label: object) -> str:
    if isinstance(label, frozenset):
        return f"{len(label)} boxes"
    if isinstance(label, bytes):
        return f"mask {label.hex()[:8]}"
    return "|".join(map(str, label)) if isinstance(label, tuple) else str(label)


def _near(placed: Sequence[Placed]) -> Iterator[Finding]:
    """Examples that are nearly the same, each content once."""
    groups = [[placed[index] for index in group] for group in (*_near_images(placed), *_near_texts(placed))]
    yield from _across(groups, "near_duplicate_in_two_splits", "nearly the same", exact=False)
    places = []
    for group in groups:
        by_split: dict[str, list[Record]] = defaultdict(list)
        for split, record in group:
            by_split[split].append(record)
        for records in by_split.values():
            places += [f"{record.where} ~ {records[0].where}" for record in records[1:]]
    if places:
        message = f"{len(places)} examples are nearly the same as another one of their split"
        mend = "Remove them, or keep them together with a group column, so that splits share none"
        yield find("near_duplicate", "warn", message, places, mend)


def _near_images(placed: Sequence[Placed]) -> list[list[int]]:
    indices = [index for index, (_, record) in enumerate(placed) if "image" in record.fields]
    if not indices:
        return []
    from keras_transfer.data import image_scan  # TensorFlow, which texts do not need

    scan = image_scan.scan([placed[index][1] for index in indices])
    sound = np.flatnonzero([header.problem is None for header in scan.headers])
    groups = near_duplicates.group_images(scan.thumbnails[sound])
    return [[indices[sound[member]] for member in group] for group in groups]


def _near_texts(placed: Sequence[Placed]) -> list[list[int]]:
    indices = [index for index, (_, record) in enumerate(placed) if "text" in record.fields]
    texts = [f"{placed[i][1].fields['text']} / {placed[i][1].fields.get('text_pair', '')}" for i in indices]
    return [[indices[member] for member in group] for group in near_duplicates.group_texts(texts)]
