"""TensorFlow Datasets: `tfds:NAME` as records, for every task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_transfer.data import files, squad, tfds_pictures, tfds_sets
from keras_transfer.data.findings import DataError, Finding, Raw, find
from keras_transfer.data.records import Record
from keras_transfer.recipe import DataSpec


def infer_task(name: str, spec: DataSpec) -> str:
    """The task that a data set's features are for.

    Raises:
        DataError: there is no such data set, or its features are for no task.
    """
    features = tfds_sets.open_set(name).info.features
    found = set(features)
    if {"question", "context", "answers"} <= found:
        return "question_answering"
    if "image" in found and tfds_sets.label_feature(features, spec):
        return "image_classification"
    if "image" in found and "objects" in found:
        return "object_detection"
    if "image" in found and "segmentation_mask" in found:
        return "semantic_segmentation"
    if _text_features(features, spec) and tfds_sets.label_feature(features, spec):
        return "text_classification"
    message = f"tfds:{name}: its features are for no task: {', '.join(sorted(found))}"
    mend = "Name the columns with --data.text_column and --data.label_column, or set the task"
    raise DataError(find("unknown_form", "stop", message, mend=mend))


def load(name: str, spec: DataSpec, task: str) -> Raw:
    """The records of a data set, prepared first (downloaded) where it is not yet.

    Args:
        name: `NAME`, `NAME/CONFIG`, with `:VERSION` if wanted.
        spec: `text_column` and `label_column` name features where they are not the usual ones.
        task: a key of `_READERS`.

    Returns:
        Records by split. Unlabelled splits are dropped, and so is each training example that a test split holds too:
        a published set cannot be edited. `findings` says both.

    Raises:
        DataError: it cannot be found, downloaded or read.
    """
    builder = tfds_sets.open_set(name)
    tfds_sets.prepare(builder, name)
    raw = _READERS[task](builder, name, spec)
    raw.findings += _drop_unlabelled(raw, name)
    raw.findings += _drop_test_copies(raw, name)
    return raw


def _text_features(features: Any, spec: DataSpec) -> list[str]:
    """The names of the text, or of a pair of texts."""
    if spec.text_column in features:
        return [name for name in (spec.text_column, spec.text_pair_column) if name in features]
    texts = [
        name for name, feature in features.items() if type(feature).__name__ == "Text" and "id" not in name.split("_")
    ]
    return texts if len(texts) in (1, 2) else []


def _texts(builder: Any, name: str, spec: DataSpec) -> Raw:
    """Labelled texts or pairs of texts."""
    features = builder.info.features
    label, columns = tfds_sets.label_feature(features, spec), _text_features(features, spec)
    tfds_sets.require(name, features, {"text": columns, "label": label}, "text_classification")
    wanted, findings = tfds_sets.splits_of(builder, name)
    raw = Raw(findings=findings)
    for split, own in wanted.items():
        records = raw[split] = []
        for number, row in enumerate(tfds_sets.rows(builder, own)):
            texts = [row[column].decode("utf-8") for column in columns]
            fields = dict(zip(("text", "text_pair"), texts, strict=False))
            fields["label"] = tfds_sets.decode_label(features[label], row[label])
            id = f"{split}/{number:06d}"
            records.append(Record(id, fields, f"tfds:{name} {id}", files.hash_text(*texts)))
    return raw


def _questions(builder: Any, name: str, spec: DataSpec) -> Raw:
    """Questions with their context and answers."""
    features = builder.info.features
    tfds_sets.require(
        name, features, {n: n in features for n in ("question", "context", "answers")}, "question_answering"
    )
    wanted, findings = tfds_sets.splits_of(builder, name)
    raw, faults = Raw(findings=findings), squad.AnswerFaults()
    for split, own in wanted.items():
        records = raw[split] = []
        for number, row in enumerate(tfds_sets.rows(builder, own)):
            id = row["id"].decode("utf-8") if "id" in row else f"{split}/{number:06d}"
            texts = [text.decode("utf-8") for text in row["answers"]["text"]]
            answers = {"text": texts, "answer_start": [int(start) for start in row["answers"]["answer_start"]]}
            question, context = row["question"].decode("utf-8"), row["context"].decode("utf-8")
            record = squad.question_record(id, f"tfds:{name} {split} {id}", question, context, answers, faults)
            if record is not None:
                records.append(record)
    raw.findings += faults.findings("warn")  # a published set cannot be edited
    return raw


_READERS = {
    "image_classification": tfds_pictures.labelled,
    "object_detection": tfds_pictures.boxed,
    "semantic_segmentation": tfds_pictures.masked,
    "text_classification": _texts,
    "question_answering": _questions,
}


def _drop_unlabelled(raw: Raw, name: str) -> Iterator[Finding]:
    """Takes out examples without a label, and splits that then hold nothing; also one without any box."""
    for split, records in list(raw.items()):
        labelled = [record for record in records if record.fields.get("label", "") is not None]
        if not any(record.fields.get("boxes", True) for record in labelled):
            labelled = []
        left = len(records) - len(labelled)
        if left:
            whole = "the split" if not labelled else f"{left} examples of the split"
            message = f"tfds:{name}: {whole} {split!r} has no published labels and is left out"
            yield find(
                "unlabelled",
                "warn",
                message,
                mend="Nothing; what is missing is split off the training examples",
                count=left,
            )
        raw[split] = labelled
        if not labelled:
            del raw[split]


def _drop_test_copies(raw: Raw, name: str) -> Iterator[Finding]:
    """Takes the training examples that a test split holds too out of the training examples."""
    tested = {record.content for split, records in raw.items() if split.startswith("test") for record in records}
    copies = [record for record in raw.get("train", ()) if record.content in tested]
    if copies:
        raw["train"] = [record for record in raw["train"] if record.content not in tested]
        message = (
            f"tfds:{name}: {len(copies)} training examples are also in a test split and are left out of the training"
        )
        yield find(
            "same_in_two_splits", "warn", message, [record.where for record in copies], "Nothing; the test stays honest"
        )
