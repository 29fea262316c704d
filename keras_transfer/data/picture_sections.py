"""Sections of boxes and masks: which files or folders hold each split, in the layouts of COCO, VOC and YOLO."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from keras_transfer.data import files, image_files
from keras_transfer.data.findings import DataError, find
from keras_transfer.data.split_names import split_name
from keras_transfer.vision import formats

_LOOKED_AT = 200
"""Label files that tell the form before all are read."""


def plain(stem: str) -> str:
    """A stem in lower case without COCO's additions: `instances_train2017`, `train_annotations.coco` are `train`."""
    stem = re.sub(r"^instances_|[._]annotations\.coco$", "", stem.lower())
    return re.sub(r"(?<=[a-z])_?20\d\d$", "", stem)


def inner(root: Path) -> Path:
    """The one development kit in a folder that holds nothing else: `VOCdevkit/` or what holds it; else the folder."""
    folders, loose = files.entries(root)
    if len(folders) == 1 and not loose and re.fullmatch(r"voc(devkit|20\d\d)", folders[0].name.lower()):
        return inner(folders[0])
    return root


def of_coco(folder: Path, is_coco: Callable[[Path], bool]) -> dict[str, Path]:
    """The COCO files of `annotations/` by split, or {"all": file}.

    Files of other kinds of annotation that are published beside those of objects (captions, key points) are left out.
    """
    found = [path for path in files.entries(folder)[1] if path.suffix.lower() == ".json" and is_coco(path)]
    instances = [path for path in found if path.name.lower().startswith("instances")]
    by_split = {name: path for path in instances or found if (name := split_name(plain(path.stem)))}
    if by_split:
        order = {"train": 0, "validation": 1, "test": 2}
        return dict(sorted(by_split.items(), key=lambda item: (order.get(item[0], 3), item[0])))
    return {"all": _only(folder, instances or found)}


def has_yolo_rows(loose: Sequence[Path]) -> bool:
    """Whether files are images with YOLO's rows in a .txt file of the same stem beside them."""
    images = {path.stem for path in loose if path.suffix.lower() in formats.EXTENSIONS}
    labels = [path for path in loose if path.suffix.lower() == ".txt" and path.stem in images]
    for path in labels[:_LOOKED_AT]:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            cells = file.readline(1000).split()
        if cells:  # an empty file is an image without objects
            return len(cells) == 5 and all(re.fullmatch(r"\d+(\.\d*)?(e-?\d+)?", cell, re.I) for cell in cells)
    return False


def refine(kind: str, sections: Mapping[str, Path], is_coco: Callable[[Path], bool]) -> dict[str, Path]:
    """The sections of a source, where it is of boxes or masks and its layout says more than its folders' names.

    Args:
        kind: of the form.
        sections: file or folder by split name.
        is_coco: whether a JSON file is COCO's.
    """
    if kind == "coco":
        return {name: _coco_file(place, is_coco) for name, place in sections.items()}
    if list(sections) != ["all"] or sections["all"].is_file():
        return dict(sections)
    folder = sections["all"]
    if kind == "voc":
        return _voc_lists(folder) or dict(sections)
    if kind in ("yolo", "masks"):
        return _split_images(folder) or dict(sections)
    return dict(sections)


def _coco_file(place: Path, is_coco: Callable[[Path], bool]) -> Path:
    """The one COCO file of a folder."""
    if place.is_file():
        return place
    inside = image_files.folder_named(place, "annotations")
    loose = [path for path in files.entries(place)[1] if path.suffix.lower() == ".json" and is_coco(path)]
    return _only(place, loose) if loose or inside is None else next(iter(of_coco(inside, is_coco).values()))


def _only(folder: Path, found: list[Path]) -> Path:
    if len(found) == 1:
        return found[0]
    mend = "Name one of them as the source, or name them after splits: train.json, val.json, test.json"
    raise DataError(find("ambiguous_source", "stop", f"{folder} holds several COCO files", [*map(str, found)], mend))


def _voc_lists(folder: Path) -> dict[str, Path]:
    """The lists of `ImageSets/Main`; `trainval.txt` is training where the two are not apart."""
    sets = image_files.folder_named(folder, "imagesets")
    main = image_files.folder_named(sets, "main") if sets is not None else None
    if main is None:
        return {}
    listed = {path.stem.lower(): path for path in files.entries(main)[1] if path.suffix.lower() == ".txt"}
    names = {"train": ("train", "trainval"), "validation": ("val", "validation"), "test": ("test",)}
    found = {split: next((listed[name] for name in of if name in listed), None) for split, of in names.items()}
    if found["validation"] is not None and "train" not in listed:
        found["train"] = None  # `trainval` would hold the validation images too
    return {split: path for split, path in found.items() if path is not None} if found["train"] else {}


def _split_images(folder: Path) -> dict[str, Path]:
    """`images/train`, `images/val`, … by split; {} where the images are not in such folders."""
    images = image_files.folder_named(folder, "images")
    if images is None:
        return {}
    folders, loose = files.entries(images)
    named = {name: path for path in folders if (name := split_name(path.name))}
    if "train" not in named or len(named) < len(folders) or loose:
        return {}
    order = {"train": 0, "validation": 1, "test": 2}
    return dict(sorted(named.items(), key=lambda item: (order.get(item[0], 3), item[0])))
