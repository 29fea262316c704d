"""Record and Splits: labelled examples before any task has looked at them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Record:
    """One labelled example as its source gave it."""

    id: str
    """Unique in its source and stable: a path relative to the source, `train.csv:12`, `train/000012`."""
    fields: Mapping[str, Any]
    """By the form of the data. Images and masks are paths of files: {"image": "/a/b.jpg", "label": "cat"};
    {"image", "boxes": ((x_min, y_min, x_max, y_max), …), "labels": (…)}, in pixels of the upright image, with "crowd"
    where some boxes are neither to be found nor wrong to find, and "classes" where the source lists them;
    {"image", "mask", "classes", "pixels"}: a grey PNG of class indices at the upright image's size, 255 for what does
    not count, the names by index, and how many pixels each has;
    {"text", "text_pair"?, "label"}; {"question", "context", "answers": [{"text", "answer_start"}, …]}.
    A label is text, or a tuple of texts where an example has several."""
    where: str
    """The file, or file:line, that an error message names."""
    content: bytes = b""
    """16-byte hash of the inputs (file bytes or text), without the label: equal for exact duplicates."""
    group: str = ""
    """Examples of one group (patient, document, photo) never fall into different splits."""
    target: bytes = b""
    """16-byte hash of a target that is a file of its own (a mask)."""


def classes_of(record: Record) -> tuple[str, ...]:
    """The classes of an example: its label or labels, one a box that counts, or those that its mask has pixels of."""
    fields = record.fields
    if "boxes" in fields:
        crowd = fields.get("crowd", (False,) * len(fields["labels"]))
        return tuple(label for label, ignored in zip(fields["labels"], crowd, strict=True) if not ignored)
    if "mask" in fields:
        counts = fields.get("pixels", (1,) * len(fields["classes"]))
        return tuple(name for name, count in zip(fields["classes"], counts, strict=True) if count)
    label = fields.get("label")
    return label if isinstance(label, tuple) else () if label is None else (label,)


@dataclass(frozen=True)
class Splits:
    """The examples by purpose. No test split is ever used to choose anything."""

    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    tests: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    """`test` and further `test_*` splits (a shifted test, say), each scored apart."""

    def named(self) -> Iterator[tuple[str, tuple[Record, ...]]]:
        """Each split with its name, `train` and `validation` first."""
        yield "train", self.train
        yield "validation", self.validation
        yield from self.tests.items()

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over ids, inputs, labels and split of every example."""
        digest = hashlib.blake2b(digest_size=16)
        for name, records in self.named():
            digest.update(name.encode() + b"\0")
            digest.update(fingerprint(records).encode())
        return digest.hexdigest()


def fingerprint(records: Sequence[Record]) -> str:
    """32 hexadecimal digits over ids, inputs and labels of some examples, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        # A mask counts by its content: where it lies says nothing.
        label = {k: v for k, v in record.fields.items() if k not in ("image", "text", "context", "mask")}
        digest.update(repr((record.id, record.content, sorted(label.items()))).encode() + record.target)
    return digest.hexdigest()
