"""What is wrong with a recipe, as far as its fields alone show."""

from __future__ import annotations

from collections.abc import Iterator

from keras_transfer.recipe import Phase, Recipe, RecipeError


def check(recipe: Recipe) -> None:
    """Raises `RecipeError` with every fault of the recipe that can be seen without its data or libraries."""
    found = list(_faults(recipe))
    if found:
        raise RecipeError(found)


def _faults(recipe: Recipe) -> Iterator[str]:
    """Every fault, a line each."""
    data, backbone = recipe.data, recipe.backbone
    if not data.source:
        yield "data.source: expected a folder, a file, tfds:NAME or sample:NAME. Received: nothing"
    if recipe.name and ("/" in recipe.name or recipe.name.startswith(".")):
        yield f"name: expected a plain name without slashes or a leading dot. Received: {recipe.name!r}"
    if data.batch_size < 1:
        yield f"data.batch_size: expected at least 1. Received: {data.batch_size}"
    for name in ("validation_share", "test_share"):
        share = getattr(data, name)
        if not 0 <= share < 1:
            yield f"data.{name}: expected a share from 0 to below 1. Received: {share}"
    if data.validation_share + data.test_share >= 1:
        yield (
            "data.validation_share + data.test_share: expected less than 1, so that training examples remain. "
            f"Received: {data.validation_share + data.test_share:g}"
        )
    if not -1 <= data.ignore_index <= 255:
        yield f"data.ignore_index: expected 0 to 255, or -1 for none. Received: {data.ignore_index}"
    if data.limit < 0:
        yield f"data.limit: expected 0 (all) or more. Received: {data.limit}"
    if backbone.image_size < 0 or 0 < backbone.image_size < 32:
        yield f"backbone.image_size: expected 0 (default) or at least 32 pixels. Received: {backbone.image_size}"
    if backbone.sequence_length < 0:
        yield f"backbone.sequence_length: expected 0 (from the data) or more. Received: {backbone.sequence_length}"
    for phase_name in ("head", "fine_tune"):
        yield from _phase_faults(phase_name, getattr(recipe, phase_name))
    if recipe.head.trainable != "none":
        yield (
            "head.trainable: expected none, since the backbone is frozen in the head phase; set fine_tune.trainable. "
            f"Received: {recipe.head.trainable!r}"
        )
    yield from _noise_faults(recipe)
    if recipe.head.epochs == 0 and recipe.fine_tune.epochs == 0:
        yield "head.epochs and fine_tune.epochs: expected at least one above 0, else nothing is trained. Received: 0, 0"


def _noise_faults(recipe: Recipe) -> Iterator[str]:
    """Where noise on cached features cannot apply."""
    head, noise = recipe.head, recipe.head.feature_noise
    if recipe.fine_tune.feature_noise:
        yield (
            "fine_tune.feature_noise: expected 0, since noise is added to the features of the head phase alone; set "
            f"head.feature_noise. Received: {recipe.fine_tune.feature_noise:g}"
        )
    if not 0 <= noise < float("inf"):
        yield f"head.feature_noise: expected 0 (none) or more, and finite. Received: {noise:g}"
    elif noise and head.solver == "exact":
        yield f"head.feature_noise: expected 0 with head.solver exact; use head.solver gradient. Received: {noise:g}"
    elif noise and recipe.cache == "off":
        yield f"head.feature_noise: expected 0 with cache off; use cache features. Received: {noise:g}"


def _phase_faults(name: str, phase: Phase) -> Iterator[str]:
    """The faults of one phase."""
    if phase.epochs is not None and phase.epochs < 0:
        yield f"{name}.epochs: expected 0 or more. Received: {phase.epochs}"
    if phase.learning_rate is not None and not 0 < phase.learning_rate < float("inf"):
        yield f"{name}.learning_rate: expected above 0 and finite. Received: {phase.learning_rate}"
    for field_name, top in (("dropout", 1.0), ("label_smoothing", 1.0), ("warmup_share", 1.0)):
        value = getattr(phase, field_name)
        if value is not None and not 0 <= value < top:
            yield f"{name}.{field_name}: expected from 0 to below {top:g}. Received: {value}"
    if not 0 < phase.layer_decay <= 1:
        yield f"{name}.layer_decay: expected above 0 to 1. Received: {phase.layer_decay}"
    for field_name in ("weight_decay", "clip_norm", "patience"):
        value = getattr(phase, field_name)
        if value is not None and not 0 <= value < float("inf"):
            yield f"{name}.{field_name}: expected 0 or more, and finite. Received: {value}"
    if phase.patience and phase.keep == "last":
        yield (
            f"{name}.patience: expected 0 with {name}.keep last, since patience waits for the best epoch. "
            f"Received: {phase.patience}"
        )
