"""Caching: which outputs of frozen layers a training keeps, and what the log says about it.

`cache` in a recipe: `auto` caches the head phase's features where that is exact, and the activations at the boundary of
fine-tuning where that is exact and pays; `features` caches the head phase alone, augmented or not; `boundary` caches
both whatever it costs; `off` caches nothing (but the features that an exact solver needs). Where a phase reads images
all the same, they are decoded once and kept where that pays, unless it is `off`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_transfer import boundary_cache, decoded_images, devices, feature_cache, freezing
from keras_transfer.backbones import Backbone
from keras_transfer.feature_cache import CachedExamples, CacheTooLarge, Encode, FeatureCache, View
from keras_transfer.feature_store import Store
from keras_transfer.progress import Log
from keras_transfer.recipe import Phase, Recipe
from keras_transfer.tasks.base import Examples

VIEWS = 4
"""Augmented views of each example that are kept at most: with K views over E epochs at most E / K is gained. Judgement:
few enough to gain several times over the usual ten to twenty epochs."""

CACHED_SPLITS = ("train", "validation")
LEAST_SAVED = 1.0
"""Seconds that a cache must save to be worth its files."""


@dataclass(frozen=True)
class AtBoundary:
    """What fine-tuning trains on instead of raw inputs."""

    parts: boundary_cache.Cut
    train: CachedExamples
    validation: CachedExamples | None


def augmented(examples: Examples) -> bool:
    """Whether an epoch sees other inputs than the one before."""
    return examples.augment is not None or examples.augment_batch is not None


def features_pay(recipe: Recipe, train: Examples) -> bool:
    """Whether a head that is trained by gradient descent trains on cached features.

    Raises:
        ValueError: it does not, and noise was to be added to them.
    """
    pay = recipe.cache != "off" and (not augmented(train) or recipe.cache in ("features", "boundary"))
    if recipe.head.feature_noise and not pay:
        raise ValueError(
            "head.feature_noise: expected 0 where no features are cached, as with cache auto and augmentation; use "
            f"cache features or data.augment none. Received: {recipe.head.feature_noise:g}"
        )
    return pay


def clean_features(
    encode: Encode, examples: Mapping[str, Examples], recipe: Recipe, log: Log
) -> dict[str, FeatureCache]:
    """Features of the training and validation examples as they are, without augmentation."""
    present = [name for name in CACHED_SPLITS if name in examples]
    if recipe.head.feature_noise:
        raise ValueError(
            "head.feature_noise: expected 0 where the head is solved exactly; use head.solver gradient. Received: "
            f"{recipe.head.feature_noise:g}"
        )
    return {name: _compute(encode, examples[name], recipe, name, log) for name in present}


def head_examples(
    encode: Encode, examples: Mapping[str, Examples], recipe: Recipe, log: Log
) -> dict[str, CachedExamples] | None:
    """What the head trains on; None where the features do not fit, and it must train through the backbone."""
    try:
        return _cached(encode, examples, recipe, recipe.head, "head", log, "", ())
    except CacheTooLarge as error:
        if recipe.cache != "auto" or recipe.head.feature_noise:
            raise
        log.warn(f"head: trained through the backbone, which takes longer. {error}")
        return None


def at_boundary(
    backbone: Backbone,
    encoder: keras.Model,
    head: keras.Model,
    examples: Mapping[str, Examples],
    recipe: Recipe,
    log: Log,
) -> AtBoundary | None:
    """What fine-tuning trains on where its frozen part is computed once; None where it trains the joined model.

    Raises:
        ValueError: `cache` is `boundary`, and that cannot be; says why.
        CacheTooLarge: `cache` is `boundary`, and the activations do not fit.
    """
    phase, forced = recipe.fine_tune, recipe.cache == "boundary"
    if recipe.cache not in ("auto", "boundary"):
        return None
    below = freezing.boundary(backbone, phase.trainable, phase.batchnorm)
    if below and not forced and augmented(examples["train"]):
        log.say(
            f"fine_tune: augmentation ({recipe.data.augment}) is drawn anew each epoch, so that nothing below {below} "
            f"is cached; cache boundary would train on at most {VIEWS} stored views"
        )
        return None
    freezing.apply(backbone, phase.trainable, phase.batchnorm)
    try:
        parts = boundary_cache.cut(backbone, encoder, head, phase)
        why = boundary_cache.why_not(parts, examples["train"])
    except boundary_cache.NoBoundary as error:
        parts, why = None, str(error)
    if parts is None or why:
        if forced:
            raise ValueError(
                f"cache: boundary needs a block below all that trains, of a constant output. Received: {why}. "
                "Use fine_tune.trainable last:N, or cache auto."
            )
        log.say(f"fine_tune: nothing below is cached: {why}")
        return None
    encode = encode_of(parts.prefix, recipe)
    if not forced and not _worth_it(parts, encode, examples, recipe, log):
        return None
    name, extras = boundary_cache.BOUNDARY, parts.extras
    try:
        cached = _cached(encode, examples, recipe, phase, "fine_tune", log, name, extras)
    except CacheTooLarge as error:
        if forced:
            raise
        log.say(f"fine_tune: nothing below is cached. {error}")
        return None
    return AtBoundary(parts, cached["train"], cached.get("validation"))


def decoded(examples: Mapping[str, Examples], recipe: Recipe, name: str, log: Log) -> dict[str, Examples]:
    """What a phase through the backbone reads: images that were decoded once, where that pays; else as they are."""
    found, epochs = dict(examples), getattr(recipe, name).epochs or 0
    present = [split for split in CACHED_SPLITS if split in examples and len(examples[split])]
    if recipe.cache == "off" or not present or any(decoded_images.why_not(examples[split]) for split in present):
        return found
    extra = repr((examples["train"].key, recipe.task, recipe.data, recipe.backbone, sorted(recipe.options.items())))
    ready = {split: decoded_images.open_complete(examples[split], extra) for split in present}
    if all(ready.values()):
        log.say(f"{name}: images are read as an earlier phase or run decoded them")
        return found | {split: part for split, part in ready.items() if part is not None}
    counts = [len(examples[split]) if split in present else 0 for split in CACHED_SPLITS]
    if decoded_images.Estimate(decoded_images.SLOWEST_LOAD, 0, 0).saved(*counts, epochs) < LEAST_SAVED:
        return found
    estimate = decoded_images.measure(examples["train"])
    if estimate is None:
        return found
    saved, size = estimate.saved(*counts, epochs), estimate.bytes * sum(counts)
    numbers = (
        f"{1e3 * estimate.load:.2f} ms to decode and {1e3 * estimate.read:.2f} ms to read an image, "
        f"{size / 1e6:,.0f} MB, {epochs} epochs"
    )
    each, once = f"{name}: images are decoded in each epoch", f"{name}: images are decoded once and kept"
    if not _pays(saved, size, each, once, numbers, log):
        return found
    try:
        for split in present:
            what = f"{recipe.name} {split}, decoded at {recipe.backbone.image_size} px"
            with log.bar(f"decoding {what}", len(examples[split])) as update:
                found[split] = decoded_images.keep(examples[split], extra=extra, progress=update, describe=what)
    except CacheTooLarge as error:
        log.say(f"{each}. {error}")
        return dict(examples)
    return found


def encode_of(model: keras.Model, recipe: Recipe) -> Encode:
    """The functions of the frozen part, in the precision that the recipe computes in."""
    return Encode(model, devices.fast_math(recipe.devices))


def _worth_it(
    parts: boundary_cache.Cut, encode: Encode, examples: Mapping[str, Examples], recipe: Recipe, log: Log
) -> bool:
    """Measures a few batches and decides; says what and why."""
    counts = [len(examples[name]) if name in examples else 0 for name in CACHED_SPLITS]
    found = boundary_cache.measure(parts, examples["train"], encode, recipe.cache_precision)
    saved = found.saved(*counts, recipe.fine_tune.epochs or 0)
    size = found.bytes * sum(counts)
    numbers = (
        f"{1e3 * found.compute:.2f} ms to compute and {1e3 * found.read:.3f} ms to read an example, "
        f"{size / 1e6:,.0f} MB, {recipe.fine_tune.epochs} epochs"
    )
    below = f"cached below {parts.block}"
    return _pays(saved, size, f"fine_tune: not {below}", f"fine_tune: {below}", numbers, log)


def _pays(saved: float, size: float, without: str, kept: str, numbers: str, log: Log) -> bool:
    """Whether a cache fits and saves seconds; says what is done, and why."""
    if size > Store().budget():
        log.say(f"{without}: more than the budget for caches ({numbers})")
    elif saved < LEAST_SAVED:
        log.say(f"{without}: it would not pay ({numbers})")
    else:
        log.say(f"{kept}, which saves about {saved:,.0f} s ({numbers})")
        return True
    return False


def _cached(
    encode: Encode,
    examples: Mapping[str, Examples],
    recipe: Recipe,
    phase: Phase,
    name: str,
    log: Log,
    label: str,
    extras: tuple[str, ...],
) -> dict[str, CachedExamples]:
    """The training examples, in views where they are augmented, and the validation examples as they are."""
    found = {}
    for split in CACHED_SPLITS:
        if split not in examples:
            continue
        part = examples[split]
        views: Any = [None]
        if split == "train" and augmented(part):
            views = _views(encode.encoder, part, recipe, phase, name, log)
        caches = [_compute(encode, part, recipe, split, log, view) for view in views]
        noise = phase.feature_noise if split == "train" else 0.0
        found[split] = CachedExamples(caches, part, name=label, extras=extras, noise=noise, seed=recipe.seed)
        if noise:
            log.say(f"{name}: noise of {noise:g} times each feature's own deviation is added, anew in each epoch")
    return found


def _views(model: keras.Model, train: Examples, recipe: Recipe, phase: Phase, name: str, log: Log) -> list[View]:
    """As many augmented views as the epochs and the budget allow; says what is traded."""
    epochs = max(1, phase.epochs or 1)
    size = feature_cache.bytes_of_example(model, train, recipe.cache_precision) * len(train)
    affordable = int(Store().budget() / max(1.0, size))
    count = int(np.clip(affordable, 1, min(epochs, VIEWS)))
    log.say(
        f"{name}: {count} augmented view{'s' * (count > 1)} of each of {len(train):,} examples "
        f"{'are' if count > 1 else 'is'} stored, and each epoch takes the next: {epochs} epochs see "
        f"{count * len(train):,} different inputs, not {epochs * len(train):,}. Validation: one clean view"
    )
    return [View(epoch, recipe.seed, recipe.data.augment, recipe.data.batch_size) for epoch in range(count)]


def _compute(
    encode: Encode,
    examples: Examples,
    recipe: Recipe,
    split: str,
    log: Log,
    view: View | None = None,
) -> FeatureCache:
    """One pass, with a bar."""
    seen = f"view {view.epoch + 1} of {split}" if view else split
    what = f"{recipe.name} {seen}, {recipe.backbone.name} {encode.encoder.name}"
    with log.bar(f"features of {what}", len(examples)) as update:

        def progress(done: int) -> None:
            update(done, "")

        return feature_cache.compute(
            encode.encoder,
            examples,
            progress=progress,
            describe=what,
            view=view,
            encode=encode,
            precision=recipe.cache_precision,
        )
