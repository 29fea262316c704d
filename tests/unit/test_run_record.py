"""Runs on disk: states are kept while training goes on, none is lost, and a run that is done keeps none."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from keras_transfer import run_record
from keras_transfer.recipe import Recipe
from keras_transfer.run_record import Run
from keras_transfer.training_loop import PhaseState


def state(epoch: int) -> PhaseState:
    weights = {"a/kernel": np.full((2, 2), epoch, np.float32)}
    return PhaseState(epoch, weights, weights, [np.float32([epoch])], [{"epoch": epoch, "loss": float("nan")}], epoch)


def kept(run: Run) -> PhaseState:
    found = run.state("fine_tune")
    assert found is not None
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_record.start(Recipe(name="tiny", runs_directory=str(tmp_path)), "image_classification", "none")


def test_a_state_is_read_as_it_was_kept(run: Run) -> None:
    run.keep_state("fine_tune", state(3), now=True)
    found = kept(run)
    assert (found.epoch, found.best_epoch, found.rows) == (3, 3, [{"epoch": 3, "loss": None}])
    np.testing.assert_array_equal(found.weights["a/kernel"], state(3).weights["a/kernel"])
    assert [value.tolist() for value in found.optimizer] == [[3.0]]
    assert run.state("head") is None


def test_training_goes_on_while_a_state_is_written_and_the_newest_is_not_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, go_on = [], threading.Event()
    savez = np.savez

    def slow(path: Path, **arrays: np.ndarray) -> None:
        written.append(threading.current_thread() is threading.main_thread())
        assert go_on.wait(30)
        savez(path, **arrays)

    monkeypatch.setattr(np, "savez", slow)
    monkeypatch.setattr(run, "_pause", -1.0)
    for epoch in (1, 2, 3):
        run.keep_state("fine_tune", state(epoch))  # would wait for ever if it wrote by itself
    go_on.set()
    run.flush_state()
    assert written == [False, True], "the first while training went on, the last at the end, none between"
    assert kept(run).epoch == 3


def test_a_state_that_cannot_be_written_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, **arrays: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    run.keep_state("fine_tune", state(1))
    with pytest.raises(OSError, match="No space left"):
        run.flush_state()


def test_states_are_not_written_all_the_time(run: Run) -> None:
    run.keep_state("fine_tune", state(1))
    run._wait()
    assert kept(run).epoch == 1
    run.keep_state("fine_tune", state(2))
    run._wait()
    assert kept(run).epoch == 1
    run.flush_state()
    assert kept(run).epoch == 2


def test_a_run_that_is_done_keeps_no_states(run: Run) -> None:
    run.keep_state("fine_tune", state(1))
    run.drop_states()
    assert not (run.path / "checkpoints").exists()
    run.flush_state()
    assert not (run.path / "checkpoints").exists()
