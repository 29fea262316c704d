"""DecodedImages: what is kept is what is loaded, number by number; resuming, keys, when it pays, what the log says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import draw_photo

from keras_transfer import caching, decoded_images
from keras_transfer.data.pipeline import evaluation_batches, training_batches
from keras_transfer.decoded_images import Estimate
from keras_transfer.feature_store import CacheTooLarge, Store
from keras_transfer.progress import Log
from keras_transfer.recipe import DataSpec, Phase, Recipe
from keras_transfer.tasks.base import Examples
from keras_transfer.vision import images

COUNT, SIZE = 11, 32


def photos(folder: Path, key: str = "k", loads: list[int] | None = None, targets: bool = True) -> Examples:
    """JPEG photos with flips as augmentation; `loads` gets the number of each photo that is decoded."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(folder / f"{number}.jpg") for number in range(COUNT)]
    for number, name in enumerate(names):
        if not os.path.exists(name):
            draw_photo(number % 2, 2, 80 + number, number).save(name)
    paths, labels = tf.constant(names), np.arange(COUNT, dtype=np.int32) % 2

    def count(index):
        if loads is not None:
            loads.append(int(index))
        return index

    def load(index):
        index = tf.ensure_shape(tf.numpy_function(count, [index], tf.int64, stateful=True), [])
        pixels = images.load(tf.io.read_file(paths[index]), SIZE, "crop")
        return {"pixels": pixels}, {"label": tf.constant(labels)[index]}

    def augment(inputs, targets, seed):
        noise = tf.random.stateless_normal([SIZE, SIZE, 3], seed)
        return {"pixels": inputs["pixels"] + noise}, targets

    return Examples(
        ids=names,
        load=load,
        meta=[{}] * COUNT,
        targets={"label": labels} if targets else None,
        key=key,
        augment=augment,
    )


@pytest.mark.parametrize("targets", [True, False])
def test_batches_are_the_same_number_by_number_and_nothing_is_decoded_again(tmp_path, targets):
    loads: list[int] = []
    live = photos(tmp_path / "photos", loads=loads, targets=targets)
    kept = decoded_images.keep(live, directory=tmp_path / "features")
    assert sorted(loads) == list(range(COUNT)), "one pass"
    expected = [list(training_batches(live, 4, 1).dataset.take(7)), list(evaluation_batches(live, 4).dataset)]
    loads.clear()
    found = [list(training_batches(kept, 4, 1).dataset.take(7)), list(evaluation_batches(kept, 4).dataset)]
    assert not loads
    for one, other in zip(sum(expected, []), sum(found, []), strict=True):
        tf.nest.assert_same_structure(one, other)
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.shape == b.shape and a.dtype == b.dtype
    (row,) = Store(tmp_path / "features").rows()
    assert row["complete"] and row["examples"] == COUNT


def test_a_later_run_decodes_nothing(tmp_path):
    loads: list[int] = []
    live = photos(tmp_path / "photos", loads=loads)
    assert decoded_images.open_complete(live, directory=tmp_path / "features") is None
    decoded_images.keep(live, directory=tmp_path / "features")
    loads.clear()
    again = decoded_images.keep(photos(tmp_path / "photos", loads=loads), directory=tmp_path / "features")
    assert decoded_images.open_complete(live, directory=tmp_path / "features") is not None
    assert len(list(evaluation_batches(again, 4).dataset)) == 3 and not loads


KILLED = """
import os, sys
sys.path[:0] = sys.argv[2:4]
from pathlib import Path
from test_decoded_images import photos
from keras_transfer import decoded_images, feature_arrays
decoded_images.BATCH = 4
feature_arrays.SECONDS_BETWEEN_MARKS = 0.0
folder = Path(sys.argv[1])
decoded_images.keep(photos(folder / "photos"), directory=folder / "features",
                    progress=lambda done: os.kill(os.getpid(), 9) if done >= 8 else None)
"""


def test_a_pass_that_was_killed_goes_on(tmp_path):
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(here), str(here.parent)]
    assert subprocess.run(command, check=False).returncode == -9
    assert [row["complete"] for row in Store(tmp_path / "features").rows()] == [False]
    loads: list[int] = []
    live = photos(tmp_path / "photos", loads=loads)
    kept = decoded_images.keep(live, directory=tmp_path / "features")
    assert set(loads) == set(range(4, COUNT)), "the second batch was written but not yet marked"
    for one, other in zip(evaluation_batches(live, 4).dataset, evaluation_batches(kept, 4).dataset, strict=True):
        np.testing.assert_array_equal(one["inputs"]["pixels"], other["inputs"]["pixels"])


def test_keys_tell_apart_what_is_loaded():
    live = photos_without_files()
    assert decoded_images.identity(live) != decoded_images.identity(replace(live, key="other"))
    assert decoded_images.identity(live, "a") == decoded_images.identity(live, "b"), "targets are in memory"
    loaded = replace(live, targets=None)
    assert decoded_images.identity(loaded, "a") != decoded_images.identity(loaded, "b")


def photos_without_files() -> Examples:
    def load(index):
        return {"pixels": tf.zeros([SIZE, SIZE, 3])}, {"label": tf.constant(0)}

    return Examples(ids=["a"] * COUNT, load=load, meta=[{}] * COUNT, targets={"label": np.zeros(COUNT)}, key="k")


def test_tokens_and_open_shapes_are_left_as_they_are():
    live = photos_without_files()
    assert decoded_images.why_not(live) == ""
    assert "tokens" in decoded_images.why_not(replace(live, lengths=np.ones(COUNT, np.int32)))
    assert "key" in decoded_images.why_not(replace(live, key=""))
    assert "decoded" in decoded_images.why_not(replace(live, decoded=True))

    def ragged(index):
        boxes = tf.ensure_shape(tf.zeros([1 + tf.cast(0 * index, tf.int32), 4]), [None, 4])
        return {"boxes": boxes}, {}

    assert decoded_images.measure(replace(live, load=ragged)) is None
    assert decoded_images.measure(live) is not None


def test_what_is_saved_grows_with_the_epochs():
    photo = Estimate(load=0.02, read=0.0002, bytes=6e5)
    assert photo.saved(1_000, 100, 1) < photo.saved(1_000, 100, 5)
    assert photo.saved(1_000, 0, 5) == pytest.approx(4 * 20 - 6 * 0.2 - 2)
    assert Estimate(load=0.0005, read=0.0006, bytes=1e5).saved(10_000, 0, 20) < 0


def decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **fields
) -> tuple[dict[str, Examples], Examples, list[str]]:
    """What `caching` makes of it, and what it says."""
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded_images, "SLOWEST_LOAD", 10.0)  # so few photos would not even be measured
    lines: list[str] = []
    log = Log(quiet=True)
    log.say = lambda line="", style="": lines.append(line)  # type: ignore[method-assign]
    live = photos(tmp_path / "photos")
    recipe = Recipe(name="r", data=DataSpec(source="x"), fine_tune=Phase(epochs=5), **fields)
    return caching.decoded({"train": live, "test": live}, recipe, "fine_tune", log), live, lines


def test_it_is_measured_and_said(tmp_path, monkeypatch):
    found, live, lines = decide(tmp_path, monkeypatch)
    assert found["train"] is live and "would not pay" in lines[0] and "ms to decode" in lines[0]
    monkeypatch.setattr(decoded_images, "measure", lambda examples: Estimate(1.0, 0.001, 4.0 * 3 * SIZE**2))
    found, live, lines = decide(tmp_path, monkeypatch)
    assert found["train"].load is not live.load and "decoded once and kept" in lines[0]
    assert found["test"].load is live.load, "what is read once is not kept"
    (row,) = Store().rows()
    assert row["describe"] == "r train, decoded at 0 px"
    _, _, lines = decide(tmp_path, monkeypatch)
    assert "earlier" in lines[0]


def test_cache_off_and_a_small_budget_turn_it_off(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_images, "measure", lambda examples: Estimate(1.0, 0.001, 4.0 * 3 * SIZE**2))
    found, live, lines = decide(tmp_path, monkeypatch, cache="off")
    assert found["train"].load is live.load and lines == []
    monkeypatch.setenv("KERAS_TRANSFER_CACHE_GB", "1e-6")
    found, live, lines = decide(tmp_path, monkeypatch)
    assert found["train"].load is live.load and "budget" in lines[0]


def test_a_full_disk_leaves_the_images_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_images, "measure", lambda examples: Estimate(1.0, 0.001, 4.0 * 3 * SIZE**2))

    def full(*args, **kwargs):
        raise CacheTooLarge("no space")

    monkeypatch.setattr(decoded_images, "keep", full)
    found, live, lines = decide(tmp_path, monkeypatch)
    assert found["train"].load is live.load and "no space" in lines[-1]


def test_a_measurement_is_of_loading_and_of_reading(tmp_path):
    found = decoded_images.measure(photos(tmp_path / "photos"))
    assert found.load > 0 and found.read > 0 and found.bytes == 4 * 3 * SIZE**2
