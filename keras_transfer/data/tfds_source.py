"""TensorFlow Datasets: `tfds:NAME` as records; encoded images are written once into the cache, texts stay in memory."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import shutil
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_transfer.data import files, squad
from keras_transfer.data.findings import DataError, Finding, Raw, find
from keras_transfer.data.records import Record
from keras_transfer.data.split_names import split_name
from keras_transfer.data.table_records import label_text
from keras_transfer.recipe import DataSpec
from keras_transfer.samples.cache import build_once, cache_folder
from keras_transfer.vision import formats

DIRECTORY_VARIABLE = "TFDS_DATA_DIR"
UNLABELLED = -1
"""The label that TensorFlow Datasets gives to examples whose label was never published."""
_INDEX = "records.jsonl"


def infer_task(name: str, spec: DataSpec) -> str:
    """The task that a data set's features are for.

    Raises:
        DataError: there is no such data set, or its features are for no task.
    """
    features = _builder(name).info.features
    found = set(features)
    if {"question", "context", "answers"} <= found:
        return "question_answering"
    if "image" in found and _label_feature(features, spec):
        return "image_classification"
    if "image" in found and "objects" in found:
        return "object_detection"
    if "image" in found and "segmentation_mask" in found:
        return "semantic_segmentation"
    if _text_features(features, spec) and _label_feature(features, spec):
        return "text_classification"
    message = f"tfds:{name}: its features are for no task: {', '.join(sorted(found))}"
    mend = "Name the columns with --data.text_column and --data.label_column, or set the task"
    raise DataError(find("unknown_form", "stop", message, mend=mend))


def load(name: str, spec: DataSpec, task: str) -> Raw:
    """The records of a data set, prepared first (downloaded) where it is not yet.

    Args:
        name: `NAME`, `NAME/CONFIG`, with `:VERSION` if wanted.
        spec: `text_column` and `label_column` name features where they are not the usual ones.
        task: `image_classification`, `text_classification` or `question_answering`.

    Returns:
        Records by split. Unlabelled splits are dropped, and so is each training example that a test split holds too:
        a published set cannot be edited. `findings` says both.

    Raises:
        DataError: it cannot be found, downloaded or read.
    """
    builder = _builder(name)
    _prepare(builder, name)
    read = {"image_classification": _images, "text_classification": _texts, "question_answering": _questions}[task]
    raw = read(builder, name, spec)
    raw.findings += _drop_unlabelled(raw, name)
    raw.findings += _drop_test_copies(raw, name)
    return raw


def _builder(name: str) -> Any:
    """The data set's builder, known to TensorFlow Datasets or prepared under TFDS_DATA_DIR."""
    os.environ.setdefault("NO_GCE_CHECK", "true")  # else Google Cloud's client waits for a server that is not there
    import tensorflow_datasets as tfds

    # Read now: the library reads the variable once, when it is imported.
    data_dir = os.environ.get(DIRECTORY_VARIABLE) or None
    try:
        return tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError:
        near = difflib.get_close_matches(
            name.split("/")[0].split(":")[0], tfds.list_builders(with_community_datasets=False), 3
        )
        hint = (
            f"Did you mean {', '.join(f'tfds:{n}' for n in near)}?"
            if near
            else "Look at the catalogue of TensorFlow Datasets"
        )
        raise DataError(find("unknown_source", "stop", f"tfds:{name}: no such data set", mend=hint)) from None
    except (ValueError, AssertionError, RuntimeError) as error:
        mend = "Correct the configuration or the version: tfds:NAME/CONFIG:VERSION"
        raise DataError(find("unknown_source", "stop", f"tfds:{name}: {_first_line(error)}", mend=mend)) from None


def _prepare(builder: Any, name: str) -> None:
    """Downloads and prepares a data set that is not there yet; one clear error where that cannot be."""
    if builder.is_prepared():
        return
    where = Path(builder.data_dir)
    mend = (
        f"Prepare it where there is a network, with `tfds build {name.split(':')[0]}`, copy the folder to {where}, "
        f"or set {DIRECTORY_VARIABLE} to the folder that holds it"
    )
    hosts = {urllib.parse.urlsplit(url).hostname or "" for url in builder.url_infos} - {""}
    if hosts and not urllib.request.getproxies() and not any(_resolves(host) for host in sorted(hosts)[:3]):
        # Asked first, since the library tries again for minutes.
        message = (
            f"tfds:{name} is not prepared, and there is no network to download it ({sorted(hosts)[0]} is not found)"
        )
        raise DataError(find("not_prepared", "stop", message, [str(where)], mend))
    needed = int(builder.info.download_size or 0) + int(builder.info.dataset_size or 0)
    existing = next(parent for parent in where.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        message = f"tfds:{name} needs {needed / 1e6:,.0f} MB; free at {existing}: {free / 1e6:,.0f} MB"
        raise DataError(
            find("disk_full", "stop", message, mend=f"Make room, or set {DIRECTORY_VARIABLE} to a larger disk")
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            builder.download_and_prepare()
    except Exception as error:  # whatever a data set's own code and the network raise
        message = f"tfds:{name} is not prepared, and preparing it failed: {type(error).__name__}: {_first_line(error)}"
        raise DataError(find("not_prepared", "stop", message, [str(where)], mend)) from error


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _splits(builder: Any, name: str) -> tuple[dict[str, str], list[Finding]]:
    """Our split name -> the data set's, and what is left out."""
    wanted: dict[str, str] = {}
    others = []
    for own in builder.info.splits:
        ours = split_name(own)
        if ours and ours not in wanted:
            wanted[ours] = own
        else:
            others.append(own)
    if not wanted:
        message = f"tfds:{name}: expected a split train, validation or test. Received: {', '.join(others) or 'none'}"
        raise DataError(find("unknown_form", "stop", message, mend="Choose another configuration: tfds:NAME/CONFIG"))
    findings = []
    if others:
        message = f"tfds:{name}: the splits {', '.join(others)} are left out"
        findings.append(
            find("split_left_out", "warn", message, mend="Nothing, unless you need them", count=len(others))
        )
    order = ("train", "validation", "test")
    return dict(sorted(wanted.items(), key=lambda item: order.index(item[0]) if item[0] in order else 3)), findings


def _label_feature(features: Any, spec: DataSpec) -> str:
    """The name of the label: the one that the recipe gives, else the only class label; "" for none."""
    if spec.label_column in features:
        return spec.label_column
    labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    return labels[0] if len(labels) == 1 else ""


def _text_features(features: Any, spec: DataSpec) -> list[str]:
    """The names of the text, or of a pair of texts."""
    if spec.text_column in features:
        return [name for name in (spec.text_column, spec.text_pair_column) if name in features]
    texts = [
        name for name, feature in features.items() if type(feature).__name__ == "Text" and "id" not in name.split("_")
    ]
    return texts if len(texts) in (1, 2) else []


def _decode_label(feature: Any, value: Any) -> str | None:
    """A label's name; None for one that was never published."""
    if getattr(feature, "names", None) is not None and hasattr(feature, "int2str"):
        return None if int(value) == UNLABELLED else feature.int2str(int(value))
    value = value.item() if hasattr(value, "item") else value
    return label_text(value.decode("utf-8") if isinstance(value, bytes) else value)


def _require(name: str, features: Any, wanted: Mapping[str, Any], task: str) -> None:
    missing = [what for what, found in wanted.items() if not found]
    if missing:
        message = f"tfds:{name}: found the features {', '.join(features)}; no {' and no '.join(missing)} for {task}"
        mend = "Name them with --data.text_column and --data.label_column, or choose another task"
        raise DataError(find("missing_column", "stop", message, mend=mend))


def _rows(builder: Any, split: str, decoders: Any = None) -> Iterator[Mapping[str, Any]]:
    """The examples of one split as NumPy values, in their own order."""
    import tensorflow_datasets as tfds

    config = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False, read_config=config)
    yield from tfds.as_numpy(dataset)


def _identity(builder: Any) -> str:
    """A folder's name for what is made of a prepared data set: another preparation has another one."""
    info = builder.info
    shards = [(n, s.num_examples, list(s.shard_lengths or ()), s.num_bytes) for n, s in sorted(info.splits.items())]
    digest = hashlib.blake2b(json.dumps(shards).encode(), digest_size=4)
    for path in sorted(Path(builder.data_dir).glob("*.json")):
        digest.update(path.read_bytes())
    return f"{info.full_name.replace('/', '-')}-{digest.hexdigest()}"


def _images(builder: Any, name: str, spec: DataSpec) -> Raw:
    """Labelled images; the encoded bytes are written as files, once."""
    features = builder.info.features
    label = _label_feature(features, spec)
    _require(name, features, {"image": "image" in features, "label": label}, "image_classification")
    wanted, findings = _splits(builder, name)
    folder = cache_folder() / "tfds" / f"{_identity(builder)}-{label}"
    build_once(folder, lambda new: _write_images(builder, wanted, label, new))
    raw = Raw({split: [] for split in wanted}, findings)
    for line in (folder / _INDEX).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        path = folder / row["file"]
        fields = {"image": str(path), "label": row["label"]}
        raw[row["split"]].append(
            Record(row["id"], fields, f"tfds:{name} {row['id']} ({path})", bytes.fromhex(row["content"]))
        )
    return raw


def _write_images(builder: Any, wanted: Mapping[str, str], label: str, folder: Path) -> None:
    """Writes the encoded images of all splits, and an index beside them."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    with (folder / _INDEX).open("w", encoding="utf-8") as index:
        for split, own in wanted.items():
            (folder / split).mkdir()
            for number, row in enumerate(_rows(builder, own, {"image": tfds.decode.SkipDecoding()})):
                data = row["image"]
                id = f"{split}/{number:06d}"
                file = id + formats.ENDINGS.get(formats.recognise(data[:132]), ("",))[0]
                (folder / file).write_bytes(data)
                content = hashlib.blake2b(data, digest_size=files.HASH_BYTES).hexdigest()
                value = _decode_label(features[label], row[label])
                line = {"split": split, "id": id, "file": file, "label": value, "content": content}
                index.write(json.dumps(line) + "\n")


def _texts(builder: Any, name: str, spec: DataSpec) -> Raw:
    """Labelled texts or pairs of texts."""
    features = builder.info.features
    label, columns = _label_feature(features, spec), _text_features(features, spec)
    _require(name, features, {"text": columns, "label": label}, "text_classification")
    wanted, findings = _splits(builder, name)
    raw = Raw(findings=findings)
    for split, own in wanted.items():
        records = raw[split] = []
        for number, row in enumerate(_rows(builder, own)):
            texts = [row[column].decode("utf-8") for column in columns]
            fields = dict(zip(("text", "text_pair"), texts, strict=False))
            fields["label"] = _decode_label(features[label], row[label])
            id = f"{split}/{number:06d}"
            records.append(Record(id, fields, f"tfds:{name} {id}", files.hash_text(*texts)))
    return raw


def _questions(builder: Any, name: str, spec: DataSpec) -> Raw:
    """Questions with their context and answers."""
    features = builder.info.features
    _require(name, features, {n: n in features for n in ("question", "context", "answers")}, "question_answering")
    wanted, findings = _splits(builder, name)
    raw, faults = Raw(findings=findings), squad.AnswerFaults()
    for split, own in wanted.items():
        records = raw[split] = []
        for number, row in enumerate(_rows(builder, own)):
            id = row["id"].decode("utf-8") if "id" in row else f"{split}/{number:06d}"
            texts = [text.decode("utf-8") for text in row["answers"]["text"]]
            answers = {"text": texts, "answer_start": [int(start) for start in row["answers"]["answer_start"]]}
            question, context = row["question"].decode("utf-8"), row["context"].decode("utf-8")
            record = squad.question_record(id, f"tfds:{name} {split} {id}", question, context, answers, faults)
            if record is not None:
                records.append(record)
    raw.findings += faults.findings("warn")  # a published set cannot be edited
    return raw


def _drop_unlabelled(raw: Raw, name: str) -> Iterator[Finding]:
    """Takes out examples without a label, and splits that then hold nothing."""
    for split, records in list(raw.items()):
        labelled = [record for record in records if record.fields.get("label", "") is not None]
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
