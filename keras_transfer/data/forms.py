"""Forms: which form a source of data has, and hence which task it is for. Nothing is read but names and headers."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from keras_transfer import samples
from keras_transfer.data import class_folders, files, picture_sections, tables
from keras_transfer.data.findings import DataError, find
from keras_transfer.data.split_names import split_name
from keras_transfer.recipe import DataSpec

EXPECTED = (
    "a folder with one folder of images or .txt files for each class; a CSV, TSV or JSONL file with columns path,label "
    "or path,x_min,y_min,x_max,y_max,label or path,mask or text,label or question,context,answers; SQuAD or COCO JSON; "
    "folders of Pascal VOC XML, of images/ with labels/ (YOLO) or with masks/; tfds:NAME; sample:NAME"
)
TASKS = {
    "image_folders": "image_classification",
    "text_folders": "text_classification",
    "squad": "question_answering",
    "coco": "object_detection",
    "voc": "object_detection",
    "yolo": "object_detection",
    "masks": "semantic_segmentation",
}
"""The task of each kind that decides it; a table's follows from its columns, a tfds set's from its features."""

_HEAD = 1 << 20


@dataclass(frozen=True)
class Form:
    """What a source is."""

    kind: str
    """`image_folders`, `text_folders`, `table`, `squad`, `coco`, `voc`, `yolo`, `masks`, `tfds`."""
    task: str
    """The task that it is for, unless the recipe says otherwise."""
    root: Path = Path()
    """The folder (or the file) of the source, a sample's included; ids are relative to it."""
    sections: Mapping[str, Path] = field(default_factory=dict)
    """File or folder by split name; `all` where the source has no splits."""
    empty: tuple[str, ...] = ()
    """Splits whose folder holds nothing."""


def infer(source: str, spec: DataSpec | None = None) -> Form:
    """The form of a source: the first that fits, in the order of `EXPECTED`'s files, then class folders.

    Args:
        source: a file, a folder, `tfds:NAME` or `sample:NAME`.
        spec: names the columns of a table that has others than `path`, `text`, `label`.

    Raises:
        DataError: no form fits, several do, or folders of images and of texts are mixed.
    """
    spec = spec or DataSpec(source=source)
    if source.startswith("tfds:"):
        from keras_transfer.data import tfds_source

        return Form("tfds", tfds_source.infer_task(source.removeprefix("tfds:"), spec), Path(source))
    root = (
        samples.data_folder(source.removeprefix("sample:"))
        if source.startswith("sample:")
        else Path(source).expanduser()
    )
    if not source or not root.exists():
        raise _unfit(f"no such file or folder. Received: {source!r}", _near(root) if source else "")
    if root.is_file():
        return _form(root, {"all": root}, spec)
    root = picture_sections.inner(root)
    if _coco_folder(root):
        return Form("coco", TASKS["coco"], root, picture_sections.of_coco(root / "annotations", _is_coco))
    form = _form(root, sections(root, spec), spec)
    return replace(form, sections=picture_sections.refine(form.kind, form.sections, _is_coco))


def sections(root: Path, spec: DataSpec) -> dict[str, Path]:
    """File or folder by split name, or {"all": root}.

    Names alone could be classes (`train`, `bus`; `valid`, `invalid`): folders are splits where `train` is among them
    and holds folders or data files or only split names stand beside it, or where all are named after splits.

    Raises:
        DataError: two names for one split.
    """
    folders, loose = files.entries(root)
    tabular = [path for path in loose if path.suffix.lower() in (*tables.ENDINGS, ".json")]
    named = [path for path in tabular if _file_split(path)]
    by_file = _by_split([path for path in named if _file_kind(path, spec)], _file_split)
    if by_file:
        # A split that alone has other columns is left to be complained about.
        return _by_split([*by_file.values(), *(p for p in named if _file_split(p) not in by_file)], _file_split)
    by_folder = _by_split(folders, lambda path: split_name(path.name))
    if "train" in by_folder:
        deeper, inside = files.entries(by_folder["train"])
        data = [path for path in inside if path.suffix.lower() in (*tables.ENDINGS, ".json", ".xml")]
        if deeper or data or len(by_folder) == len(folders):
            return by_folder
    elif by_folder and len(by_folder) == len(folders):
        return by_folder
    return {"all": root}


def _by_split(paths: Sequence[Path], name_of: Callable[[Path], str]) -> dict[str, Path]:
    """Path by split; the two spellings of a split at once are an error."""
    found: dict[str, Path] = {}
    for path in paths:
        name = name_of(path)
        if name and name in found:
            raise DataError(
                find(
                    "ambiguous_split",
                    "stop",
                    f"two {name} splits",
                    [str(found[name]), str(path)],
                    "Remove or rename one of them",
                )
            )
        if name:
            found[name] = path
    order = {"train": 0, "validation": 1, "test": 2}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], 3), files.natural_key(item[0]))))


def _file_split(path: Path) -> str:
    """As `split_name`; SQuAD's and COCO's own names (`train-v1.1.json`, `instances_val2017.json`) too."""
    stem = re.sub(r"-v\d+(\.\d+)*$", "", path.stem.lower())
    return "validation" if stem == "dev" else split_name(picture_sections.plain(stem))


def _form(root: Path, parts: dict[str, Path], spec: DataSpec) -> Form:
    """The one form that all sections have."""
    kinds: dict[str, tuple[str, str]] = {}
    empty = tuple(name for name, path in parts.items() if path.is_dir() and next(files.walk(path), None) is None)
    for name, path in parts.items():
        if name not in empty:
            kinds[name] = _file_kind(path, spec) if path.is_file() else _folder_kind(path, spec)
            if not kinds[name]:
                raise _unfit(*_why_no_file(path, spec))
    if not kinds:
        raise _unfit(f"{root} is empty")
    if len(set(kinds.values())) > 1:
        found = ", ".join(f"{name}: {kind} ({task})" for name, (kind, task) in kinds.items())
        raise _unfit(f"{root}: its splits have different forms: {found}", "Give all splits one form")
    kind, task = next(iter(kinds.values()))
    return Form(kind, task, root, {name: path for name, path in parts.items() if name not in empty}, empty)


def _file_kind(path: Path, spec: DataSpec) -> Any:
    """(kind, task) of a data file, or None."""
    ending = path.suffix.lower()
    if ending == ".json":
        kind = _json_kind(path)
        return (kind, TASKS[kind]) if kind else None
    if ending == ".xml":
        return ("voc", TASKS["voc"]) if _is_voc(path) else None
    if ending in tables.ENDINGS:
        task = tables.task_of(tables.columns(path), spec)
        return ("table", task) if task else None
    return None


def _folder_kind(folder: Path, spec: DataSpec) -> tuple[str, str]:
    """(kind, task) of a folder without splits."""
    folders, loose = files.entries(folder)
    for path in loose:
        if path.suffix.lower() == ".json" and (kind := _json_kind(path)):
            return kind, TASKS[kind]
    names = {path.name.lower(): path for path in folders}
    if _coco_folder(folder):
        return "coco", TASKS["coco"]
    xml = [path for path in loose if path.suffix.lower() == ".xml"]
    if "annotations" in names:
        xml += [path for path in files.entries(names["annotations"])[1] if path.suffix.lower() == ".xml"]
    if xml and _is_voc(xml[0]):
        return "voc", TASKS["voc"]
    if ("images" in names and "labels" in names) or picture_sections.has_yolo_rows(loose):
        return "yolo", TASKS["yolo"]
    if "images" in names and "masks" in names:
        return "masks", TASKS["masks"]
    unfit = [path for path in loose if path.suffix.lower() in tables.ENDINGS]
    fitting = {path: kind for path in unfit if (kind := _file_kind(path, spec))}
    if len(fitting) > 1:
        raise DataError(
            find(
                "ambiguous_source",
                "stop",
                f"{folder} holds several tables",
                [str(path) for path in fitting],
                "Name one of them as the source, or name them after splits: train.csv, validation.csv, test.csv",
            )
        )
    if fitting:
        return next(iter(fitting.values()))
    if unfit and not folders:
        raise _unfit(*_why_no_file(unfit[0], spec))
    kind = class_folders.kind_of(folder)
    return kind, TASKS[kind]


def _coco_folder(folder: Path) -> bool:
    """COCO's own layout: `annotations/` holds one JSON file a split."""
    inside = folder / "annotations"
    if not inside.is_dir():
        return False
    return any(p.suffix.lower() == ".json" and _is_coco(p) for p in files.entries(inside)[1])


def _is_coco(path: Path) -> bool:
    return _json_kind(path) == "coco"


def _json_kind(path: Path) -> str:
    """`squad`, `coco` or "". The keys at the start decide; only where they do not is the whole file parsed."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    if not head.lstrip().startswith("{"):
        return ""
    if re.search(r'"paragraphs"\s*:', head):
        return "squad"
    if all(re.search(rf'"{key}"\s*:', head) for key in ("images", "annotations")):
        return "coco"
    if len(head) < _HEAD:
        return ""
    try:
        keys = set(json.loads(files.read_text(path)))
    except ValueError:
        return ""
    return "coco" if {"images", "annotations"} <= keys else ""


def _is_voc(path: Path) -> bool:
    """Whether an XML file's root is VOC's."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return re.match(r"\s*(<\?.*?\?>\s*|<!.*?>\s*)*<annotation[\s>]", file.read(4096), re.DOTALL) is not None


def _why_no_file(path: Path, spec: DataSpec) -> tuple[str, str]:
    """What is wrong with a file that has no known form, and the mend."""
    ending = path.suffix.lower()
    if ending in tables.ENDINGS:
        return tables.why_no_task(path, spec)
    if ending == ".json":
        return f"{path}: neither SQuAD nor COCO JSON", "One JSON object a line is read from a file that ends in .jsonl"
    return f"{path}: not a form of data that is known", ""


def _unfit(problem: str, mend: str = "") -> DataError:
    first = mend + " " * mend.endswith("?") + ". " * (bool(mend) and not mend.endswith("?"))
    return DataError(find("unknown_form", "stop", problem, mend=f"{first}Expected {EXPECTED}"))


def _near(path: Path) -> str:
    """A hint at a name like the one that does not exist."""
    if not path.parent.is_dir():
        return ""
    names = [p.name for p in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, 1)
    return f"Did you mean {path.parent / near[0]}?" if near else ""
