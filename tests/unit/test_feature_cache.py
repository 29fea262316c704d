"""FeatureCache: identity, resuming, sharing, budget, views, examples of their own lengths, memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import cached_examples, feature_cache, feature_store
from keras_transfer.data.pipeline import evaluation_batches, training_batches, unwrap
from keras_transfer.feature_cache import CachedExamples, View, compute, identity
from keras_transfer.feature_store import CacheTooLarge, Leaf, Store
from keras_transfer.tasks.base import Examples

COUNT, SIZE = 23, 4


class Stop(Exception):
    """Stands for whatever ends a pass early."""


def encoder(scale: float = 1.0, seed: int = 0, offset: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE,), name="x")
    x = keras.layers.Rescaling(scale, offset)(inputs)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="features")(x))


def examples(count: int = COUNT, key: str = "k", augment: bool = False) -> Examples:
    table = tf.constant(np.random.default_rng(0).normal(size=(count, SIZE)).astype("float32"))
    labels = np.arange(count, dtype=np.int32) % 3

    def noise(inputs, targets, seed):
        return {"x": inputs["x"] + tf.random.stateless_normal([SIZE], seed)}, targets

    return Examples(
        ids=[str(number) for number in range(count)],
        load=lambda index: ({"x": tf.gather(table, index)}, {"label": tf.gather(tf.constant(labels), index)}),
        meta=[{}] * count,
        targets={"label": labels},
        key=key,
        augment=noise if augment else None,
    )


def outputs(model: keras.Model, of: Examples) -> np.ndarray:
    found = np.zeros((len(of), 3), "float32")
    for batch in evaluation_batches(of, 8).dataset:
        found[batch["index"].numpy()] = model(unwrap(batch["inputs"]), training=False)
    return found


def values(cache: feature_store.FeatureCache) -> np.ndarray:
    return next(iter(cache.arrays.values()))


def test_features_are_those_of_the_encoder_in_inference_mode(tmp_path):
    model, data = encoder(), examples()
    cache = compute(model, data, batch_size=4, directory=tmp_path)
    assert len(cache) == COUNT and cache.complete
    np.testing.assert_allclose(values(cache), outputs(model, data), atol=1e-6)


def test_folded_constants_give_the_same(tmp_path, monkeypatch):
    model, data = encoder(), examples()
    monkeypatch.setattr(feature_cache, "FOLD_FROM", 0)
    np.testing.assert_allclose(values(compute(model, data, directory=tmp_path)), outputs(model, data), atol=1e-6)


def test_constants_are_folded_where_the_pass_is_long_for_the_weights(tmp_path, monkeypatch):
    model, asked = encoder(), []  # 60 bytes of weights
    make = feature_cache.encode_function
    monkeypatch.setattr(feature_cache, "encode_function", lambda m, fold, *how: asked.append(fold) or make(m, fold))
    for examples_per_byte in (1, 1 / 4):
        monkeypatch.setattr(feature_cache, "FOLD_FROM", examples_per_byte)
        compute(model, examples(), directory=tmp_path / str(examples_per_byte))
    assert asked == [False, True]


def test_a_second_pass_computes_nothing(tmp_path, monkeypatch):
    compute(encoder(), examples(), directory=tmp_path)
    monkeypatch.setattr(feature_cache, "encode_function", lambda *a, **k: pytest.fail("computes again"))
    # Another model with equal weights, built after others: what Keras calls its layers must not matter.
    keras.layers.Rescaling(2), keras.layers.Dropout(0.1)
    assert compute(encoder(), examples(), directory=tmp_path).complete


def test_the_key_tells_apart_what_gives_other_features():
    base = identity(encoder(), examples())
    assert identity(encoder(), examples()) == base
    view = View(0, 1, "light", 8)
    others = {
        "weights": identity(encoder(seed=1), examples()),
        "computed in bfloat16": identity(encoder(), examples(), in_bfloat16=True),
        "preprocessing": identity(encoder(scale=0.5), examples()),
        "offset": identity(encoder(offset=1.0), examples()),
        "data": identity(encoder(), examples(key="other")),
        "view": identity(encoder(), examples(), view),
        "epoch": identity(encoder(), examples(), replace(view, epoch=1)),
        "seed": identity(encoder(), examples(), replace(view, seed=2)),
    }
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        others["precision"] = identity(encoder(), examples())
    finally:
        keras.config.set_dtype_policy("float32")
    assert len({base, *others.values()}) == 1 + len(others)


def test_features_may_be_computed_in_bfloat16_and_are_kept_apart(tmp_path):
    model = encoder()
    exact = compute(model, examples(), directory=tmp_path)
    fast = compute(model, examples(), directory=tmp_path, encode=feature_cache.Encode(model, in_bfloat16=True))
    (one,), (two,) = exact.arrays.values(), fast.arrays.values()
    assert two.dtype == np.float32 and not np.array_equal(one, two)
    np.testing.assert_allclose(two, one, rtol=0.02, atol=0.02)
    assert {layer.dtype_policy.name for layer in model._flatten_layers()} == {"float32"}


def test_a_frozen_flag_is_not_part_of_the_key():
    model = encoder()
    base = identity(model, examples())
    for layer in model.layers:
        layer.trainable = False
    assert identity(model, examples()) == base


def test_examples_without_a_key_are_refused(tmp_path):
    with pytest.raises(ValueError, match="examples.key"):
        compute(encoder(), examples(key=""), directory=tmp_path)


def test_a_pass_that_was_stopped_goes_on(tmp_path, monkeypatch):
    model, data, counted = encoder(), examples(), []

    def stop(done):
        if done >= 8:
            raise Stop

    with pytest.raises(Stop):
        compute(model, data, batch_size=4, directory=tmp_path, progress=stop)
    assert Store(tmp_path).rows()[0]["complete"] is False
    make = feature_cache.encode_function

    def counting(model, *how):
        encode = make(model, *how)
        return lambda inputs: (counted.append(len(inputs)), encode(inputs))[1]

    monkeypatch.setattr(feature_cache, "encode_function", counting)
    # Another batch size: what is done is known by example.
    cache = compute(model, data, batch_size=5, directory=tmp_path)
    assert sum(counted) == 15
    np.testing.assert_allclose(values(cache), outputs(model, data), atol=1e-6)


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_feature_cache import compute, encoder, examples
compute(encoder(), examples(), batch_size=4, directory=Path(sys.argv[1]),
        progress=lambda done: os.kill(os.getpid(), 9) if done >= 12 else None)
"""


def test_a_pass_that_was_killed_goes_on(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)], check=False)
    assert done.returncode == -9
    assert [row["complete"] for row in Store(tmp_path).rows()] == [False]
    model, data = encoder(), examples()
    cache = compute(model, data, batch_size=4, directory=tmp_path)
    np.testing.assert_allclose(values(cache), outputs(model, data), atol=1e-6)


def test_two_that_want_the_same_compute_it_once(tmp_path, monkeypatch):
    model, data, passes, found = encoder(), examples(), [], []
    make = feature_cache.encode_function

    def slow(model, *how):
        passes.append(1)
        encode = make(model, *how)

        def delayed(inputs):
            time.sleep(0.05)
            return encode(inputs)

        return delayed

    monkeypatch.setattr(feature_cache, "encode_function", slow)
    pair = [threading.Thread(target=lambda: found.append(compute(model, data, directory=tmp_path))) for _ in range(2)]
    for thread in pair:
        thread.start()
    for thread in pair:
        thread.join()
    assert len(passes) == 1
    np.testing.assert_array_equal(values(found[0]), values(found[1]))


def test_what_was_used_longest_ago_gives_way(tmp_path):
    store = Store(tmp_path, budget=10_000)
    leaf = [Leaf((25,), "float32")]  # 1,000 bytes for ten rows, and some for the marks
    for number, key in enumerate(("old", "new")):
        store.create(key, 10, leaf, "t")
        os.utime(tmp_path / key / "cache.json", (number, number))
    store._budget = 3_000
    store.create("third", 10, leaf, "t")
    assert {row["key"] for row in store.rows()} == {"new", "third"}


def test_a_cache_in_use_is_not_evicted(tmp_path):
    held = compute(encoder(), examples(), directory=tmp_path)
    store = Store(tmp_path)
    assert store._evict(held.folder) == 0 and held.folder.exists()
    folder = held.folder
    del held
    assert store._evict(folder) > 0 and not folder.exists()


def test_what_exceeds_the_budget_is_refused_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE_GB", "1e-8")
    with pytest.raises(CacheTooLarge, match="KERAS_TRANSFER_CACHE_GB"):
        compute(encoder(), examples(), directory=tmp_path)
    monkeypatch.setenv("KERAS_TRANSFER_CACHE_GB", "many")
    with pytest.raises(ValueError, match="number of gigabytes"):
        Store(tmp_path).budget()


def test_the_default_budget_is_a_share_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_TRANSFER_CACHE_GB", raising=False)
    assert 0 < Store(tmp_path / "not" / "yet").budget() <= 50e9


@pytest.mark.parametrize("in_memory", [True, False])
def test_training_batches_are_the_features_in_the_order_of_the_examples(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(cached_examples, "IN_MEMORY_BYTES", 2**20 if in_memory else 0)
    model, data = encoder(), examples()
    cached = CachedExamples(compute(model, data, directory=tmp_path), data)
    whole = outputs(model, data)
    live, fast = training_batches(data, 4, seed=3), training_batches(cached, 4, seed=3)
    assert live.steps == fast.steps
    for one, other in zip(live.dataset.take(9), fast.dataset.take(9), strict=True):
        np.testing.assert_array_equal(one["index"], other["index"])
        np.testing.assert_array_equal(one["targets"]["label"], other["targets"]["label"])
        np.testing.assert_allclose(other["inputs"], whole[one["index"].numpy()], atol=1e-6)
    inputs, targets = cached.load(tf.constant(5, tf.int64))
    np.testing.assert_allclose(inputs, whole[5], atol=1e-6)
    assert int(targets["label"]) == 5 % 3


@pytest.mark.parametrize("in_memory", [True, False])
def test_each_epoch_sees_another_view_the_one_that_live_augmentation_gives(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(cached_examples, "IN_MEMORY_BYTES", 2**20 if in_memory else 0)
    model, data = encoder(), examples(augment=True)
    views = [compute(model, data, directory=tmp_path, view=View(k, 3, "noise", 4)) for k in range(2)]
    cached = training_batches(CachedExamples(views, data), 4, seed=3)
    live = training_batches(data, 4, seed=3)
    epochs = 3
    for step, (one, other) in enumerate(
        zip(live.dataset.take(live.steps * epochs), cached.dataset.take(live.steps * epochs), strict=True)
    ):
        expected = model(unwrap(one["inputs"]), training=False)
        same = np.allclose(expected, other["inputs"], atol=1e-5)
        assert same == (step < 2 * live.steps), "the third epoch sees the first view again"
        np.testing.assert_array_equal(one["targets"]["label"], other["targets"]["label"])


def test_mixed_views_keep_their_mixed_targets(tmp_path):
    def mix(inputs, targets, seeds):
        share = tf.random.stateless_uniform([tf.shape(seeds)[0], 1], seeds[0])
        turned = tf.reverse(targets["label"], [0])
        return {"x": inputs["x"] * share}, {"label": targets["label"] * share + turned * (1 - share)}

    plain = examples()
    one_hot = np.eye(3, dtype="float32")[plain.targets["label"]]

    def load(index):
        return plain.load(index)[0], {"label": tf.gather(tf.constant(one_hot), index)}

    data = replace(plain, load=load, targets={"label": one_hot}, augment_batch=mix)
    cached = CachedExamples(compute(encoder(), data, directory=tmp_path, view=View(0, 3, "mix", 4)), data)
    model = encoder()
    live, fast = training_batches(data, 4, seed=3), training_batches(cached, 4, seed=3)
    for one, other in zip(live.dataset.take(5), fast.dataset.take(5), strict=True):
        np.testing.assert_allclose(one["targets"]["label"], other["targets"]["label"], atol=1e-6)
        np.testing.assert_allclose(model(unwrap(one["inputs"])), other["inputs"], atol=1e-5)


def test_texts_take_the_space_of_their_own_length(tmp_path):
    lengths = np.array([1, 5, 2, 7, 3, 3, 8], np.int32)
    data = token_examples(lengths)
    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    sequence = keras.layers.Embedding(50, 4)(tokens)
    model = keras.Model({"token_ids": tokens, "padding_mask": mask}, {"sequence": sequence, "mask": mask})
    cache = compute(model, data, batch_size=2, directory=tmp_path)
    assert {array.shape[0] for array in cache.arrays.values()} == {int(lengths.sum())}
    cached = CachedExamples(cache, data, name="boundary", extras=["padding_mask"])
    live, fast = training_batches(data, 2, seed=1), training_batches(cached, 2, seed=1)
    for one, other in zip(live.dataset.take(4), fast.dataset.take(4), strict=True):
        expected = model(one["inputs"])
        real = one["inputs"]["padding_mask"].numpy()[..., None]
        np.testing.assert_allclose(other["inputs"]["boundary"]["sequence"], expected["sequence"] * real, atol=1e-6)
        np.testing.assert_array_equal(other["inputs"]["boundary"]["mask"], expected["mask"])
        np.testing.assert_array_equal(other["inputs"]["padding_mask"], one["inputs"]["padding_mask"])


def token_examples(lengths: np.ndarray) -> Examples:
    ids = np.random.default_rng(0).integers(1, 50, (len(lengths), 8)).astype("int32")

    def load_batch(index, width):
        mask = tf.cast(tf.range(width)[None] < tf.gather(tf.constant(lengths), index)[:, None], tf.int32)
        tokens = tf.gather(tf.constant(ids), index)[:, :width] * mask
        inputs = {"token_ids": tokens, "padding_mask": mask}
        inputs = {name: tf.ensure_shape(value, [index.shape[0], None]) for name, value in inputs.items()}
        return inputs, {"label": tf.cast(index % 2, tf.int32)}

    def load(index):
        loaded = load_batch(index[None], tf.gather(tf.constant(lengths), index))
        return tf.nest.map_structure(lambda value: value[0], loaded)

    return Examples(
        ids=[str(number) for number in range(len(lengths))],
        load=load,
        load_batch=load_batch,
        meta=[{}] * len(lengths),
        lengths=lengths,
        bucket_lengths=(4, 8),
        targets={"label": (np.arange(len(lengths)) % 2).astype("int32")},
        key="texts",
    )


def test_a_cache_of_another_format_is_computed_anew(tmp_path, monkeypatch):
    cache = compute(encoder(), examples(), directory=tmp_path)
    file = cache.folder / "cache.json"
    file.write_text(file.read_text().replace(f'"format": {feature_store.CACHE_FORMAT}', '"format": 0'))
    assert compute(encoder(), examples(), directory=tmp_path).complete
    (cache.folder / "t0.npy").unlink()
    np.testing.assert_allclose(values(compute(encoder(), examples(), directory=tmp_path)), values(cache), atol=1e-6)


def test_the_list_says_what_each_cache_is(tmp_path):
    compute(encoder(), examples(), directory=tmp_path, describe="digits train")
    (row,) = Store(tmp_path).rows()
    assert (row["describe"], row["examples"], row["complete"]) == ("digits train", COUNT, True)
    assert row["megabytes"] >= 0 and row["last_used"] > 1e9
