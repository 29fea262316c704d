"""Caching: noise on features is refused where it cannot apply; the precision of what is kept is the recipe's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_feature_cache import encoder, examples

from keras_transfer import caching, recipe_faults
from keras_transfer import recipe as recipes
from keras_transfer.feature_store import Store
from keras_transfer.progress import Log
from keras_transfer.recipe import DataSpec, Phase, Recipe, RecipeError

QUIET = Log(quiet=True)
NOISY = Recipe(
    name="r", data=DataSpec(source="x"), head=Phase(epochs=2, feature_noise=0.1, solver="gradient"), cache="features"
)


def heard() -> tuple[Log, list[str]]:
    lines: list[str] = []
    log = Log(quiet=True)
    log.say = lambda line="", style="": lines.append(line)  # type: ignore[method-assign]
    return log, lines


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"head.solver": "exact"}, "use head.solver gradient"),
        ({"cache": "off"}, "use cache features"),
        ({"head.feature_noise": -1}, "head.feature_noise"),
        ({"head.feature_noise": "inf"}, "finite"),
        ({"head.feature_noise": 0, "fine_tune.feature_noise": 0.1}, "fine_tune.feature_noise"),
    ],
)
def test_a_recipe_whose_noise_cannot_apply_is_refused(changes, received):
    recipe_faults.check(NOISY)
    with pytest.raises(RecipeError, match=received) as caught:
        recipe_faults.check(recipes.override(NOISY, changes))
    assert len(caught.value.faults) == 1


def test_noise_is_refused_where_the_head_is_solved_or_no_features_are_cached():
    with pytest.raises(ValueError, match="head.solver gradient"):
        caching.clean_features(caching.Encode(encoder()), {"train": examples()}, NOISY, QUIET)
    assert caching.features_pay(NOISY, examples(augment=True))
    with pytest.raises(ValueError, match="cache features or data.augment none"):
        caching.features_pay(replace(NOISY, cache="auto"), examples(augment=True))
    assert not caching.features_pay(
        recipes.override(NOISY, {"cache": "auto", "head.feature_noise": 0}), examples(9, augment=True)
    )


def test_noise_goes_to_the_training_examples_alone_and_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    log, lines = heard()
    data = {"train": examples(key="a"), "validation": examples(key="b")}
    found = caching.head_examples(caching.Encode(encoder()), data, NOISY, log)
    assert found is not None and any("noise of 0.1" in line for line in lines)
    index = np.arange(5)
    clean = {
        name: caching.CachedExamples(part._views, data[name]).load_view(index, 0, 0)[0] for name, part in found.items()
    }
    given = {name: part.load_view(index, 0, 0)[0] for name, part in found.items()}
    assert np.abs(given["train"] - clean["train"]).min() > 0
    np.testing.assert_array_equal(given["validation"], clean["validation"])


def test_the_precision_is_the_recipes_and_the_budget_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    data = {"train": examples()}
    exact = caching.clean_features(
        caching.Encode(encoder()), data, recipes.override(NOISY, {"head.feature_noise": 0}), QUIET
    )
    half = recipes.override(NOISY, {"head.feature_noise": 0, "cache_precision": "float16"})
    kept = caching.clean_features(caching.Encode(encoder()), data, half, QUIET)
    assert kept["train"].bytes * 2 == exact["train"].bytes and len(Store().rows()) == 2
    # One view of 23 examples of 3 numbers: a budget of 5 such, in float16, holds as many views.
    monkeypatch.setenv("KERAS_TRANSFER_CACHE_GB", str(23 * 3 * 2 * 3.5 / 1e9))
    many = recipes.override(half, {"head.epochs": 9})
    assert len(caching._views(encoder(), examples(augment=True), many, many.head, "head", QUIET)) == 3
    exactly = replace(many, cache_precision="float32")
    assert len(caching._views(encoder(), examples(augment=True), exactly, many.head, "head", QUIET)) == 1
