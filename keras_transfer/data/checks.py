"""Checks: what is wrong with the data, by file, before anything is trained on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from keras_transfer.data import duplicates, sources
from keras_transfer.data.findings import LISTED, DataError, Finding, Raw, Severity, find
from keras_transfer.data.records import Record, Splits, classes_of
from keras_transfer.recipe import DataSpec
from keras_transfer.vision import formats
from keras_transfer.vision.headers import ImageHeader

__all__ = ["LISTED", "DataError", "Finding", "check", "check_source", "clean", "inspect", "refuse"]

Parts = Mapping[str, Sequence[Record]]
AnyParts = TypeVar("AnyParts", Raw, Splits)

IMBALANCE = 3
"""Times the smallest class that the largest may have; from there on `class_weights: auto` weighs the classes."""
TINY_PIXELS, HUGE_PIXELS = 32, 50_000_000
"""The shorter side of an image, and pixels in all. Backbones take 32 and more; more than 50 million are slow."""
TINY_CHARACTERS, HUGE_CHARACTERS = 3, 20_000
"""20,000 characters are about 5,000 tokens, ten times what most encoders read."""

_SKIP = "--data.bad_files skip goes on without them"
_DROPPED = frozenset({"unreadable_file", "empty_text"})


def check(data: Raw | Splits | Parts, spec: DataSpec, task: str = "") -> list[Finding]:
    """All that is wrong with some data.

    Args:
        data: records by split, with what `sources.load` noticed; or the splits made of them.
        spec: with `bad_files` at `skip`, examples that `clean` leaves out are warnings.
        task: may be left open; which checks apply is told by the records.

    Returns:
        Findings, those that stop a training first.
    """
    parts = dict(data.named()) if isinstance(data, Splits) else data
    parts = {name: records for name, records in parts.items() if records}
    noticed = data.findings if isinstance(data, Raw) else []
    faults = list(_example_faults(parts, _severity(spec)))
    found = [*noticed, *faults]
    if spec.bad_files == "skip":
        parts = _without(parts, faults)
    if not any(parts.values()) and not any(finding.severity == "stop" for finding in found):
        message = "expected labelled examples. Received: none that can be used"
        found.append(find("no_examples", "stop", message, mend="Add some; a table needs rows below its header"))
    found += _class_findings(parts)
    found += _alone(parts, spec)
    found += duplicates.check(parts)
    found += _size_findings(parts)
    return sorted(found, key=lambda finding: finding.severity != "stop")


def check_source(spec: DataSpec, task: str = "") -> tuple[Raw | None, list[Finding]]:
    """Reads and checks a source; what keeps it from being read is a finding too.

    Returns:
        The records (None where nothing can be read) without those that are left out, and all findings.
    """
    try:
        raw = sources.load(spec, task)
    except DataError as error:
        if error.raw is None:
            return None, list(error.findings)
        raw = error.raw
    except (OSError, ValueError) as error:
        return None, [find("unreadable_source", "stop", f"{spec.source}: {error}")]
    return check_raw(raw, spec, task)


def check_raw(raw: Raw, spec: DataSpec, task: str = "") -> tuple[Raw, list[Finding]]:
    """The same for records that are read already."""
    raw, left_out = clean(raw, spec, task)
    found = _unique([*left_out, *check(raw, spec, task)])
    return raw, sorted(found, key=lambda finding: finding.severity != "stop")


def inspect(spec: DataSpec, task: str = "") -> list[Finding]:
    """All that is wrong with a source, what keeps it from being read included; see `check_source`."""
    return check_source(spec, task)[1]


def clean(raw: Raw, spec: DataSpec, task: str = "") -> tuple[Raw, list[Finding]]:
    """The records that can be used, and what was noticed so far.

    Unreadable files and empty texts are a finding each: with `bad_files` at `skip` a warning, and they are left out;
    at `fail` they stay, and `refuse` stops for them. The findings of `raw` are handed over: the result has none.
    """
    noticed = list(raw.findings) if isinstance(raw, Raw) else []
    faults = list(_example_faults(raw, _severity(spec)))
    kept = _without(raw, faults) if spec.bad_files == "skip" else raw
    return Raw({name: list(records) for name, records in kept.items()}), [*noticed, *faults]


def refuse(findings: Iterable[Finding]) -> None:
    """Raises `DataError` with every finding that stops a training, if there is one."""
    stops = [finding for finding in findings if finding.severity == "stop"]
    if stops:
        raise DataError(_unique(stops))


def _unique(findings: Sequence[Finding]) -> list[Finding]:
    """Each finding once: records and the splits made of them show the same, though in another order."""
    return list({(finding.kind, finding.message): finding for finding in reversed(findings)}.values())[::-1]


def _severity(spec: DataSpec) -> Severity:
    return "warn" if spec.bad_files == "skip" else "stop"


def _without(parts: Parts, faults: Sequence[Finding]) -> dict[str, Sequence[Record]]:
    """The records that no finding leaves out."""
    left_out = frozenset().union(*(finding.ids for finding in faults if finding.kind in _DROPPED))
    return {name: [record for record in records if record.id not in left_out] for name, records in parts.items()}


def _all(parts: Parts) -> list[Record]:
    return [record for records in parts.values() for record in records]


def _faulty(
    kind: str, severity: Severity, message: str, faulty: Sequence[tuple[Record, str]], mend: str
) -> Iterator[Finding]:
    """One finding for all (record, what is wrong with it), or none."""
    if faulty:
        lines = tuple(f"{record.where}: {why}" if why else record.where for record, why in faulty[:LISTED])
        verb = "are left out: " if severity == "warn" else ""
        text = f"{len(faulty)} {verb}{message}"
        yield Finding(kind, severity, text, lines, len(faulty), mend, frozenset(record.id for record, _ in faulty))


def _example_faults(parts: Parts, severity: Severity) -> Iterator[Finding]:
    """Examples that cannot be used, whatever the others are."""
    records = _all(parts)
    pictured = [record for record in records if "image" in record.fields]
    if pictured:
        from keras_transfer.data import image_scan  # TensorFlow, which texts do not need

        described = image_scan.scan(pictured).headers
        bad = [(record, h.problem) for record, h in zip(pictured, described, strict=True) if h.problem]
        yield from _faulty(
            "unreadable_file", severity, "images that cannot be read", bad, f"Mend or remove the files; {_SKIP}"
        )
    empty = [(record, name) for record in records if (name := _empty_field(record))]
    yield from _faulty(
        "empty_text", severity, "examples without a text", empty, f"Fill in the texts or remove them; {_SKIP}"
    )


def _empty_field(record: Record) -> str:
    """Which text of an example is empty; "" for none. The second text of a pair may be."""
    names = [name for name in ("text", "question", "context") if name in record.fields]
    return next((f"empty {name}" for name in names if not record.fields[name].strip()), "")


def _class_findings(parts: Parts) -> Iterator[Finding]:
    """Faults of the classes."""
    training = [record for name in ("all", "train") for record in parts.get(name, ()) if _is_labelled(record)]
    yield from _similar_labels(_all(parts))
    if not training:
        return
    counts = Counter(label for record in training for label in classes_of(record))
    boxed, masked = "boxes" in training[0].fields, "mask" in training[0].fields
    multi = boxed or any(isinstance(record.fields.get("label"), tuple) for record in training)
    if boxed and not counts:
        message = f"none of the {len(training)} training images has a box"
        yield find("no_boxes", "stop", message, [r.where for r in training], "Add images with boxes")
        return
    if len(counts) < (1 if multi else 2):
        received = ", ".join(sorted(counts)) or "none"
        place = "training masks" if masked else "training examples"
        message = f"expected at least two classes in the {place}. Received: {received}"
        mend = (
            "Add images with another class; masks hold the index of each pixel's class, the background's too"
            if masked
            else "Add examples of another class: one folder for each class, or another label in the column"
        )
        yield find("too_few_classes", "stop", message, mend=mend)
    yield from _untrained(parts, counts)
    single = sorted(label for label, count in counts.items() if count == 1)
    if single:
        places = [f"{r.where} ({label})" for r in training for label in classes_of(r) if counts[label] == 1]
        message = f"{len(single)} classes have a single example"
        yield find(
            "single_example_class", "warn", message, places, "Add examples: one class cannot be learned from one"
        )
    if counts and not masked and (boxed or not multi):  # the classes of pixels are hardly ever balanced
        yield from _imbalance(counts, boxed)


def _is_labelled(record: Record) -> bool:
    return not record.fields.keys().isdisjoint(("label", "boxes", "mask"))


def _untrained(parts: Parts, counts: Mapping[str, int]) -> Iterator[Finding]:
    """Classes that other splits have and training has not, and those that are listed and nowhere."""
    untrained: dict[str, list[str]] = defaultdict(list)
    for name, records in parts.items():
        for record in records if name not in ("all", "train") else ():
            for label in dict.fromkeys(classes_of(record)):
                if label not in counts:
                    untrained[label].append(record.where)
    for label, places in untrained.items():
        message = f"the class {label!r} has no training example, but {len(places)} elsewhere"
        yield find(
            "class_without_training", "stop", message, places, "Add training examples of it, or correct its label"
        )
    listed = {name: None for record in _all(parts) for name in record.fields.get("classes", ())}
    nowhere = [name for name in listed if name not in counts and name not in untrained]
    if nowhere:
        message = f"{len(nowhere)} of the {len(listed)} classes that the data lists have no example"
        mend = "Nothing, if they are not wanted; else add examples"
        yield find("class_without_example", "warn", message, nowhere, mend)


def _imbalance(counts: Mapping[str, int], boxed: bool) -> Iterator[Finding]:
    largest, smallest = max(counts.items(), key=_by_count), min(counts.items(), key=_by_count)
    if largest[1] > IMBALANCE * smallest[1]:
        what = "boxes" if boxed else "examples"
        message = f"the classes are unbalanced: {largest[0]!r} has {largest[1]} {what}, {smallest[0]!r} {smallest[1]}"
        weighed = "" if boxed else "; class_weights auto weighs them meanwhile"
        yield find("imbalance", "warn", message, mend=f"Add examples of the rare classes{weighed}")


def _alone(parts: Parts, spec: DataSpec) -> Iterator[Finding]:
    """A single image with boxes or a mask, of which nothing can be split off."""
    if not set(parts) <= {"all", "train"} or not spec.validation_share:
        return
    records = _all(parts)
    if len(records) == 1 and not records[0].fields.keys().isdisjoint(("boxes", "mask")):
        message = "there is one image, so that none is left to validate on"
        mend = "Add images, or cut it into parts in folders train, validation and test"
        yield find("single_image", "stop", message, [records[0].where], mend)


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def _similar_labels(records: Sequence[Record]) -> Iterator[Finding]:
    """Labels that a person would call the same."""
    first: dict[str, str] = {}
    spellings: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for label in classes_of(record):
            first.setdefault(label, record.where)
            spellings[" ".join(label.casefold().split())].add(label)
    for same in spellings.values():
        if len(same) > 1:
            names = sorted(same)
            shown = ", ".join(map(repr, names))
            message = f"the labels {shown} differ only in case or spaces and count as {len(names)} classes"
            yield find(
                "similar_labels",
                "warn",
                message,
                [f"{first[n]} ({n!r})" for n in names],
                "Write them alike",
                len(names),
            )


def _size_findings(parts: Parts) -> Iterator[Finding]:
    """Inputs that are very small or very large, and images whose ending names another format."""
    records = _all(parts)
    pictured = [record for record in records if "image" in record.fields]
    if pictured:
        from keras_transfer.data import image_scan

        yield from _image_sizes(list(zip(pictured, image_scan.scan(pictured).headers, strict=True)))
    lengths = [(record, len(record.fields.get("text", record.fields.get("context")))) for record in records
               if "text" in record.fields or "context" in record.fields]  # fmt: skip
    tiny = [f"{record.where}: {length} characters" for record, length in lengths if 0 < length < TINY_CHARACTERS]
    if tiny:
        yield find(
            "tiny_input",
            "warn",
            f"{len(tiny)} texts of fewer than {TINY_CHARACTERS} characters",
            tiny,
            "Look whether they are whole",
        )
    huge = [f"{record.where}: {length:,} characters" for record, length in lengths if length > HUGE_CHARACTERS]
    if huge:
        message = (
            f"{len(huge)} texts of more than {HUGE_CHARACTERS:,} characters, of which a backbone may see only parts"
        )
        yield find("huge_input", "warn", message, huge, "Cut them into examples of their own where that makes sense")


def _image_sizes(described: Sequence[tuple[Record, ImageHeader]]) -> Iterator[Finding]:
    sound = [(record, header) for record, header in described if header.problem is None]
    tiny = [f"{r.where}: {h.width}×{h.height}" for r, h in sound if min(h.width, h.height) < TINY_PIXELS]
    if tiny:
        message = f"{len(tiny)} images with a side below {TINY_PIXELS} pixels"
        yield find("tiny_input", "warn", message, tiny, "Use larger images if there are any; these are enlarged")
    huge = [f"{r.where}: {h.width}×{h.height}" for r, h in sound if h.width * h.height > HUGE_PIXELS]
    if huge:
        message = f"{len(huge)} images of more than {HUGE_PIXELS // 1_000_000} million pixels"
        yield find(
            "huge_input", "warn", message, huge, "Shrink them once, or cut them into tiles: each epoch reads them again"
        )
    wrong = [
        f"{record.where}: {header.format}"
        for record, header in sound
        if Path(record.fields["image"]).suffix.lower() not in formats.ENDINGS.get(header.format, ())
    ]
    if wrong:
        message = f"{len(wrong)} images whose ending names another format; they are read as what they are"
        yield find("wrong_ending", "warn", message, wrong, "Rename them")
