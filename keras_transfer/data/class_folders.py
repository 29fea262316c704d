"""Class folders: one folder of images, or of texts, for each class; the folder's name is the label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from keras_transfer.data import files
from keras_transfer.data.findings import DataError, Finding, Raw, Severity, find
from keras_transfer.data.records import Record
from keras_transfer.recipe import DataSpec
from keras_transfer.vision import formats

TEXT_ENDINGS = frozenset({".txt", ".text"})
LOOKED_AT = 200
"""Files of a class that tell its form before all are listed."""
MIXED_FROM = 1 / 3
"""From this share on, files of the other kind are a mixture and no oversight. A judgement."""

_MEND = "Keep images and texts in folders of their own, train one model on each, and leave out what belongs to no class"


@dataclass(frozen=True)
class _Listing:
    """The files of one class."""

    images: list[Path]
    texts: list[Path]
    others: list[Path]


def kind_of(folder: Path) -> str:
    """`image_folders` or `text_folders`, by the majority of endings.

    Raises:
        DataError: there are no class folders, neither images nor texts in them, or a mixture.
    """
    folders, loose = files.entries(folder)
    if not folders:
        raise DataError(
            find("unknown_form", "stop", f"{folder}: no class folders in it{_holds(loose)}", mend=_layout(folder))
        )
    return _majority(folder, {path.name: _list(islice(files.walk(path), LOOKED_AT)) for path in folders})


def _holds(loose: Sequence[Path]) -> str:
    listing = _list(loose)
    count, what = max(
        (len(listing.images), "images"), (len(listing.texts), "texts"), (len(listing.others), "other files")
    )
    return f", but {count} {what} without a label" if count else "; it is empty"


def _layout(folder: Path) -> str:
    return f"Make one folder for each class, such as {folder.name}/cat/1.jpg, or name the labels in a CSV: path,label"


def _list(paths: Iterator[Path] | Sequence[Path]) -> _Listing:
    listing = _Listing([], [], [])
    for path in paths:
        ending = path.suffix.lower()
        kind = (
            listing.images
            if ending in formats.EXTENSIONS
            else listing.texts
            if ending in TEXT_ENDINGS
            else listing.others
        )
        kind.append(path)
    return listing


def _majority(folder: Path, classes: dict[str, _Listing]) -> str:
    """Which kind the folders hold; `DataError` for none or for a mixture."""
    images = sum(len(listing.images) for listing in classes.values())
    texts = sum(len(listing.texts) for listing in classes.values())
    if not images + texts:
        message = f"{folder}: neither images nor .txt files in its {len(classes)} folders"
        raise DataError(find("unknown_form", "stop", message, mend=_layout(folder)))
    of_texts = texts > images
    # A class without any file of the majority's kind, but with others: its files are meant as examples.
    strays = [
        listing.images if of_texts else listing.texts
        for listing in classes.values()
        if (
            len(listing.images) >= max(1, len(listing.texts))
            if of_texts
            else len(listing.texts) >= max(1, len(listing.images))
        )
    ]
    if strays or min(images, texts) >= MIXED_FROM * (images + texts):
        minority = [path for listing in classes.values() for path in (listing.images if of_texts else listing.texts)]
        message = f"{folder}: images and texts are mixed: {images} images and {texts} texts"
        raise DataError(find("mixed_folders", "stop", message, [str(path) for path in minority], _MEND))
    return "text_folders" if of_texts else "image_folders"


def load(root: Path, sections: dict[str, Path], kind: str, spec: DataSpec, severity: Severity) -> Raw:
    """The records of class folders, in natural order.

    Args:
        root: ids are paths relative to it.
        sections: folder by split name.
        kind: `image_folders` or `text_folders`.
        spec: `label_separator` splits folder names where it is given.
        severity: of a file that cannot be read, and of a class without any file.
    """
    raw = Raw()
    for name, folder in sections.items():
        folders, loose = files.entries(folder)
        classes = {path.name: _list(files.walk(path)) for path in folders}
        _majority(folder, classes)
        chosen = {
            label: listing.images if kind == "image_folders" else listing.texts for label, listing in classes.items()
        }
        raw.findings += _oddities(folder, classes, loose, kind, severity)
        pairs = [(path, label) for label, paths in chosen.items() for path in paths]
        make = _image_records if kind == "image_folders" else _text_records
        records, faults = make(root, pairs, spec, severity)
        raw[name] = records
        raw.findings += faults
    return raw


def _label(folder_name: str, spec: DataSpec) -> str | tuple[str, ...]:
    """A folder's label; never several unless a separator was given."""
    if spec.label_separator in ("auto", ""):
        return folder_name
    parts = tuple(dict.fromkeys(part.strip() for part in folder_name.split(spec.label_separator)))
    return parts if len(parts) > 1 else folder_name


def _image_records(
    root: Path, pairs: Sequence[tuple[Path, str]], spec: DataSpec, severity: Severity
) -> tuple[list[Record], list[Finding]]:
    hashes = files.hash_files([str(path) for path, _ in pairs], "reading images")
    records, faults = [], []
    for (path, label), content in zip(pairs, hashes, strict=True):
        if not content:
            faults.append(str(path))
            continue
        fields = {"image": str(path.absolute()), "label": _label(label, spec)}
        records.append(Record(path.relative_to(root).as_posix(), fields, str(path), content))
    found = [find("unreadable_file", severity, "files that cannot be read", faults, SKIP)] if faults else []
    return records, found


SKIP = "Restore or remove them; --data.bad_files skip goes on without them"


def _text_records(
    root: Path, pairs: Sequence[tuple[Path, str]], spec: DataSpec, severity: Severity
) -> tuple[list[Record], list[Finding]]:
    records: list[Record] = []
    faults: dict[str, list[Finding]] = {}
    for (path, label), text in zip(
        pairs, files.in_threads(_text_or_fault, [p for p, _ in pairs], "reading texts"), strict=True
    ):
        if isinstance(text, Finding):
            faults.setdefault(text.kind, []).append(text)
            continue
        fields = {"text": text, "label": _label(label, spec)}
        records.append(Record(path.relative_to(root).as_posix(), fields, str(path), files.hash_text(text)))
    found = [
        find(kind, severity, ones[0].message, [ones_file for one in ones for ones_file in one.files], ones[0].mend)
        for kind, ones in faults.items()
    ]
    return records, found


def _text_or_fault(path: Path) -> str | Finding:
    try:
        return files.read_text(path)
    except DataError as error:
        return error.findings[0]


def _oddities(
    folder: Path, classes: dict[str, _Listing], loose: Sequence[Path], kind: str, severity: Severity
) -> Iterator[Finding]:
    """What is in the folders beside the examples."""
    wanted = "images" if kind == "image_folders" else "texts"
    odd = [
        str(path)
        for listing in classes.values()
        for path in ((listing.texts if kind == "image_folders" else listing.images) + listing.others)
    ]
    if odd:
        message = f"files among the {wanted} whose ending is of no such file; they are left out"
        yield find("odd_ending", "warn", message, odd, "Move them elsewhere, or give them the ending of what they are")
    stray = _list(loose)
    outside = [str(path) for path in (stray.images if kind == "image_folders" else stray.texts)]
    if kind == "text_folders":
        outside = [path for path in outside if not Path(path).name.lower().startswith(("readme", "licen", "classes"))]
    if outside:
        message = f"{wanted} outside of the class folders of {folder}; they are left out"
        yield find("outside_folders", "warn", message, outside, "Move each into the folder of its class")
    for label, listing in classes.items():
        if not (listing.images if kind == "image_folders" else listing.texts):
            message = f"the class {label!r} is empty: no {wanted} in its folder"
            message += "; it is left out" if severity == "warn" else ""
            mend = "Add examples to it, or remove the folder; --data.bad_files skip goes on without it"
            yield find("empty_class", severity, message, [str(folder / label)], mend)
