"""What every task promises on every kind of backbone: one suite, for all tasks that are registered.

`tiny_tasks.py` gives each task its made data and its backbones; a task without an entry there fails the first test.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_tasks import TINY

import keras_transfer.backbones  # noqa: F401 - registers the layers of a saved model
from keras_transfer import evaluation, feature_cache, freezing, phases, transfer
from keras_transfer import recipe as recipes
from keras_transfer.data.pipeline import unwrap
from keras_transfer.data.records import Splits
from keras_transfer.export import publish
from keras_transfer.feature_cache import CachedExamples
from keras_transfer.folding import live
from keras_transfer.freeze_policy import is_batchnorm
from keras_transfer.labels import Labels
from keras_transfer.prepared import Prepared
from keras_transfer.progress import Log
from keras_transfer.recipe import Phase, Recipe
from keras_transfer.tasks import TASKS, get_task
from keras_transfer.tasks.base import Examples, Task
from keras_transfer.training_loop import History, Watch

BY_HEART = 8
VALIDATION = 5
SMALL = 500_000
"""Parameters below which a network is one of ours, of two or three layers; those of the registry are deep."""
BATCH = 4
"""Does not divide the validation examples: a dropped tail would show."""

CASES = [
    pytest.param((task, name), id=f"{task}-{name}", marks=[pytest.mark.slow] if name in tiny.slow else [])
    for task, tiny in TINY.items()
    if task in TASKS
    for name in (*tiny.backbones, *tiny.slow)
]


@dataclass
class Bench:
    """One task on one backbone, with its data; and the tools to train it."""

    backbone_name: str
    folder: Path
    task: Task
    labels: Labels
    recipe: Recipe
    splits: Splits
    joined: transfer.Joined
    examples: dict[str, Examples]
    start: list[np.ndarray]

    def reset(self) -> None:
        """The weights from before any training, and nothing of the backbone trains."""
        self.joined.model.set_weights(self.start)
        freezing.apply(self.joined.backbone, "none")

    @property
    def loss(self) -> Any:
        weights = self.task.class_weights(self.examples["train"], self.labels, self.recipe)
        return self.task.loss(self.labels, self.recipe, weights)

    @property
    def validation(self) -> tuple[Examples, list[Any]]:
        return self.examples["validation"], self.task.references(self.splits.validation, self.labels)

    def train(self, phase: Phase, validated: bool = True) -> History:
        """One phase on the joined model."""
        return self.train_and_predict(phase, validated)[0]

    def train_and_predict(self, phase: Phase, validated: bool = True) -> tuple[History, phases.Outcome | None]:
        """One phase on the joined model, and what it then predicts of the validation split where it has found out."""
        strategy, watch = tf.distribute.get_strategy(), Watch()
        held_out = self.validation if validated else None
        arguments = (self.task, self.labels, self.recipe, phase, self.examples["train"], held_out)
        return phases.train_joined(self.joined.model, self.joined.backbone, *arguments, self.loss, strategy, watch)

    def train_cached(self, phase: Phase, validated: bool = True) -> History:
        """The head alone, on cached features."""
        cached = {
            name: CachedExamples(
                feature_cache.compute(self.joined.encoder, part, batch_size=3, directory=self.folder / "features"), part
            )
            for name, part in self.examples.items()
        }
        recipe = recipes.override(self.recipe, {"head": phase})
        pair = (cached["validation"], self.validation[1]) if validated else None
        strategy, watch = tf.distribute.get_strategy(), Watch()
        arguments = (self.task, self.labels, recipe, cached["train"], pair, self.loss, strategy, watch)
        return phases.train_head(self.joined.head, *arguments)

    def predict(self, split: str) -> tuple[list[dict[str, Any]], float]:
        predictor = evaluation.Predictor(self.joined.model, self.loss)
        return predictor(self.task, self.examples[split], self.labels, BATCH)


def set_up(task_name: str, backbone_name: str, folder: Path) -> Bench:
    keras.utils.set_random_seed(7)
    tiny, task = TINY[task_name], get_task(task_name)
    splits = Splits(tiny.records(folder, "train", BY_HEART), tiny.records(folder, "validation", VALIDATION))
    backbone = {**tiny.backbones, **tiny.slow}[backbone_name](folder)
    recipe = Recipe(name="tiny", task=task_name, data=recipes.DataSpec(source="made", batch_size=BATCH))
    recipe = recipes.override(recipe, {"class_weights": "none", **tiny.recipe})
    labels = task.learn_labels(splits.train, recipe)
    prepared = Prepared(task.resolve(recipe, BY_HEART), task, splits, labels)
    recipe = transfer._with_size(prepared, backbone, Log(quiet=True))
    joined = transfer.join(task, backbone, labels, recipe)
    examples = {
        name: task.examples(part, labels, backbone, recipe, training=name == "train") for name, part in splits.named()
    }
    return Bench(backbone_name, folder, task, labels, recipe, splits, joined, examples, joined.model.get_weights())


@pytest.fixture(scope="module", params=CASES)
def _shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Each case is set up once, and trained by several tests."""
    return set_up(*request.param, tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def bench(_shared: Bench) -> Bench:
    _shared.reset()
    return _shared


def values(model: keras.Model) -> dict[str, np.ndarray]:
    """Every weight, by path."""
    return {weight.path: np.array(weight.numpy()) for weight in model.weights}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {path for path, value in before.items() if not np.array_equal(value, after[path])}


def losses(history: History) -> list[float]:
    return [row[key] for row in history.epochs for key in ("loss", "val_loss") if key in row]


def test_every_task_is_in_this_suite():
    assert set(TASKS) <= set(TINY), "add the new task's made data and backbones to tests/contract/tiny_tasks.py"


def test_a_head_on_cached_features_is_the_head_phase_through_the_backbone(bench: Bench):
    # Wide features are learned by heart within an epoch at 1e-2, and losses of zero would compare nothing.
    phase = Phase(epochs=3, learning_rate=1e-2 if bench.joined.model.count_params() < SMALL else 1e-3)
    backbone = values(bench.joined.backbone.model)
    if bench.examples["train"].lengths is not None:
        # Cached features have no length, so smaller batches would hold other examples together.
        bench = replace(bench, recipe=recipes.override(bench.recipe, {"data.batch_size": BY_HEART}))
    through, outcome = bench.train_and_predict(phase)
    kept = values(bench.joined.head)
    assert (outcome is None) == (through.best_epoch != 3), "known where the last epoch's weights are the ones kept"
    if outcome is not None and bench.joined.model.count_params() < SMALL:
        predictions, loss = bench.predict("validation")
        assert loss == pytest.approx(outcome[1], rel=1e-5)
        scores = [bench.task.score(found, bench.validation[1], bench.labels) for found in (predictions, outcome[0])]
        assert scores[0][bench.task.primary_metric] == pytest.approx(scores[1][bench.task.primary_metric], abs=1e-6)
    assert through.trained and set(through.trained) == {v.path for v in bench.joined.head.trainable_variables}
    assert not changed(backbone, values(bench.joined.backbone.model)), "the backbone is frozen, its statistics too"
    bench.reset()
    cached = bench.train_cached(phase)
    np.testing.assert_allclose(losses(cached), losses(through), rtol=1e-4, atol=1e-4)
    assert len(losses(through)) == 7 and len(set(losses(through))) > 4
    for path, value in values(bench.joined.head).items():
        np.testing.assert_allclose(value, kept[path], atol=1e-3, err_msg=path)


def test_the_best_weights_stay_and_every_example_is_scored(bench: Bench):
    phase = Phase(epochs=3, learning_rate=1e-2)
    history = bench.train_cached(phase)
    predictions, loss = bench.predict("validation")
    records, references = bench.splits.validation, bench.validation[1]
    assert len(predictions) == len(references) == len(records) == VALIDATION
    scores = bench.task.score(predictions, references, bench.labels)
    primary = bench.task.primary_metric
    rows = {row["epoch"]: row for row in history.epochs}
    assert history.best[f"val_{primary}"] == max(row[f"val_{primary}"] for row in rows.values())
    np.testing.assert_allclose(scores[primary], history.best[f"val_{primary}"], atol=1e-6)
    np.testing.assert_allclose(loss, history.best["val_loss"], rtol=1e-4, atol=1e-5)


def test_a_pass_after_others_scores_every_example_once(bench: Bench):
    predictor = evaluation.Predictor(bench.joined.model, bench.loss)
    predict = functools.partial(predictor, bench.task, bench.examples["validation"], bench.labels, 2)
    one, first = predict()
    two, second = predict()

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(interrupt)
    three, third = predict()
    assert second == first and third == pytest.approx(first, rel=1e-6)
    assert len(one) == len(two) == len(three) == VALIDATION > 2


@dataclass
class Fitted:
    """Both phases, and the paths of the weights that each changed."""

    chosen: set[str]
    head: History
    fine_tune: History
    changed_by_head: set[str]
    changed_by_fine_tune: set[str]


@pytest.fixture(scope="module")
def fitted(_shared: Bench) -> Fitted:
    """Eight examples by heart; no validation takes weights back."""
    bench, model = _shared, _shared.joined.model
    bench.reset()
    small = model.count_params() < SMALL
    head_rate, tune_rate = TINY[bench.task.name].rates
    steady = Phase(warmup_share=0.0, schedule="constant")
    histories, moved = {}, {}
    # A wide head alone learns by heart until its gradient is exactly zero: large networks are fine-tuned before it.
    for phase in ("head", "fine_tune") if small else ("fine_tune", "head"):
        before = values(model)
        if phase == "head":
            histories[phase] = bench.train_cached(replace(steady, epochs=60, learning_rate=head_rate), validated=False)
        else:
            trainable, epochs, rate = ("all", 40, tune_rate) if small else ("last:1", 2, 1e-4)
            tune = replace(steady, epochs=epochs, learning_rate=rate, trainable=trainable)
            histories[phase] = bench.train(tune, validated=False)
            chosen = set(freezing.apply(bench.joined.backbone, trainable))
        moved[phase] = changed(before, values(model))
    return Fitted(chosen, histories["head"], histories["fine_tune"], moved["head"], moved["fine_tune"])


@pytest.fixture
def trained(_shared: Bench, fitted: Fitted) -> Bench:
    """The case as both phases left it."""
    return _shared


def test_it_learns_eight_examples_by_heart(trained: Bench, fitted: Fitted):
    predictions, loss = trained.predict("train")
    references = trained.task.references(trained.splits.train, trained.labels)
    score = trained.task.score(predictions, references, trained.labels)[trained.task.primary_metric]
    assert TINY[trained.task.name].by_heart <= score <= 1.0
    # Whichever phase came first began with nothing learned.
    assert loss < 0.5 * max(history.epochs[0]["loss"] for history in (fitted.head, fitted.fine_tune))


def test_only_what_was_chosen_changes(trained: Bench, fitted: Fitted):
    head = {v.path for v in trained.joined.head.trainable_variables}
    assert fitted.changed_by_head and fitted.changed_by_head <= head
    assert set(fitted.fine_tune.trained) == fitted.chosen | head
    assert fitted.changed_by_fine_tune <= fitted.chosen | head, "all others are the same to the bit"
    assert fitted.changed_by_fine_tune & fitted.chosen, "gradients reach the backbone"
    assert not any("moving_" in path for path in fitted.changed_by_head | fitted.changed_by_fine_tune)
    norms = [layer for layer in trained.joined.model._flatten_layers() if is_batchnorm(layer)]
    assert not {weight.path for layer in norms for weight in layer.weights} & fitted.chosen, "BatchNormalization stays"


def inputs_of(bench: Bench) -> Any:
    loaded = [bench.examples["validation"].load(tf.constant(index, tf.int64))[0] for index in range(VALIDATION)]
    longest = {name: max(int(row[name].shape[0] or 0) for row in loaded) for name in loaded[0] if loaded[0][name].shape}
    batch = {name: tf.stack([padded(row[name], longest.get(name, 0)) for row in loaded]) for name in loaded[0]}
    return unwrap(batch)


def padded(value: tf.Tensor, length: int) -> tf.Tensor:
    """Zeros behind the first axis."""
    if not value.shape.rank:
        return value
    return tf.pad(value, [[0, length - value.shape[0]], *[[0, 0]] * (value.shape.rank - 1)])


def test_saved_and_loaded_is_equal(trained: Bench, fitted: Fitted, tmp_path):
    trained.joined.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    inputs = inputs_of(trained)
    expected = tf.nest.flatten(trained.joined.model(inputs, training=False))
    for one, two in zip(expected, tf.nest.flatten(loaded(inputs, training=False)), strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5, rtol=1e-5)
    # Inside the loaded model the backbone is still in inference mode.
    for one, two in zip(expected, tf.nest.flatten(loaded(inputs, training=True)), strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5, rtol=1e-5)


def test_the_export_gives_the_same_answers(trained: Bench, fitted: Fitted, tmp_path):
    task, labels, records = trained.task, trained.labels, trained.splits.validation
    backbone = trained.joined.backbone

    def make_serving(numeric: Any) -> Any:
        return task.serving(numeric, labels, trained.recipe, backbone)

    request, (predictions, _) = task.request(records), trained.predict("validation")
    expected = task.expected(predictions, labels)
    served = make_serving(live(trained.joined.model)).signatures["serving_default"]
    answers = served(**{name: tf.constant(value) for name, value in request.items()})
    for name, value in expected.items():
        found = answers[name].numpy()
        if found.ndim == np.ndim(value) > 1:
            found = found[:, : np.shape(value)[1]]  # as the check of an export reads it
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, value, atol=1e-4, rtol=1e-4, err_msg=name)
        else:
            assert found.tolist() == [v.encode() if isinstance(v, str) else v for v in np.asarray(value).tolist()]
    empty = served(**{name: tf.constant(value[:0], tf.string) for name, value in request.items()})
    assert all(value.shape[0] == 0 for value in empty.values())
    if next(iter(TINY[task.name].backbones)) == trained.backbone_name:
        # A fresh process loads and compares; once a task, since it costs seconds.
        version = publish(
            tmp_path / "tiny",
            make_serving,
            trained.joined.model,
            extra={},
            probe={"serving_default": request},
            expected={"serving_default": expected},
            require_text_ops=task.modality == "text",
        )
        assert version == tmp_path / "tiny" / "1"
    outputs = {name: value.numpy() for name, value in answers.items()}
    scored = [
        task.score(found, trained.validation[1], labels) for found in (predictions, task.from_outputs(outputs, labels))
    ]
    assert scored[0][task.primary_metric] == scored[1][task.primary_metric]
    assert len(task.answers(outputs, labels)) == VALIDATION
