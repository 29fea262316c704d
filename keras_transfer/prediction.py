"""Prediction: a finished run or an exported version, as one thing that takes raw input and gives decoded answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer import backbones, exported, run_record
from keras_transfer.data.pipeline import unwrap
from keras_transfer.data.records import Record
from keras_transfer.labels import Labels
from keras_transfer.recipe import Recipe
from keras_transfer.tasks import get_task
from keras_transfer.tasks.base import Draws, ShowsFields, Task

BATCH = 32

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Servable:
    """A model with its signature `serving_default`."""

    path: Path
    task: Task
    recipe: Recipe
    labels: Labels
    call: Callable[..., Mapping[str, tf.Tensor]]

    def __call__(self, request: Mapping[str, np.ndarray]) -> Outputs:
        """Raw inputs [N] to decoded outputs, in NumPy."""
        outputs = self.call(**{name: tf.constant(value) for name, value in request.items()})
        return {name: value.numpy() for name, value in outputs.items()}


def open_model(path: str | Path) -> Servable:
    """A run folder, an exported version, or a folder of versions (the newest is taken).

    Raises:
        ValueError: neither is there.
    """
    path = Path(path)
    if (path / "run.json").exists():
        run = run_record.load(path)
        run.require_model()
        task = get_task(run.task)
        model, wrapper = run.model, backbones.find_wrapper(run.model)
        backbone = backbones.from_wrapper(wrapper) if wrapper is not None else None
        serving = task.serving(lambda inputs: model(unwrap(inputs), training=False), run.labels, run.recipe, backbone)
        return Servable(path, task, run.recipe, run.labels, serving.signatures["serving_default"])
    if not path.exists():
        raise ValueError(
            f"{path}: expected a run folder, an exported version (DIR/NAME/N) or a model base path (DIR/NAME). "
            "Received: no such path. `keras-transfer runs` lists the runs and their exports."
        )
    found = exported.describe_version(path)
    recipe, labels = Recipe.from_dict(found["recipe"]), found["labels"]
    signature = exported.load_signature(found["path"])
    return Servable(Path(found["path"]), get_task(recipe.task), recipe, labels, signature)


def outputs_of(servable: Servable, records: Sequence[Record], progress: Callable[[int], None] | None = None) -> Outputs:
    """The outputs of all records, [n, …], in batches; widths that differ between batches are padded."""
    parts = []
    for start in range(0, len(records), BATCH):
        parts.append(servable(servable.task.request(records[start : start + BATCH])))
        if progress:
            progress(min(start + BATCH, len(records)))
    return {name: _stack([part[name] for part in parts]) for name in parts[0]}


def _stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Batches as one array; the second axis is padded with the type's empty value where batches differ in it."""
    if parts[0].ndim < 2 or len({part.shape[1] for part in parts}) == 1:
        return np.concatenate(parts)
    width = max(part.shape[1] for part in parts)
    empty: Any = b"" if parts[0].dtype == object else 0
    pad = [(0, 0)] * (parts[0].ndim - 2)
    return np.concatenate(
        [np.pad(p, [(0, 0), (0, width - p.shape[1]), *pad], constant_values=empty) for p in parts]  # type: ignore[arg-type]
    )


def predict(
    servable: Servable, inputs: Sequence[tuple[str, Record | str]], draw: Path | None = None
) -> Iterator[dict[str, Any]]:
    """One row an input, in order: `input` with the answer, or with `error`; the rest goes on.

    Args:
        servable: what answers.
        inputs: the name to print, and the record to answer for, or the text of what is wrong with it.
        draw: a folder for pictures with their answers on them, made where it is not there; the row names the file in
            `drawn`. None draws nothing.

    Raises:
        ValueError: the answers of this task cannot be drawn.
    """
    drawing = _Drawing(servable.task, draw) if draw is not None else None
    shown = servable.task.shown_fields if isinstance(servable.task, ShowsFields) else ()
    for start in range(0, len(inputs), BATCH):
        chunk = inputs[start : start + BATCH]
        good = [record for _, record in chunk if isinstance(record, Record)]
        answers = iter(_answers(servable, good))
        for name, record in chunk:
            if isinstance(record, Record):
                answer = next(answers)
                drawn = {"drawn": drawing(record, answer)} if drawing is not None and "error" not in answer else {}
                yield {"input": name, **{field: record.fields[field] for field in shown}, **answer, **drawn}
            else:
                yield {"input": name, "error": record}


class _Drawing:
    """Writes each picture with its answer into one folder, named after the picture."""

    def __init__(self, task: Task, folder: Path):
        if not isinstance(task, Draws):
            raise ValueError(
                f"--draw: expected a model whose answers lie on the picture. Received: one for {task.name}."
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._task, self._folder = task, folder
        self._taken: set[Path] = set()

    def __call__(self, record: Record, answer: Mapping[str, Any]) -> str:
        """The file that was written; of several pictures of one name, the later ones are numbered."""
        stem = Path(record.fields["image"]).stem
        names = (f"{stem}{number}.png" for number in itertools.chain([""], (f"_{n}" for n in itertools.count(2))))
        path = next(path for name in names if (path := self._folder / name) not in self._taken)
        self._taken.add(path)
        self._task.draw(record, answer, path)
        return str(path)


def _answers(servable: Servable, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Answers of a batch; where the batch fails, one by one, so that one bad input spoils no other."""
    if not records:
        return []
    try:
        return servable.task.answers(servable(servable.task.request(records)), servable.labels)
    except (tf.errors.OpError, OSError) as error:
        if len(records) == 1:
            lines = str(getattr(error, "message", error)).strip().splitlines()
            reason = next((line for line in lines if line.strip()), type(error).__name__)
            return [{"error": f"cannot be read: {reason[:300]}"}]
    return [answer for record in records for answer in _answers(servable, [record])]
