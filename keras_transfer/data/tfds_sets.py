"""Prepared data sets of TensorFlow Datasets: found or downloaded, their splits, features and rows."""

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

from keras_transfer.data.findings import DataError, Finding, find
from keras_transfer.data.split_names import split_name
from keras_transfer.data.table_records import label_text
from keras_transfer.recipe import DataSpec

DIRECTORY_VARIABLE = "TFDS_DATA_DIR"
UNLABELLED = -1
"""The label that TensorFlow Datasets gives to examples whose label was never published."""


def open_set(name: str) -> Any:
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


def prepare(builder: Any, name: str) -> None:
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


def splits_of(builder: Any, name: str) -> tuple[dict[str, str], list[Finding]]:
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


def label_feature(features: Any, spec: DataSpec) -> str:
    """The name of the label: the one that the recipe gives, else the only class label; "" for none."""
    if spec.label_column in features:
        return spec.label_column
    labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    return labels[0] if len(labels) == 1 else ""


def decode_label(feature: Any, value: Any) -> str | None:
    """A label's name; None for one that was never published."""
    if getattr(feature, "names", None) is not None and hasattr(feature, "int2str"):
        return None if int(value) == UNLABELLED else feature.int2str(int(value))
    value = value.item() if hasattr(value, "item") else value
    return label_text(value.decode("utf-8") if isinstance(value, bytes) else value)


def require(name: str, features: Any, wanted: Mapping[str, Any], task: str) -> None:
    """Raises `DataError` unless the features that a task needs are there."""
    missing = [what for what, found in wanted.items() if not found]
    if missing:
        message = f"tfds:{name}: found the features {', '.join(features)}; no {' and no '.join(missing)} for {task}"
        mend = "Name them with --data.text_column and --data.label_column, or choose another task"
        raise DataError(find("missing_column", "stop", message, mend=mend))


def rows(builder: Any, split: str, decoders: Any = None) -> Iterator[Mapping[str, Any]]:
    """The examples of one split as NumPy values, in their own order."""
    import tensorflow_datasets as tfds

    from keras_transfer.data.pipeline import untuned

    config = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False, read_config=config)
    yield from tfds.as_numpy(untuned(dataset))


def identity(builder: Any) -> str:
    """A folder's name for what is made of a prepared data set: another preparation has another one."""
    info = builder.info
    shards = [(n, s.num_examples, list(s.shard_lengths or ()), s.num_bytes) for n, s in sorted(info.splits.items())]
    digest = hashlib.blake2b(json.dumps(shards).encode(), digest_size=4)
    for path in sorted(Path(builder.data_dir).glob("*.json")):
        digest.update(path.read_bytes())
    return f"{info.full_name.replace('/', '-')}-{digest.hexdigest()}"
