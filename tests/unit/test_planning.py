"""Planning: the bytes that a training may keep, and the time of texts by their own length."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tiny_texts
from test_freezing import SIZE, small_network

from keras_transfer import backbones, boundary_cache, caching, planning
from keras_transfer import recipe as recipes
from keras_transfer.data.records import Record, Splits
from keras_transfer.feature_cache import Encode
from keras_transfer.joined import Joined, join
from keras_transfer.labels import Labels
from keras_transfer.recipe import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.tasks import get_task

LABELS = Labels(("a", "b"))
RECIPE = Recipe(
    name="r",
    task="image_classification",
    data=DataSpec(source="x", augment="none"),
    backbone=BackboneSpec(name="own", image_size=SIZE),
    head=Phase(epochs=3, solver="gradient"),
    fine_tune=Phase(epochs=5, learning_rate=1e-3, trainable="last:1"),
)


@pytest.fixture(scope="module")
def joined() -> Joined:
    return join(get_task("image_classification"), backbones.wrap(small_network()), LABELS, RECIPE)


def splits(train: int = 100, validation: int = 20, **fields) -> Splits:
    records = tuple(Record(str(number), dict(fields), str(number)) for number in range(train + validation))
    return Splits(records[:train], records[train:], {})


def cached(joined: Joined, changes: dict) -> float:
    recipe = recipes.override(RECIPE, changes)
    plan = planning.estimate(recipe, splits(), Encode(joined.encoder), joined.model, joined.backbone)
    return round(plan.cache_megabytes * 1e6)


def test_features_activations_and_decoded_images_are_counted(joined, monkeypatch):
    features = 4 * int(np.prod(joined.encoder.output.shape[1:])) * 120
    tensor = boundary_cache.activations(joined.backbone, RECIPE.fine_tune)
    boundary, decoded = 4 * int(np.prod(tensor.shape[1:])) * 120, 4 * 3 * SIZE**2 * 120
    assert cached(joined, {}) == features + boundary
    assert cached(joined, {"cache_precision": "float16"}) == (features + boundary) // 2
    assert cached(joined, {"cache": "features"}) == features + decoded, "fine-tuning reads images"
    assert cached(joined, {"fine_tune.trainable": "all"}) == features + decoded
    assert cached(joined, {"data.augment": "light"}) == decoded, "both phases read images"
    assert cached(joined, {"data.augment": "light", "cache": "boundary"}) == features + boundary
    assert cached(joined, {"cache": "off"}) == 0
    assert cached(joined, {"head.epochs": 0, "fine_tune.trainable": "all", "fine_tune.epochs": 1}) == 0
    monkeypatch.setenv("KERAS_TRANSFER_CACHE_GB", str((boundary + decoded) / 2e9))
    assert cached(joined, {}) == features + (decoded if decoded < boundary else 0), (
        "what is over the budget is not kept"
    )


def test_more_epochs_through_the_backbone_take_longer_than_cached_ones(joined, monkeypatch):
    monkeypatch.setattr(planning, "_seconds_forward", lambda encoder, length: 1.0)

    def seconds(changes: dict) -> float:
        recipe = recipes.override(RECIPE, changes)
        return 60 * planning.estimate(recipe, splits(), Encode(joined.encoder), joined.model, joined.backbone).minutes

    fixed = planning.FIXED_SECONDS + 20  # scoring validation
    alone = {"fine_tune.epochs": 0}
    assert seconds(alone) == pytest.approx(fixed + 120)
    assert seconds({**alone, "cache": "off"}) == pytest.approx(fixed + 3 * 100 + 3 * 20), "a random head is not scored"
    whole = {"head.epochs": 0, "fine_tune.trainable": "all"}
    assert seconds(whole) == pytest.approx(fixed + 5 * (100 * 3 + 20))
    share = planning._trained_share("last:1", "frozen", joined.backbone)
    assert 0 < share < 1
    assert seconds({"head.epochs": 0}) == pytest.approx(fixed + 120 + 5 * (300 * share + 20 * share))


def test_short_texts_are_reckoned_at_their_own_length(tmp_path):
    backbone = backbones.load(BackboneSpec(name=str(tiny_texts.write_bert(tmp_path))))
    recipe = recipes.override(RECIPE, {"task": "text_classification", "backbone.sequence_length": 48})
    few = splits(text="a warm film")
    tokens = planning._mean_tokens(recipe, few, backbone)
    assert 4 <= tokens <= 14 and planning._padded(recipe, tokens) == 16
    many = splits(text="a warm film " * 40)
    assert planning._mean_tokens(recipe, many, backbone) == 48 and planning._padded(recipe, 48) == 48
    asked = splits(question="a film ?", context="a warm film " * 40)
    assert planning._mean_tokens(recipe, asked, backbone) > 100, "a long context makes several windows"
    assert planning._mean_tokens(recipe, few, None) == 48


def test_setting_up_is_not_taken_for_work(joined, monkeypatch):
    clock = iter(np.cumsum([0, 9.0, 0, 0.8, 0, 0.4]))
    encode, calls = Encode(joined.encoder), []

    def function(inputs):
        calls.append(inputs.shape)

    monkeypatch.setattr(encode, "_functions", {False: function})
    monkeypatch.setattr(planning.time, "monotonic", lambda: next(clock))
    assert planning._seconds_forward(encode, 0) == pytest.approx(0.4 / 8)
    assert calls == [(8, SIZE, SIZE, 3)] * 3


@pytest.mark.parametrize("fast", [False, True])
def test_the_time_is_measured_by_what_the_pass_will_call(joined, fast, monkeypatch):
    monkeypatch.setattr(caching.devices, "fast_math", lambda spec: fast)
    encode = caching.encode_of(joined.encoder, RECIPE)
    assert encode.live() is None
    planning.estimate(RECIPE, splits(), encode, joined.model, joined.backbone)
    traced = encode.live()
    assert traced is encode(fold=False)
    traced(np.zeros([3, SIZE, SIZE, 3], np.float32))
    assert traced.experimental_get_tracing_count() == 1, "batches of any length share it"
    graph = traced.get_concrete_function(tf.TensorSpec([None, SIZE, SIZE, 3])).graph
    computed = {value.dtype for operation in graph.get_operations() for value in operation.outputs}
    assert (tf.bfloat16 in computed) == fast, "in the precision that the training computes in"
    assert {layer.dtype_policy.name for layer in joined.encoder._flatten_layers()} == {"float32"}
