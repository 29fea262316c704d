"""Sources: where labelled examples come from. Each form of data has one loader; adding one is a line in `LOADERS`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from keras_transfer.data import (
    box_tables,
    class_folders,
    coco,
    coco_masks,
    forms,
    masks,
    squad,
    table_records,
    voc,
    yolo,
)
from keras_transfer.data.findings import DataError, Raw, Severity, find
from keras_transfer.data.forms import Form
from keras_transfer.data.records import Record
from keras_transfer.recipe import DataSpec

Loader = Callable[[Form, DataSpec, str, Severity], Raw]
"""(form, spec, task, severity of an example that has to be left out) -> records by split."""


def _tfds(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    from keras_transfer.data import tfds_source  # TensorFlow, which the other forms do not need

    return tfds_source.load(spec.source.removeprefix("tfds:"), spec, task)


def _folders(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return class_folders.load(form.root, dict(form.sections), form.kind, spec, severity)


def _tables(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return table_records.load(form.root, form.sections, task, spec, severity)


def _boxes_of_tables(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return box_tables.load(form.root, form.sections, spec, severity)


def _masks_of_tables(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return masks.load_tables(form.root, form.sections, spec, severity)


def _coco(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return coco.load(form.root, form.sections, severity)


def _coco_masks(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return coco_masks.load(form.root, form.sections, severity)


def _voc(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return voc.load(form.root, form.sections, severity)


def _yolo(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return yolo.load(form.root, form.sections, severity)


def _masks(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return masks.load_folders(form.root, form.sections, spec, severity)


def _squad(form: Form, spec: DataSpec, task: str, severity: Severity) -> Raw:
    return squad.load(form.root, form.sections, severity)


LOADERS: dict[tuple[str, str], Loader] = {
    ("image_folders", "image_classification"): _folders,
    ("text_folders", "text_classification"): _folders,
    ("table", "image_classification"): _tables,
    ("table", "text_classification"): _tables,
    ("table", "question_answering"): _tables,
    ("squad", "question_answering"): _squad,
    ("tfds", "image_classification"): _tfds,
    ("tfds", "text_classification"): _tfds,
    ("tfds", "question_answering"): _tfds,
    ("coco", "object_detection"): _coco,
    ("voc", "object_detection"): _voc,
    ("yolo", "object_detection"): _yolo,
    ("table", "object_detection"): _boxes_of_tables,
    ("tfds", "object_detection"): _tfds,
    ("masks", "semantic_segmentation"): _masks,
    ("coco", "semantic_segmentation"): _coco_masks,
    ("table", "semantic_segmentation"): _masks_of_tables,
    ("tfds", "semantic_segmentation"): _tfds,
}
"""By the kind of form and the task."""


def load(spec: DataSpec, task: str = "") -> Raw:
    """All labelled examples of a source.

    Args:
        spec: `source`, the names of columns, groups, and whether faulty examples are left out (`bad_files`).
        task: what the examples are for; "" is what the form of the source says.

    Returns:
        Records by split: `train`, `validation`, `test`, `test_*`, or `all`; with `findings`, what was noticed.
        `checks` looks further.

    Raises:
        DataError: the source has no known form or not this task's, or (unless `bad_files` is `skip`) some examples
            cannot be read; its `raw` then holds the others.
    """
    form = forms.infer(spec.source, spec)
    loader = LOADERS.get((form.kind, task or form.task))
    if loader is None:
        raise _no_loader(form, spec, task or form.task)
    severity: Severity = "warn" if spec.bad_files == "skip" else "stop"
    raw = loader(form, spec, task or form.task, severity)
    for name in form.empty:
        message = f"the folder of the split {name!r} is empty; the split is made from the training examples"
        raw.findings.append(find("empty_split", "warn", message, [str(form.root / name)], "Fill or remove the folder"))
    _group(raw, form, spec)
    _unite_labels(raw)
    _number_twins(raw)
    faults = [finding for finding in raw.findings if finding.severity == "stop"]
    if faults:
        raise DataError(faults, raw)
    return raw


def from_datasets(
    datasets: Any, label_names: Sequence[str] | None = None, *, task: str = "", name: str = "dataset"
) -> tuple[str, Raw]:
    """The examples of `tf.data.Dataset`s, their images kept as PNG files in the cache; see `tensor_datasets.load`.

    Args:
        datasets: one dataset, or a mapping of split name (`train`, `validation`, `test`, `test_*`) to dataset, of
            (input, label): an image (uint8 [H, W, C] of 0-255, or float), the bytes of an image file, or a text; and
            an int, a text, or a vector of zeros and ones. Batched or not.
        label_names: the classes, for labels that are numbers or vectors.
        task: tells texts from the bytes of image files; "" looks at them.
        name: what the source is called in messages.

    Returns:
        The source's name, `python:NAME`, and records by split.
    """
    from keras_transfer.data import tensor_datasets  # TensorFlow, which the other forms do not need

    raw = tensor_datasets.load(datasets, label_names, task)
    _unite_labels(raw)
    return f"python:{name}", raw


def _no_loader(form: Form, spec: DataSpec, task: str) -> DataError:
    others = sorted({wanted for kind, wanted in LOADERS if kind == form.kind})
    message = f"{spec.source} holds data for {form.task} ({form.kind}), which cannot be read for the task {task!r}"
    mend = (
        f"Set task to {' or '.join(others)}"
        if others
        else f"Forms that can be read: {', '.join(sorted({k for k, _ in LOADERS}))}"
    )
    return DataError(find("unknown_form", "stop", message, mend=mend))


def _group(raw: Raw, form: Form, spec: DataSpec) -> None:
    """Takes each example's group from its path, where a pattern is given.

    The path is relative to the source where the file lies in it, so that names of folders above never match.
    """
    if not spec.group_pattern:
        return
    pattern = compile_pattern(spec.group_pattern)
    alone: list[str] = []
    for name, records in raw.items():
        for index, record in enumerate(records):
            path = record.id
            image = record.fields.get("image")
            if image is not None and form.kind != "tfds":
                inside = os.path.relpath(image, form.root if form.root.is_dir() else form.root.parent)
                path = image if inside.startswith("..") else inside.replace(os.sep, "/")
            match = pattern.search(path)
            if match and match.group(1):
                records[index] = replace(record, group=match.group(1))
            else:
                alone.append(path)
        raw[name] = records
    total = sum(map(len, raw.values()))
    if alone:
        none = len(alone) == total
        message = (
            f"data.group_pattern {spec.group_pattern!r} fits {'no path' if none else f'not all of the {total} paths'}"
        )
        mend = "Correct the pattern" if none else "Correct the pattern; each of these examples is a group of its own"
        raw.findings.append(find("group_pattern", "stop" if none else "warn", message, alone, mend))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A group pattern.

    Raises:
        DataError: it is no regular expression with exactly one group.
    """
    mend = "Give a regular expression with one group, such as 'patient_(\\d+)'"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(find("group_pattern", "stop", f"data.group_pattern {pattern!r}: {error}", mend=mend)) from None
    if compiled.groups != 1:
        message = f"data.group_pattern {pattern!r} has {compiled.groups} groups; expected one"
        raise DataError(find("group_pattern", "stop", message, mend=mend))
    return compiled


def _unite_labels(raw: Raw) -> None:
    """Where an example has several labels, all have a tuple of them, in every split."""
    labels = [record.fields.get("label") for records in raw.values() for record in records]
    if not any(isinstance(label, tuple) for label in labels):
        return
    for name, records in raw.items():
        raw[name] = [_with_tuple(record) for record in records]


def _with_tuple(record: Record) -> Record:
    label = record.fields["label"]
    return record if isinstance(label, tuple) else replace(record, fields={**record.fields, "label": (label,)})


def _number_twins(raw: Mapping[str, list[Record]]) -> None:
    """Makes ids unique over the splits: question ids of two files may be the same."""
    seen: set[str] = set()
    for name, records in raw.items():
        for index, record in enumerate(records):
            if record.id in seen:
                records[index] = replace(record, id=f"{name}/{record.id}")
            seen.add(records[index].id)
