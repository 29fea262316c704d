"""Two phases: the head on frozen features, then chosen blocks; each from caches where that is exact and pays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_transfer import caching, devices, evaluation, feature_cache, freezing, phase_log, phases
from keras_transfer.joined import Joined
from keras_transfer.prepared import Prepared
from keras_transfer.progress import Clock, Log
from keras_transfer.run_record import Run
from keras_transfer.tasks.base import Examples
from keras_transfer.training_loop import History


def train(
    run: Run,
    prepared: Prepared,
    joined: Joined,
    examples: Mapping[str, Examples],
    placed: devices.Devices,
    encode: feature_cache.Encode,
    predictor: evaluation.Predictor,
    clock: Clock,
    log: Log,
) -> phases.Outcome | None:
    """Both phases; either may be left out.

    Args:
        run: gets the history of both.
        prepared: recipe, task and records.
        joined: backbone and head, which are trained.
        examples: by split.
        placed: the devices.
        encode: the functions of the joined encoder, traced perhaps.
        predictor: of the joined model.
        clock: gets the seconds of each part.
        log: where progress is said.

    Returns:
        What the trained model predicts of the validation split, where the last phase has found it out.
    """
    recipe, task, labels = prepared.recipe, prepared.task, prepared.labels
    loss = task.loss(labels, recipe, task.class_weights(examples["train"], labels, recipe))
    validation = None
    if "validation" in examples:
        validation = (examples["validation"], task.references(prepared.splits.validation, labels))
    run.trainable = {"head": 0, "fine_tune": 0}
    freezing.apply(joined.backbone, freezing.FreezePolicy.parse("none"))
    outcome = None
    if recipe.head.epochs:
        outcome = _train_head(run, prepared, joined, examples, validation, loss, placed, encode, predictor, clock, log)
    if recipe.fine_tune.epochs:
        with clock.part("cache"):
            cached = caching.at_boundary(joined.backbone, joined.encoder, joined.head, examples, recipe, log)
        history, outcome = _through_backbone(
            "fine_tune", run, prepared, joined, examples, validation, loss, placed, predictor, clock, log, cached
        )
        run.trainable["fine_tune"] = _count(joined.model, history.trained)
        phase_log.finish(run, "fine_tune", history, joined.model, log)
    return outcome


def _train_head(
    run: Run,
    prepared: Prepared,
    joined: Joined,
    examples: Mapping[str, Examples],
    validation: Any,
    loss: phases.Loss,
    placed: devices.Devices,
    encode: feature_cache.Encode,
    predictor: evaluation.Predictor,
    clock: Clock,
    log: Log,
) -> phases.Outcome | None:
    """The head on frozen features: solved exactly, by epochs on cached features, or by epochs through the backbone."""
    recipe, task, labels = prepared.recipe, prepared.task, prepared.labels
    solver = recipe.head.solver
    if solver == "auto":
        exact = task.exact_problem(labels, recipe) and not recipe.head.feature_noise
        solver = "exact" if exact else "gradient"
    run.trainable["head"] = sum(int(np.prod(v.shape)) for v in joined.head.trainable_variables)
    if solver == "exact":
        with clock.part("cache"):
            caches = caching.clean_features(encode, examples, recipe, log)
        with clock.part("head"):
            targets = {name: feature_cache.gather_targets(examples[name])["label"] for name in caches}
            pairs = {name: (caches[name], targets[name]) for name in caches}
            solution = phases.solve_head(
                joined.head,
                task,
                labels,
                recipe,
                pairs["train"],
                pairs.get("validation"),
                task.class_weights(examples["train"], labels, recipe),
                [record.group or record.content.hex() for record in prepared.splits.train],
            )
        log.say(
            f"head solved exactly in {solution.seconds:.1f} s, L2 strength {solution.strength:g}, "
            f"validation loss {solution.validation_loss:.4f}"
        )
        return None
    cached, outcome = None, None
    if caching.features_pay(recipe, examples["train"]):
        with clock.part("cache"):
            cached = caching.head_examples(encode, examples, recipe, log)
    if cached is None:
        history, outcome = _through_backbone(
            "head", run, prepared, joined, examples, validation, loss, placed, predictor, clock, log
        )
    else:
        with clock.part("head"), phase_log.watched(run, "head", task, log) as watch:
            history = phases.train_head(
                joined.head,
                task,
                labels,
                recipe,
                cached["train"],
                (cached["validation"], validation[1]) if validation else None,
                loss,
                placed.strategy,
                watch,
            )
    phase_log.finish(run, "head", history, joined.model, log)
    return outcome


def _through_backbone(
    phase: str,
    run: Run,
    prepared: Prepared,
    joined: Joined,
    examples: Mapping[str, Examples],
    validation: Any,
    loss: phases.Loss,
    placed: devices.Devices,
    predictor: evaluation.Predictor,
    clock: Clock,
    log: Log,
    cached: Any = None,
) -> tuple[History, phases.Outcome | None]:
    """A phase of the joined model: head and backbone, or from the frozen boundary on where that is cached."""
    if cached is None:
        with clock.part("cache"):
            examples = caching.decoded(examples, prepared.recipe, phase, log)
            validation = (examples["validation"], validation[1]) if validation else None
    with clock.part(phase), phase_log.watched(run, phase, prepared.task, log) as watch:
        return phases.train_joined(
            joined.model,
            joined.backbone,
            prepared.task,
            prepared.labels,
            prepared.recipe,
            getattr(prepared.recipe, phase),
            examples["train"],
            validation,
            loss,
            placed.strategy,
            watch,
            cached,
            predictor,
        )


def _count(model: keras.Model, paths: list[str]) -> int:
    chosen = set(paths)
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables if v.path in chosen)
