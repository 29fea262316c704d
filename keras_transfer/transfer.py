"""Transfer: the whole story of one training, readable top to bottom."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_transfer import backbones, caching, devices, evaluation, phases, planning, run_export, run_record, two_phases
from keras_transfer import recipe as recipes
from keras_transfer.backbones import Backbone
from keras_transfer.feature_cache import Encode
from keras_transfer.joined import Joined, join
from keras_transfer.labels import Labels
from keras_transfer.prepared import Prepared, prepare, recipe_of
from keras_transfer.progress import Clock, Log
from keras_transfer.recipe import Recipe
from keras_transfer.run_record import Run
from keras_transfer.tasks import get_task
from keras_transfer.tasks.base import Examples, FitsInputs


class Interrupted(KeyboardInterrupt):
    """A training was stopped; its run keeps the best weights so far."""

    def __init__(self, run: Run):
        self.run = run
        kept = f"Best weights so far: {run.path / 'model.keras'}. " if (run.path / "model.keras").exists() else ""
        super().__init__(f"Stopped. {kept}Go on: keras-transfer fit --resume {run.path}")


def fit(
    recipe_or_source: Any,
    *,
    resume: str | Path | None = None,
    log: Log | None = None,
    label_names: list[str] | None = None,
    **overrides: Any,
) -> Run:
    """Trains, measures and publishes.

    Args:
        recipe_or_source: a `Recipe`; a folder, file, `tfds:NAME` or `sample:NAME`; a `tf.data.Dataset` of (input,
            label), or a mapping of such by split name.
        resume: the folder of a stopped or failed run to go on with; its recipe is used.
        log: where progress is said; default: standard error.
        label_names: of a dataset's integer labels.
        **overrides: fields of the recipe, nested (`fine_tune={"epochs": 2}`), or dotted by `**{"head.epochs": 2}`.

    Returns:
        The finished run; `run.model` is a plain `keras.Model`.

    Raises:
        RecipeError: every fault of the recipe at once.
        DataError: what is wrong with the data, by file.
        Interrupted: after Ctrl-C, with the best weights kept.
    """
    log, clock = log or Log(), Clock()
    log.begin()
    earlier = run_record.load_to_resume(resume) if resume is not None else None
    given = earlier.recipe if earlier is not None else recipe_or_source
    recipe, records = recipe_of(given, overrides, label_names)
    with clock.part("data"):
        prepared = prepare(recipe, log, records)
    placed = devices.set_up(prepared.recipe.devices)
    keras.utils.set_random_seed(prepared.recipe.seed)
    with placed.strategy.scope():
        backbone = load_backbone(prepared, log)
        prepared = replace(prepared, recipe=_with_size(prepared, backbone, log))
        joined = join(prepared.task, backbone, prepared.labels, prepared.recipe)
    examples = _examples(prepared, backbone)
    encode = caching.encode_of(joined.encoder, prepared.recipe)
    found = planning.estimate(prepared.recipe, prepared.splits, encode, joined.model, backbone, examples)
    planning.say(found, placed, log)
    run = _start_run(prepared, backbone, earlier, log)
    with _kept_on_failure(run, log):
        log.say(f"run {run.path}")
        # Tracing takes seconds: the validation of the phases and the scores at the end share it.
        loss = prepared.task.loss(prepared.labels, prepared.recipe, None)
        predictor = evaluation.Predictor(_inference(joined, encode, placed), loss, placed.strategy)
        validated = two_phases.train(run, prepared, joined, examples, placed, encode, predictor, clock, log)
        with clock.part("evaluate"):
            predictions = _evaluate(run, prepared, predictor, examples, validated, log)
        with clock.part("export"):
            run.save_model(joined.model)
            run_export.keep_probe(run, prepared.task, prepared.splits, predictions)
            run.seconds = clock.rounded()
            if prepared.recipe.export.enabled:
                log.say("exporting and verifying in a fresh process")
                run.saved_model = run_export.publish_run(run, prepared.task, joined.model, backbone, placed.precision)
        run.status, run.seconds = "done", clock.rounded()
        run.save()
        run.drop_states()
    return run


def plan(recipe_or_source: Any, *, log: Log | None = None, **overrides: Any) -> planning.Plan:
    """What `fit` would do, and about what it takes; nothing is trained, and no run is written.

    A plan counts the examples and measures the texts, so the data is read: a sample or a TensorFlow data set that is
    not on this machine yet is fetched into its cache, which is said. Weights are fetched only where a tokenizer comes
    with them, as in the samples `minilm` and `smollm2`; of a keras_hub preset, only its configuration and vocabulary.
    """
    log = log or Log()
    recipe, records = recipe_of(recipe_or_source, overrides)
    prepared = prepare(recipe, log, records)
    placed = devices.set_up(prepared.recipe.devices)
    backbone = backbones.load(replace(prepared.recipe.backbone, weights="none"))
    prepared = replace(prepared, recipe=_with_size(prepared, backbone, log))
    joined = join(prepared.task, backbone, prepared.labels, prepared.recipe)
    examples = _examples(prepared, backbone)
    encode = caching.encode_of(joined.encoder, prepared.recipe)
    found = planning.estimate(prepared.recipe, prepared.splits, encode, joined.model, backbone, examples)
    planning.say(found, placed, log)
    return found


def load_backbone(prepared: Prepared, log: Log) -> Backbone:
    """The backbone of a recipe."""
    spec = prepared.recipe.backbone
    log.say(f"loading {spec.name} ({'random weights' if spec.weights == 'none' else spec.weights + ' weights'})")
    return backbones.load(spec)


def build(recipe: Recipe, labels: Labels | list[str]) -> keras.Model:
    """The joined model of a recipe with its backbone's weights and an untrained head.

    Args:
        recipe: with `task` and, unless the task's default will do, `backbone`.
        labels: class names in the order of the outputs.
    """
    task = get_task(recipe.task)
    labels = labels if isinstance(labels, Labels) else Labels(tuple(labels))
    recipe = task.resolve(recipe, 1_000)
    if not recipe.backbone.name:
        recipe = recipes.override(recipe, {"backbone.name": task.default_backbone})
    return join(task, backbones.load(recipe.backbone), labels, recipe).model


def _with_size(prepared: Prepared, backbone: Backbone, log: Log) -> Recipe:
    """The recipe with the input size that the backbone has, and that the training examples advise."""
    recipe, task = prepared.recipe, prepared.task
    if isinstance(task, FitsInputs):
        recipe, lines = task.fit_inputs(recipe, backbone, prepared.splits.train)
        for line in lines:
            log.say(line)
        return recipe
    spec = replace(recipe.backbone, image_size=backbone.image_size, sequence_length=backbone.sequence_length)
    return replace(recipe, backbone=spec)


def _inference(joined: Joined, encode: Encode, placed: devices.Devices) -> Callable[..., Any]:
    """The joined model, by what is traced of it already where that computes the same."""
    encoded = encode.live()
    if encoded is None or encode.in_bfloat16 or placed.strategy.num_replicas_in_sync > 1:
        return joined.model

    def forward(inputs: Any, training: bool) -> Any:
        return joined.head(encoded(inputs), training=training)

    return forward


def _start_run(prepared: Prepared, backbone: Backbone, earlier: Run | None, log: Log) -> Run:
    """A new run, or the earlier one to go on with."""
    fingerprint = prepared.splits.fingerprint
    if earlier is not None:
        if earlier.data.get("fingerprint") != fingerprint:
            raise ValueError(
                f"{earlier.path}: expected the data that it was started with (fingerprint "
                f"{earlier.data.get('fingerprint')}). Received: {fingerprint}. Start a new run instead."
            )
        run = earlier
        run.status = "running"
    else:
        run = run_record.start(prepared.recipe, prepared.recipe.task, prepared.recipe.backbone.name)
    run.recipe, run.labels = prepared.recipe, prepared.labels
    run.data = {
        "fingerprint": fingerprint,
        "examples": {name: len(part) for name, part in prepared.splits.named()},
        "weights": backbone.origin.description,
        "licence": backbone.origin.licence,
    }
    run.save()
    log.write_to(run.path / "log.txt")
    return run


@contextlib.contextmanager
def _kept_on_failure(run: Run, log: Log) -> Iterator[None]:
    """A failed run keeps its folder, its log and its last checkpoint, and says how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        run.flush_state()
        run.status = "interrupted"
        run.save()
        raise Interrupted(run) from None
    except BaseException as error:
        run.flush_state()
        run.status, run.error = "failed", f"{type(error).__name__}: {error}"
        run.save()
        log.say(f"failed; all that was done is in {run.path}. Go on: keras-transfer fit --resume {run.path}")
        raise


def _examples(prepared: Prepared, backbone: Backbone) -> dict[str, Examples]:
    """Of each split that has records."""
    task, labels, recipe = prepared.task, prepared.labels, prepared.recipe
    return {
        name: task.examples(records, labels, backbone, recipe, training=name == "train")
        for name, records in prepared.splits.named()
        if records
    }


def _evaluate(
    run: Run,
    prepared: Prepared,
    predictor: evaluation.Predictor,
    examples: Mapping[str, Examples],
    validated: phases.Outcome | None,
    log: Log,
) -> dict[str, list[Any]]:
    """Scores on every test split and on validation, which may choose thresholds and is perhaps `validated` already."""
    recipe, task = prepared.recipe, prepared.task
    labels, predictions = prepared.labels, {}
    for name, records in prepared.splits.named():
        if name == "train" or not records:
            continue
        if name == "validation" and validated is not None:
            found, mean_loss = validated
        else:
            with log.bar(f"scoring {name}", len(examples[name])) as update:
                found, mean_loss = predictor(task, examples[name], labels, recipe.data.batch_size, update)
        references = task.references(records, labels)
        if name == "validation":
            calibrated = task.calibrate(found, references, labels)
            if calibrated != labels:
                labels = calibrated
                found, mean_loss = predictor(task, examples[name], labels, recipe.data.batch_size)
        scores = evaluation.scores_with_intervals(task, found, references, labels)
        predictions[name], run.metrics_by_split[name] = found, {**scores, "loss": mean_loss}
        primary = task.primary_metric if scores.get(task.primary_metric) is not None else "loss"
        log.say(f"{name}: {primary} {run.metrics_by_split[name][primary]:.4f} on {len(records):,} examples")
    run.labels = labels
    run.metrics = run.metrics_by_split.get("test") or run.metrics_by_split.get("validation", {})
    run.save()
    return predictions
