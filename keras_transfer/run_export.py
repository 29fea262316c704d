"""Run export: a finished run as a new version of a TF Serving model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer import backbones, run_record
from keras_transfer.backbones import Backbone
from keras_transfer.data.records import Splits
from keras_transfer.export import publish
from keras_transfer.exported import label_files
from keras_transfer.run_record import Run
from keras_transfer.tasks import get_task
from keras_transfer.tasks.base import KnowsCertain, Task

PROBE_FILE = "probe.npz"
PROBE_EXAMPLES = 16  # real inputs on which the export must agree with the training side
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 3e-2, "mixed_float16": 1e-2}


def keep_probe(run: Run, task: Task, splits: Splits, predictions: Mapping[str, Sequence[Any]]) -> None:
    """Keeps some real requests with the training side's answers in the run, so that every export of it is verified."""
    assert run.labels is not None
    named = dict(splits.named())
    split = next((name for name in ("test", "validation", *predictions) if predictions.get(name)), None)
    if split is None:
        return
    numbers = range(len(named[split]))
    if isinstance(task, KnowsCertain):
        sure = task.certain(predictions[split], run.labels)
        numbers = [number for number in numbers if sure[number]] or numbers
    chosen = list(numbers)[:PROBE_EXAMPLES]
    records = [named[split][number] for number in chosen]
    arrays: dict[str, np.ndarray] = {}
    for name, value in task.request(records).items():
        arrays |= _packed(f"request/{name}", value)
    for name, value in task.expected([predictions[split][number] for number in chosen], run.labels).items():
        arrays |= _packed(f"expected/{name}", value)
    beside = run.path / ".probe.tmp.npz"
    np.savez(beside, **arrays)
    os.replace(beside, run.path / PROBE_FILE)


def publish_run(
    run: Run, task: Task, model: Any, backbone: Backbone | None, precision: str, directory: str | Path | None = None
) -> Path:
    """A new version, verified in a fresh process on real inputs against the training side's predictions.

    Raises:
        ValueError: the export does not answer as the training side does; nothing is published.
    """
    labels, recipe = run.labels, run.recipe
    assert labels is not None
    request, expected = _read_probe(run.path / PROBE_FILE)
    return publish(
        Path(directory or recipe.export.directory) / recipe.name,
        lambda numeric: task.serving(numeric, labels, recipe, backbone),
        model,
        extra=extra_files(run),
        probe={"serving_default": request} if request else {},
        expected={"serving_default": expected} if expected else {},
        tolerance=TOLERANCE[precision],
        require_text_ops=task.modality == "text",
    )


def publish_again(run: Run, directory: str | Path | None = None) -> Path:
    """A further version of a finished run.

    Raises:
        ValueError: the run has no model, or the export does not answer as it should.
    """
    run.require_model()
    wrapper = backbones.find_wrapper(run.model)
    backbone = backbones.from_wrapper(wrapper) if wrapper is not None else None
    return publish_run(run, get_task(run.task), run.model, backbone, run.model.dtype_policy.name, directory)


def extra_files(run: Run) -> dict[str, str]:
    """What an export carries in `assets.extra/`."""
    assert run.labels is not None
    metrics = {"metrics": run.metrics, "metrics_by_split": run.metrics_by_split, "run": run.path.name}
    return {
        "recipe.json": run.recipe.to_json(),
        **label_files(run.labels),
        "metrics.json": json.dumps(run_record.finite(metrics), indent=2),
        "LICENCE-weights.txt": f"{run.data.get('weights', '')}\n{run.data.get('licence', '')}\n",
    }


def _packed(name: str, value: Any) -> dict[str, np.ndarray]:
    """An array for `np.savez`; strings as bytes and lengths, since pickles are not read back."""
    value = np.asarray(value)
    if value.dtype.kind not in "OSU":
        return {name: value}
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in value.ravel().tolist()]
    return {
        f"{name}/bytes": np.frombuffer(b"".join(parts), np.uint8),
        f"{name}/lengths": np.array([len(part) for part in parts], np.int64).reshape(value.shape),
    }


def _read_probe(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The kept requests and answers; empty where there was no example to keep."""
    found: dict[str, dict[str, np.ndarray]] = {"request": {}, "expected": {}}
    if path.exists():
        with np.load(path) as file:
            for key in file.files:
                part, name, *kind = key.split("/")
                if not kind:
                    found[part][name] = file[key]
                elif kind == ["lengths"]:
                    lengths, data = file[key], file[f"{part}/{name}/bytes"].tobytes()
                    ends = np.cumsum(lengths.ravel())
                    texts = [data[end - size : end] for end, size in zip(ends, lengths.ravel(), strict=True)]
                    array = np.empty(len(texts), object)
                    array[:] = texts
                    found[part][name] = array.reshape(lengths.shape)
    return found["request"], found["expected"]
