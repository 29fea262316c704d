"""Splits: the examples by purpose. What a source lacks is split off by the hash of each example's content.

So exact duplicates fall together, the split needs no seed, and added examples move no other; but for a class so small
that it would be missing from a split, where one example may move.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_transfer.data.findings import DataError, find
from keras_transfer.data.records import Record, Splits, classes_of
from keras_transfer.recipe import DataSpec

SPREAD_FROM = 3
"""Different examples that a class needs to be given one in each of the three splits."""


def split(raw: Mapping[str, Sequence[Record]], spec: DataSpec, stratify: bool = True) -> Splits:
    """Train, validation and test examples.

    Args:
        raw: records by split, as `sources.load` gives them.
        spec: `validation_share` and `test_share` of the training examples are split off where there is no such split;
            `limit` keeps so many training examples.
        stratify: guards each class: at least one training example, and with at least three different ones also one
            for each split that is split off. Examples with several labels, or none, count as one class; an image with
            boxes or a mask is of each class that is on it.

    Raises:
        DataError: there are no training examples, or fewer allowed than classes.
    """
    pool = list(raw.get("all", ())) + list(raw.get("train", ()))
    validation, test = list(raw.get("validation", ())), list(raw.get("test", ()))
    if not pool:
        given = ", ".join(f"{name}: {len(records)}" for name, records in raw.items()) or "nothing"
        message = f"no training examples. Received: {given}"
        raise DataError(
            find("no_training_examples", "stop", message, mend="Put examples into train/, or name no splits at all")
        )
    shares = {"test": 0.0 if test else spec.test_share, "validation": 0.0 if validation else spec.validation_share}
    parts = _assign(pool, shares, stratify)
    train = [record for record, part in zip(pool, parts, strict=True) if part == "train"]
    validation += [record for record, part in zip(pool, parts, strict=True) if part == "validation"]
    test += [record for record, part in zip(pool, parts, strict=True) if part == "test"]
    tests = {"test": test} if test else {}
    tests |= {name: list(records) for name, records in raw.items() if name.startswith("test_") and records}
    return Splits(
        tuple(_limit(train, spec.limit, stratify)),
        tuple(validation),
        {name: tuple(records) for name, records in tests.items()},
    )


def units_of(records: Sequence[Record]) -> list[str]:
    """What never falls into different splits, by name: the group, the context of questions, or the content.

    Groups that share an example are one unit.
    """
    contents = [_content_unit(record) for record in records]
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while (higher := above.get(name, name)) != name:
            above[name] = above.get(higher, higher)
            name = higher
        return name

    for record, content in zip(records, contents, strict=True):
        if record.group:
            # The lesser name is the one above, so that the order of the records makes no difference.
            first, second = sorted((top(f"a group {record.group}"), top(content)))
            above[second] = first
    return [top(content) for content in contents]


def _content_unit(record: Record) -> str:
    context = record.fields.get("context")
    if context is not None:
        return f"context {context}"
    return f"content {record.content.hex()}" if record.content else f"id {record.id}"


def class_of(record: Record) -> str:
    """The class of an example that has one; "" where it has none or may have several."""
    label = record.fields.get("label")
    return label if isinstance(label, str) else ""


def _strata(record: Record) -> tuple[str, ...]:
    """The classes that are guarded for an example."""
    if "boxes" in record.fields or "mask" in record.fields:
        return tuple(dict.fromkeys(classes_of(record))) or ("",)
    return (class_of(record),)


def position(name: str) -> float:
    """A number from 0 to below 1 that a name alone decides, spread evenly (64 bits of BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / 2**64


def _assign(pool: Sequence[Record], shares: Mapping[str, float], stratify: bool) -> list[str]:
    """The split of each record: [0, test) is test, [test, test + validation) validation, the rest train."""
    units = units_of(pool)
    at = {unit: position(unit) for unit in units}
    bound = shares["test"] + shares["validation"]
    parts = {u: "test" if p < shares["test"] else "validation" if p < bound else "train" for u, p in at.items()}
    if bound > 0:
        classes: dict[str, set[str]] = defaultdict(set)
        for record, unit in zip(pool, units, strict=True):
            for name in _strata(record) if stratify else ("",):
                classes[name].add(unit)
        _guard(parts, {name: sorted(members, key=at.__getitem__) for name, members in classes.items()}, shares)
    return [parts[unit] for unit in units]


def _guard(parts: dict[str, str], classes: Mapping[str, list[str]], shares: Mapping[str, float]) -> None:
    """Moves as few units as possible so that each class is where it has to be.

    Args:
        parts: split by unit; changed.
        classes: units of each class, by position. A unit (a group, conflicting duplicates) may be of several classes.
        shares: splits with a share above 0 are to hold each class that has enough different examples.
    """
    member_of: dict[str, list[str]] = defaultdict(list)
    for name, units in classes.items():
        for unit in units:
            member_of[unit].append(name)
    counts = {name: _counts(parts, units) for name, units in classes.items()}

    def move(unit: str, target: str) -> None:
        for name in member_of[unit]:
            counts[name][parts[unit]] -= 1
            counts[name][target] += 1
        parts[unit] = target

    def spare(unit: str) -> bool:
        """Whether every class of the unit keeps another one where it is."""
        return all(counts[name][parts[unit]] > 1 for name in member_of[unit])

    for name in sorted(classes):
        if not counts[name]["train"]:
            # The one nearest to the training examples: the first to be one of them were the shares smaller.
            move(classes[name][-1], "train")
    for target in ("test", "validation"):
        for name in sorted(classes):
            units = classes[name]
            if not shares[target] or counts[name][target] or len(units) < SPREAD_FROM:
                continue
            from_train = (unit for unit in units if parts[unit] == "train" and spare(unit))
            from_other = (unit for unit in reversed(units) if parts[unit] not in ("train", target) and spare(unit))
            chosen = next(from_train, None) or next(from_other, None)
            if chosen is not None:
                move(chosen, target)


def _counts(parts: Mapping[str, str], units: Iterable[str]) -> dict[str, int]:
    counts = {"train": 0, "validation": 0, "test": 0}
    for unit in units:
        counts[parts[unit]] += 1
    return counts


def _limit(train: list[Record], limit: int, stratify: bool) -> list[Record]:
    """The first training examples by the hash of their content, each class by its share; in their own order."""
    if not limit or len(train) <= limit:
        return train
    if stratify and any("boxes" in record.fields or "mask" in record.fields for record in train):
        return _limit_pictures(train, limit)
    classes: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(train):
        classes[class_of(record) if stratify else ""].append(index)
    if limit < len(classes):
        message = f"data.limit {limit} is less than the {len(classes)} classes of the training examples"
        raise DataError(find("limit", "stop", message, mend=f"Set data.limit to {len(classes)} or more, or 0 for all"))
    key: Callable[[int], Any] = lambda index: _limit_key(train[index])  # noqa: E731
    takes = _allot(limit, {name: len(indices) for name, indices in classes.items()})
    kept = {index for name, indices in classes.items() for index in sorted(indices, key=key)[: takes[name]]}
    return [record for index, record in enumerate(train) if index in kept]


def _limit_key(record: Record) -> tuple[float, str]:
    return position("limit " + record.content.hex()), record.id


def _limit_pictures(train: list[Record], limit: int) -> list[Record]:
    """The first images by the hash of their content such that each class is on one; in their own order."""
    ordered = sorted(train, key=_limit_key)
    missing = {name for record in train for name in classes_of(record)}
    needed: set[str] = set()
    for record in ordered:
        if missing & set(classes_of(record)):
            needed.add(record.id)
            missing -= set(classes_of(record))
    if len(needed) > limit:
        message = f"data.limit {limit} is less than the {len(needed)} images that show each class once"
        raise DataError(find("limit", "stop", message, mend=f"Set data.limit to {len(needed)} or more, or 0 for all"))
    others = [record.id for record in ordered if record.id not in needed]
    kept = needed.union(others[: limit - len(needed)])
    return [record for record in train if record.id in kept]


def _allot(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """`total` shared out by size, at least one each, the rest by largest remainder (Hamilton's method)."""
    exact = {name: total * size / sum(sizes.values()) for name, size in sizes.items()}
    takes = {name: max(1, int(share)) for name, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (exact[name] - int(exact[name]), name), reverse=True)
    while (left := total - sum(takes.values())) != 0:
        for name in by_remainder if left > 0 else reversed(by_remainder):
            if left > 0 and takes[name] < sizes[name]:
                takes[name] += 1
                left -= 1
            elif left < 0 and takes[name] > 1:
                takes[name] -= 1
                left += 1
            if not left:
                break
    return takes
