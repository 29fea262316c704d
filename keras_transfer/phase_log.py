"""Phase log: how a phase is followed: its bar, a line an epoch, its history and checkpoints, and how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import keras

from keras_transfer.progress import Log
from keras_transfer.run_record import Run
from keras_transfer.tasks.base import Task
from keras_transfer.training_loop import History, Watch


@contextlib.contextmanager
def watched(run: Run, phase: str, task: Task, log: Log) -> Iterator[Watch]:
    """Progress, history and checkpoints of one phase."""
    restored = run.state(phase)
    run.cut_history(phase, restored.epoch if restored is not None else -1)
    if restored is not None:
        log.say(f"{phase}: going on after epoch {restored.epoch}")
    with log.bar(phase, 1_000) as update:

        def progress(epoch: int, epochs: int, step: int, steps: int, loss: float) -> None:
            share = (epoch - 1 + step / steps) / epochs
            update(int(1_000 * share), f"epoch {epoch}/{epochs} loss {loss:.4f}")

        def epoch_end(row: dict[str, float]) -> None:
            run.add_history(phase, row)
            log.say(f"{phase} epoch {row['epoch']}: {_line(row, task.primary_metric)}")

        yield Watch(progress, epoch_end, lambda state: run.keep_state(phase, state), restored)


def finish(run: Run, phase: str, history: History, model: keras.Model, log: Log) -> None:
    """Says how a phase ended; a stopped one keeps the model with its best weights."""
    if history.stopped == "interrupted":
        run.flush_state()
        run.save_model(model)
        raise KeyboardInterrupt
    if history.stopped == "not a number":
        log.warn(f"{phase}: the loss is not a number; the last good weights are kept. Lower {phase}.learning_rate.")
    kept = "last" if getattr(run.recipe, phase).keep == "last" else "best"
    log.say(f"{phase}: {kept} epoch {history.best_epoch}, ended: {history.stopped}")


def _line(row: Mapping[str, float], primary: str) -> str:
    """The numbers of an epoch that a person looks at."""
    names = ("loss", f"val_{primary}", "val_loss", "seconds")
    return "  ".join(f"{name} {row[name]:.4g}" for name in names if name in row)
