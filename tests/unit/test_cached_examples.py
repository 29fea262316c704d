"""CachedExamples: noise on features, and features that are kept in float16."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_feature_cache import COUNT, encoder, examples, outputs, token_examples, values

from keras_transfer import cached_examples, feature_cache
from keras_transfer.cached_examples import CachedExamples
from keras_transfer.data.pipeline import training_batches
from keras_transfer.feature_cache import compute, identity
from keras_transfer.feature_store import Leaf, Store


def by_example(
    cached: CachedExamples, batch_size: int, seed: int, epochs: int = 2
) -> dict[tuple[int, int], np.ndarray]:
    """{(epoch, example): features} of the training batches."""
    batches = training_batches(cached, batch_size, seed)
    found = {}
    for step, batch in enumerate(batches.dataset.take(epochs * batches.steps)):
        for row, number in enumerate(batch["index"].numpy()):
            if batch["real"][row]:
                found[step // batches.steps, int(number)] = batch["inputs"][row].numpy()
    return found


@pytest.mark.parametrize("in_memory", [True, False])
def test_noise_is_a_share_of_each_features_own_deviation(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(cached_examples, "IN_MEMORY_BYTES", 2**20 if in_memory else 0)
    model, data = encoder(), examples(600)
    cache = compute(model, data, directory=tmp_path)
    clean, noisy = values(cache), by_example(CachedExamples(cache, data, noise=0.5, seed=3), 50, 3)
    drawn = np.stack([noisy[0, number] - clean[number] for number in range(600)])
    np.testing.assert_allclose(drawn.std(0), 0.5 * clean.std(0), rtol=0.1)
    assert np.abs(drawn.mean(0)).max() < 0.1 * clean.std(0).max()
    again = np.stack([noisy[1, number] - clean[number] for number in range(600)])
    assert np.abs(np.corrcoef(drawn[:, 0], again[:, 0])[0, 1]) < 0.15, "another epoch draws anew"


def test_noise_depends_on_seed_example_and_epoch_and_not_on_order(tmp_path):
    model, data = encoder(), examples()
    cache = compute(model, data, directory=tmp_path)
    one = by_example(CachedExamples(cache, data, noise=0.5, seed=3), 4, seed=3)
    other = by_example(CachedExamples(cache, data, noise=0.5, seed=3), 7, seed=8)
    assert len(one) == 2 * COUNT
    for key, value in one.items():
        np.testing.assert_allclose(value, other[key], atol=1e-6)
    seeded = by_example(CachedExamples(cache, data, noise=0.5, seed=4), 4, seed=3)
    assert all(np.abs(value - seeded[key]).max() > 1e-4 for key, value in one.items())


def test_noise_on_texts_leaves_padding_and_masks_alone(tmp_path):
    lengths = np.array([1, 5, 2, 7, 3, 3, 8], np.int32)
    data = token_examples(lengths)
    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    sequence = keras.layers.Embedding(50, 4)(tokens)
    model = keras.Model({"token_ids": tokens, "padding_mask": mask}, {"sequence": sequence, "mask": mask})
    cache = compute(model, data, batch_size=2, directory=tmp_path)
    index = tf.range(len(lengths), dtype=tf.int64)
    clean, _ = CachedExamples(cache, data).load_view(index, tf.constant(8), tf.constant(0))
    noisy, _ = CachedExamples(cache, data, noise=0.5).load_view(index, tf.constant(8), tf.constant(0))
    wider, _ = CachedExamples(cache, data, noise=0.5).load_view(index, tf.constant(11), tf.constant(0))
    np.testing.assert_array_equal(noisy["mask"], clean["mask"])
    changed = (noisy["sequence"].numpy() != clean["sequence"].numpy()).all(-1)
    np.testing.assert_array_equal(changed, clean["mask"].numpy() == 1)
    np.testing.assert_allclose(wider["sequence"][:, :8], noisy["sequence"], atol=1e-6)


def test_float16_takes_half_the_space_and_comes_as_float32(tmp_path, monkeypatch):
    model, data = encoder(), examples()
    exact, half = (
        compute(model, data, directory=tmp_path),
        compute(model, data, directory=tmp_path, precision="float16"),
    )
    assert half.bytes * 2 == exact.bytes and half.folder != exact.folder
    assert feature_cache.bytes_of_example(model, data, "float16") == 6
    for held in (2**20, 0):
        monkeypatch.setattr(cached_examples, "IN_MEMORY_BYTES", held)
        features, _ = CachedExamples(half, data).load_view(tf.range(COUNT, dtype=tf.int64), tf.constant(0), 0)
        assert features.dtype == tf.float32
        np.testing.assert_allclose(features, outputs(model, data), rtol=1e-3, atol=1e-3)
    assert half.read("t0", np.arange(3)).dtype == np.float32
    assert identity(model, data, None, "float16") != identity(model, data)


def test_a_pass_in_float16_goes_on_where_it_stopped(tmp_path):
    model, data = encoder(), examples()

    def stop(done):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(model, data, batch_size=4, directory=tmp_path, progress=stop, precision="float16")
    (row,) = Store(tmp_path).rows()
    assert not row["complete"]
    cache = compute(model, data, batch_size=5, directory=tmp_path, precision="float16")
    np.testing.assert_allclose(values(cache), outputs(model, data), rtol=1e-3, atol=1e-3)


def test_what_float16_cannot_hold_is_refused_with_the_mend(tmp_path):
    cache = Store(tmp_path).create("k", 2, [Leaf((1,), "float16")], "t")
    cache.write("t0", np.array([0]), np.array([[np.inf]], np.float32))  # what was infinite stays so
    with pytest.raises(ValueError, match="cache_precision float32"):
        cache.write("t0", np.array([0, 1]), np.array([[1.0], [70_000.0]], np.float32))


def test_the_deviation_is_computed_in_chunks(monkeypatch):
    array = np.random.default_rng(0).normal(1e3, 2, (101, 2, 3)).astype(np.float32)
    whole = cached_examples._deviation(array)
    monkeypatch.setattr(cached_examples, "CHUNK_BYTES", 100)
    np.testing.assert_allclose(cached_examples._deviation(array), whole, rtol=1e-5)
    np.testing.assert_allclose(whole, array.std((0, 1)), rtol=1e-3)
    np.testing.assert_allclose(cached_examples._deviation(array[:, 0, 0]), array[:, 0, 0].std(), rtol=1e-3)
