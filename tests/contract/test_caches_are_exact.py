"""Training on a cache gives the losses and the weights of training through the network: every task, every backbone.

Same views, order and seed. The heads have dropout, and the networks BatchNormalization and dropout, of which those
below the boundary must be silent and those in the head must draw the same numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_tasks import BATCH, BY_HEART, Bench, losses, set_up, values
from tiny_tasks import TINY

from keras_transfer import boundary_cache, caching, decoded_images, feature_cache, freezing, phases
from keras_transfer import recipe as recipes
from keras_transfer.caching import AtBoundary
from keras_transfer.feature_cache import CachedExamples, View
from keras_transfer.progress import Log
from keras_transfer.recipe import Phase
from keras_transfer.tasks import TASKS
from keras_transfer.training_loop import History, Watch

EPOCHS = 2
TUNE = Phase(epochs=EPOCHS, learning_rate=1e-3, trainable="last:1", dropout=0.5)
HEAD = Phase(epochs=EPOCHS, learning_rate=1e-2, dropout=0.5)
DROPOUT = {"head.dropout": 0.5, "fine_tune.dropout": 0.5}


CASES = [
    pytest.param((task, name), id=f"{task}-{name}", marks=[pytest.mark.slow] if name in tiny.slow else [])
    for task, tiny in TINY.items()
    if task in TASKS
    for name in (*tiny.backbones, *tiny.slow)
]


@pytest.fixture(scope="module", params=CASES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Each task on each kind of backbone, its head with dropout."""
    return prepared(*request.param, tmp_path_factory.mktemp("exact"))


def prepared(task: str, backbone: str, folder: Any) -> Bench:
    """As in `test_tasks`, but for dropout in the head, where the task has any."""
    found = set_up(task, backbone, folder)
    recipe = recipes.override(found.recipe, DROPOUT)
    head = found.task.build_head(found.joined.encoder.output, found.labels, recipe)
    model = keras.Model(found.joined.encoder.input, head(found.joined.encoder.output))
    found.joined = replace(found.joined, head=head, model=model)
    found.recipe, found.start = recipe, model.get_weights()
    return found


def reset(bench: Bench) -> None:
    """Weights, flags, and the seeds of dropout, which are no weights."""
    bench.reset()
    for layer in bench.joined.model._flatten_layers():
        if getattr(layer, "seed_generator", None) is not None:
            layer.seed_generator.state.assign([7, 0])


def tuned(bench: Bench, phase: Phase, at_boundary: AtBoundary | None) -> History:
    return phases.train_joined(
        bench.joined.model,
        bench.joined.backbone,
        bench.task,
        bench.labels,
        bench.recipe,
        phase,
        bench.examples["train"],
        bench.validation,
        bench.loss,
        tf.distribute.get_strategy(),
        Watch(),
        at_boundary,
    )[0]


def at_boundary(bench: Bench, phase: Phase = TUNE, views: int = 0) -> AtBoundary:
    """The parts, and what the upper one trains on."""
    joined = bench.joined
    freezing.apply(joined.backbone, phase.trainable, phase.batchnorm)
    parts = boundary_cache.cut(joined.backbone, joined.encoder, joined.head, phase)
    cached = {
        name: CachedExamples(compute(bench, parts.prefix, name, views), part, name="boundary", extras=parts.extras)
        for name, part in bench.examples.items()
    }
    return AtBoundary(parts, cached["train"], cached["validation"])


def compute(bench: Bench, model: Any, split: str, views: int = 0) -> Any:
    seen = [View(k, bench.recipe.seed, "", BATCH) for k in range(views)] if views and split == "train" else [None]
    directory = bench.folder / "features"
    part = bench.examples[split]
    return [feature_cache.compute(model, part, batch_size=3, directory=directory, view=view) for view in seen]


def same(cached: History, through: History, bench: Bench, kept: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(losses(cached), losses(through), rtol=1e-4, atol=1e-4)
    assert len(losses(through)) == 2 * EPOCHS + 1 and len(set(losses(through))) > EPOCHS
    assert cached.trained == through.trained
    for path, value in values(bench.joined.model).items():
        np.testing.assert_allclose(value, kept[path], atol=2e-3, err_msg=path)


def test_fine_tuning_at_the_boundary(bench: Bench):
    reset(bench)
    try:
        at_boundary(bench)
    except boundary_cache.NoBoundary:
        # The cells of NASNet see two cells back, and a pyramid's levels come from both sides: no place for one cut.
        assert bench.task.features == "pyramid" or freezing.boundary(bench.joined.backbone, TUNE.trainable) is None
        return
    through = tuned(bench, TUNE, None)
    kept = values(bench.joined.model)
    reset(bench)
    cached = tuned(bench, TUNE, at_boundary(bench))
    same(cached, through, bench, kept)
    assert set(through.trained) > {v.path for v in bench.joined.head.trainable_variables}


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Augmented images on a network with dropout and BatchNormalization."""
    found = prepared("image_classification", "residual", tmp_path_factory.mktemp("views"))
    found.recipe = recipes.override(found.recipe, {"data.augment": "flip,crop:0.3,mixup:0.4"})
    found.examples["train"] = found.task.examples(
        found.splits.train, found.labels, found.joined.backbone, found.recipe, training=True
    )
    return found


def test_with_a_view_for_each_epoch_augmented_training_is_the_same(residual: Bench):
    bench = residual
    reset(bench)
    through = tuned(bench, TUNE, None)
    kept = values(bench.joined.model)
    reset(bench)
    same(tuned(bench, TUNE, at_boundary(bench, views=EPOCHS)), through, bench, kept)


@pytest.mark.slow
def test_so_is_the_head_phase(residual: Bench):
    bench = residual
    reset(bench)
    through = bench.train(HEAD)
    kept = values(bench.joined.model)
    reset(bench)
    cached = {
        name: CachedExamples(compute(bench, bench.joined.encoder, name, EPOCHS), part)
        for name, part in bench.examples.items()
    }
    recipe = recipes.override(bench.recipe, {"head": HEAD})
    history = phases.train_head(
        bench.joined.head,
        bench.task,
        bench.labels,
        recipe,
        cached["train"],
        (cached["validation"], bench.validation[1]),
        bench.loss,
        tf.distribute.get_strategy(),
        Watch(),
    )
    same(history, through, bench, kept)


def test_decoded_images_train_the_same_number_by_number(residual: Bench):
    bench = residual
    reset(bench)
    through = tuned(bench, TUNE, None)
    kept = values(bench.joined.model)
    live = dict(bench.examples)
    for name, part in live.items():
        bench.examples[name] = decoded_images.keep(part, directory=bench.folder / "features")
    try:
        reset(bench)
        again = tuned(bench, TUNE, None)
    finally:
        bench.examples.update(live)
    same(again, through, bench, kept)
    np.testing.assert_allclose(losses(again), losses(through), rtol=1e-6)


def test_float16_is_close_and_not_exact(residual: Bench):
    bench = residual
    reset(bench)
    train = feature_cache.compute(
        bench.joined.encoder, bench.examples["train"], directory=bench.folder / "features", precision="float16"
    )
    exact = feature_cache.compute(bench.joined.encoder, bench.examples["train"], directory=bench.folder / "features")
    half, full = (next(iter(cache.arrays.values())) for cache in (train, exact))
    np.testing.assert_allclose(half, full, rtol=1e-3, atol=1e-3)
    assert (np.asarray(half, np.float32) != full).any()


def test_resuming_at_the_boundary_from_a_state_of_the_joined_model(residual: Bench):
    bench = residual
    reset(bench)
    states: list[Any] = []
    joined = bench.joined
    arguments = (bench.task, bench.labels, bench.recipe, TUNE, bench.examples["train"], bench.validation, bench.loss)
    strategy = tf.distribute.get_strategy()
    whole, _ = phases.train_joined(joined.model, joined.backbone, *arguments, strategy, Watch(save=states.append))
    kept = values(joined.model)
    reset(bench)
    cached = at_boundary(bench, views=EPOCHS)
    resumed, _ = phases.train_joined(
        joined.model, joined.backbone, *arguments, strategy, Watch(restored=states[0]), cached
    )
    same(resumed, whole, bench, kept)


def kinds(bench: Bench, cache: str, **fields: Any) -> Any:
    """What `caching` decides."""
    recipe = recipes.override(bench.recipe, {"cache": cache, "fine_tune": TUNE, "head": HEAD})
    recipe = recipes.override(recipe, fields)
    lines: list[str] = []
    log = Log(quiet=True)
    log.say = lambda line="", style="": lines.append(line)  # type: ignore[method-assign]
    joined = bench.joined
    found = caching.at_boundary(joined.backbone, joined.encoder, joined.head, bench.examples, recipe, log)
    return found, lines


def test_what_is_cached_is_what_the_recipe_says(residual: Bench):
    reset(residual)
    assert kinds(residual, "off") == (None, [])
    assert kinds(residual, "features") == (None, [])
    found, lines = kinds(residual, "auto")
    assert found is None and "augmentation" in lines[0]
    found, lines = kinds(residual, "boundary")
    assert len(found.train) == BY_HEART and "2 augmented views" in lines[0]
    with pytest.raises(ValueError, match="cache: boundary"):
        kinds(residual, "boundary", **{"fine_tune.trainable": "all"})
    found, lines = kinds(residual, "auto", **{"fine_tune.trainable": "all"})
    assert found is None and "all" in lines[0]


def test_auto_measures_and_says_why(residual: Bench, monkeypatch):
    reset(residual)
    monkeypatch.setattr(caching, "augmented", lambda examples: False)
    found, lines = kinds(residual, "auto")
    assert found is None and "would not pay" in lines[0] and "ms to compute" in lines[0]
    monkeypatch.setattr(boundary_cache, "FIXED_SECONDS", -1e6)
    found, lines = kinds(residual, "auto")
    assert found is not None and "saves about" in lines[0]
    monkeypatch.setenv("KERAS_TRANSFER_CACHE_GB", "0")
    found, lines = kinds(residual, "auto")
    assert found is None and "budget" in lines[0]
