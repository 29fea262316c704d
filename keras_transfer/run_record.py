"""Run: one training's folder, with its recipe, history, checkpoints, metrics and log.

`runs/<name>-<date>-<time>/` holds `recipe.json`, `run.json` (status, versions, data fingerprint, seconds, scores),
`labels.json`, `history.jsonl`, `log.txt` and `model.keras`; until it is done, `checkpoints/`. Files are written beside
and renamed, so that a crash leaves the older whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.labels import Labels
from keras_transfer.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from keras_transfer.training_loop import PhaseState

RUN_FORMAT = 1
SECONDS_BETWEEN_CHECKPOINTS = 20.0
LONGEST_SHARE = 0.1
"""Of the time that may go by while checkpoints are written: four times the weights, on a slow disk, take seconds."""
PACKAGES = ("keras-transfer", "tensorflow", "keras", "keras-hub", "numpy")


@dataclass
class Run:
    """One training, as its folder tells it."""

    path: Path
    recipe: Recipe
    status: str = "running"
    """`running`, `done`, `interrupted`, `failed`."""
    task: str = ""
    backbone: str = ""
    labels: Labels | None = None
    trainable: dict[str, int] = field(default_factory=dict)
    """Trained parameters by phase."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores on the test split; on validation where there is no test."""
    metrics_by_split: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    saved_model: Path | None = None
    data: dict[str, Any] = field(default_factory=dict)
    """Examples by split and the fingerprint of the data."""
    error: str = ""
    _model: Any = None
    _state: Any = None
    _saved_at: float = 0.0
    _pause: float = SECONDS_BETWEEN_CHECKPOINTS
    _writing: Future[None] | None = None

    @property
    def model(self) -> keras.Model:
        """The trained model: raw pixels 0-255 (or token dictionaries) in, logits out."""
        if self._model is None:
            import keras

            # Registers the layers that a saved model is made of.
            import keras_transfer.backbones  # noqa: F401

            self._model = keras.saving.load_model(self.path / "model.keras", compile=False)
        return self._model

    def require_model(self) -> None:
        """Raises `ValueError` where the run has no finished model."""
        if not (self.path / "model.keras").exists() or self.labels is None:
            raise ValueError(
                f"{self.path}: expected a run with a model. Received: one that is {self.status}. "
                f"Go on with it: keras-transfer fit --resume {self.path}"
            )

    def to_json(self) -> dict[str, Any]:
        """What `fit --json` prints."""
        return {
            "run": str(self.path),
            "saved_model": str(self.saved_model) if self.saved_model else None,
            "task": self.task,
            "backbone": self.backbone,
            "trainable": self.trainable,
            "metrics": self.metrics,
            "metrics_by_split": self.metrics_by_split,
            "seconds": self.seconds,
        }

    def save(self) -> None:
        """Writes `run.json`, `recipe.json` and `labels.json`."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "recipe.json", self.recipe.to_dict())
        if self.labels is not None:
            write_json(self.path / "labels.json", self.labels.to_dict())
        record = self.to_json() | {
            "format": RUN_FORMAT,
            "status": self.status,
            "error": self.error,
            "data": self.data,
            "versions": versions(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        write_json(self.path / "run.json", record)

    def save_model(self, model: keras.Model) -> None:
        """Writes `model.keras`."""
        self._model = model
        beside = self.path / ".model.tmp.keras"
        model.save(beside)
        os.replace(beside, self.path / "model.keras")

    def add_history(self, phase: str, row: Mapping[str, float]) -> None:
        """Appends one epoch to `history.jsonl`."""
        with (self.path / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"phase": phase, **finite(dict(row))}) + "\n")

    def cut_history(self, phase: str, epoch: int) -> None:
        """Drops the epochs of a phase after the given one: they are trained again."""
        rows = self.history()
        kept = [row for row in rows if row["phase"] != phase or row["epoch"] <= epoch]
        if len(kept) < len(rows):
            beside = self.path / ".history.tmp"
            beside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
            os.replace(beside, self.path / "history.jsonl")

    def history(self) -> list[dict[str, Any]]:
        """All epochs of both phases."""
        path = self.path / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def keep_state(self, phase: str, state: PhaseState, now: bool = False) -> None:
        """Keeps the state of a phase for resuming; on disk from time to time, while training goes on.

        Raises:
            OSError: the one before could not be written.
        """
        self._state = (phase, state)
        if now:
            self.flush_state()
        elif time.monotonic() - self._saved_at > self._pause and (self._writing is None or self._writing.done()):
            self._wait()
            writer = ThreadPoolExecutor(1, "checkpoint")
            self._writing, self._state = writer.submit(self._write_state, phase, state), None
            writer.shutdown(wait=False)

    def flush_state(self) -> None:
        """Writes the kept state, if there is one that is not written, and waits for one that is being written."""
        self._wait()
        if self._state is not None:
            self._write_state(*self._state)
            self._state = None

    def drop_states(self) -> None:
        """Removes the checkpoints of a run that has nothing left to resume: they take four times the weights."""
        with contextlib.suppress(OSError):  # one that could not be written is not needed any more
            self._wait()
        self._state = None
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write_state(self, phase: str, state: PhaseState) -> None:
        begun = time.monotonic()
        folder = self.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        arrays: dict[str, Any] = {f"weights/{path}": value for path, value in state.weights.items()}
        arrays |= {f"best/{path}": value for path, value in state.best.items()}
        arrays |= {f"optimizer/{number}": value for number, value in enumerate(state.optimizer)}
        mark = {"epoch": state.epoch, "rows": state.rows, "best_epoch": state.best_epoch}
        beside = folder / f".{phase}.tmp.npz"
        np.savez(beside, mark=np.frombuffer(json.dumps(finite(mark)).encode(), np.uint8), **arrays)
        os.replace(beside, folder / f"{phase}.npz")
        self._saved_at = time.monotonic()
        self._pause = max(SECONDS_BETWEEN_CHECKPOINTS, (self._saved_at - begun) / LONGEST_SHARE)

    def state(self, phase: str) -> PhaseState | None:
        """The kept state of a phase."""
        from keras_transfer.training_loop import PhaseState

        path = self.path / "checkpoints" / f"{phase}.npz"
        if not path.exists():
            return None
        with np.load(path) as file:
            mark = json.loads(file["mark"].tobytes())
            parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "best": {}, "optimizer": {}}
            for name in file.files:
                part, _, key = name.partition("/")
                if part in parts:
                    parts[part][key] = file[name]
        numbers = [parts["optimizer"][str(n)] for n in range(len(parts["optimizer"]))]
        return PhaseState(mark["epoch"], parts["weights"], parts["best"], numbers, mark["rows"], mark["best_epoch"])


def start(recipe: Recipe, task: str, backbone: str) -> Run:
    """A new run with its folder."""
    base = Path(recipe.runs_directory)
    stem = f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = base / stem, 1
    while True:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
            path = base / f"{stem}-{number}"
    run = Run(path, recipe, task=task, backbone=backbone)
    run.save()
    return run


def load(path: str | Path) -> Run:
    """The run in a folder.

    Raises:
        ValueError: no run there, or one of another format.
    """
    path = Path(path)
    try:
        record = json.loads((path / "run.json").read_text())
        recipe = Recipe.from_dict(json.loads((path / "recipe.json").read_text()))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: expected a run folder (with run.json). Received: none there. `keras-transfer runs` lists them."
        ) from None
    if record.get("format") != RUN_FORMAT:
        raise ValueError(
            f"{path}/run.json: expected format {RUN_FORMAT}. Received: {record.get('format')!r}. "
            "Read it with the release that wrote it."
        )
    labels_path = path / "labels.json"
    labels = Labels.from_dict(json.loads(labels_path.read_text())) if labels_path.exists() else None
    saved = record.get("saved_model")
    return Run(
        path,
        recipe,
        status=record["status"],
        task=record["task"],
        backbone=record["backbone"],
        labels=labels,
        trainable=record["trainable"],
        metrics=record["metrics"],
        metrics_by_split=record["metrics_by_split"],
        seconds=record["seconds"],
        saved_model=Path(saved) if saved else None,
        data=record["data"],
        error=record["error"],
    )


def load_to_resume(path: str | Path) -> Run:
    """The run in a folder, to go on with.

    Raises:
        ValueError: no run there, or one that is done.
    """
    run = load(path)
    if run.status == "done":
        raise ValueError(
            f"{run.path}: expected a run that was stopped or failed. Received: one that is done. Train anew with its "
            f"weights: keras-transfer fit SOURCE --backbone.name run:{run.path}; publish it again: keras-transfer "
            f"export {run.path}"
        )
    return run


def list_runs(directory: str | Path) -> list[Run]:
    """All runs of a folder, the newest last; what is no run is left out."""
    found = []
    for path in sorted(Path(directory).glob("*/run.json")):
        try:
            found.append(load(path.parent))
        except ValueError:
            continue
    return sorted(found, key=lambda run: (run.path / "run.json").stat().st_mtime)


def versions() -> dict[str, str]:
    """Of Python and the packages that decide a result."""
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return known


def write_json(path: Path, value: Any) -> None:
    """Writes beside and renames."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(json.dumps(finite(value), indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)


def finite(value: Any) -> Any:
    """The same without NaN and infinities (null), which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
