"""The decoder of masks: shapes for every pyramid, and a loss that says what the pixels that count say."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.vision import mask_decoder

IGNORE = 255


def pyramid(size: int, strides: tuple[int, ...] = (4, 8, 16, 32), channels: int = 12) -> dict[str, keras.KerasTensor]:
    return {
        str(stride): keras.KerasTensor((None, -(-size // stride), -(-size // stride), channels)) for stride in strides
    }


def random_maps(features: dict[str, keras.KerasTensor], count: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=(count, *spec.shape[1:])).astype(np.float32) for name, spec in features.items()}


@pytest.mark.parametrize(
    ("size", "strides"),
    [(64, (4, 8, 16, 32)), (96, (8, 16, 32)), (64, (16,)), (75, (4, 8, 16, 32)), (100, (4, 32)), (33, (4, 8))],
)
def test_logits_for_every_pixel_from_any_pyramid(size, strides):
    features = pyramid(size, strides)
    head = mask_decoder.build(features, 3, size, width=16)
    logits = head(random_maps(features))
    assert logits.shape == (2, size, size, 3) and logits.dtype == tf.float32
    assert np.isfinite(logits).all()


def test_an_example_does_not_depend_on_its_batch():
    features = pyramid(64)
    head = mask_decoder.build(features, 2, 64, width=16)
    maps = random_maps(features, 3)
    together = head(maps).numpy()
    alone = head({name: value[1:2] for name, value in maps.items()}).numpy()
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


@pytest.mark.parametrize("size", [64, 75])
def test_nothing_is_shifted_on_the_way_up(size):
    """With kernels that are symmetric, mirrored maps give mirrored logits: enlarging moves nothing to one side."""
    features = pyramid(size, channels=8)
    head = mask_decoder.build(features, 2, size, width=16)
    for weight in head.trainable_weights:
        if len(weight.shape) == 4:
            kernel = weight.numpy()
            weight.assign((kernel + kernel[::-1] + kernel[:, ::-1] + kernel[::-1, ::-1]) / 4)
    maps = random_maps(features)
    mirrored = {name: value[:, ::-1, ::-1] for name, value in maps.items()}
    np.testing.assert_allclose(head(mirrored), head(maps).numpy()[:, ::-1, ::-1], atol=1e-4)


def test_every_level_is_heard():
    features = pyramid(64, channels=8)
    head = mask_decoder.build(features, 2, 64, width=16)
    maps = random_maps(features)
    before = head(maps).numpy()
    for name in features:
        changed = {**maps, name: np.roll(maps[name], 1, -1)}
        assert np.abs(head(changed).numpy() - before).max() > 1e-3


def naive_loss(target: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> float:
    """The loss of one example, pixel by pixel."""
    classes = logits.shape[-1]
    total, counted = 0.0, 0
    overlap, real, given = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for place in np.ndindex(*target.shape):
        if target[place] == IGNORE:
            continue
        chances = np.exp(logits[place] - logits[place].max())
        chances /= chances.sum()
        total -= weights[target[place]] * np.log(chances[target[place]])
        counted += 1
        overlap[target[place]] += chances[target[place]]
        real[target[place]] += 1
        given += chances
    smooth = mask_decoder.SMOOTH
    missed = [1 - (2 * overlap[c] + smooth) / (real[c] + given[c] + smooth) for c in range(classes) if real[c]]
    return total / max(counted, 1) + mask_decoder.DICE_SHARE * (float(np.mean(missed)) if missed else 0.0)


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    targets = random.integers(0, 3, (4, 9, 7)).astype(np.uint8)
    targets[1] = np.where(targets[1] == 2, 0, targets[1])  # a class that is not there
    targets[2, :5] = IGNORE
    targets[3] = IGNORE
    return targets, random.normal(size=(4, 9, 7, 3)).astype(np.float32)


@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 3.0], np.float32)])
def test_loss_equals_the_naive_one(batch, weights):
    targets, logits = batch
    found = mask_decoder.loss(tf.constant(targets), tf.constant(logits), weights)
    assert found.shape == (4,) and found.dtype == tf.float32
    each = np.ones(3) if weights is None else weights
    np.testing.assert_allclose(
        found, [naive_loss(t, row, each) for t, row in zip(targets, logits, strict=True)], rtol=1e-5
    )
    assert float(found[3]) == 0.0


def test_ignored_pixels_pull_nowhere(batch):
    targets, logits = batch
    with tf.GradientTape() as tape:
        variable = tf.constant(logits)
        tape.watch(variable)
        total = tf.reduce_sum(mask_decoder.loss(tf.constant(targets), variable))
    gradient = tape.gradient(total, variable).numpy()
    assert np.isfinite(gradient).all()
    assert not gradient[targets == IGNORE].any()
    assert np.abs(gradient[targets != IGNORE]).sum(-1).min() > 0


def test_loss_of_half_precision_logits_is_computed_in_full():
    targets = tf.constant(np.random.default_rng(0).integers(0, 2, (1, 256, 256)).astype(np.uint8))
    logits = np.random.default_rng(1).normal(size=(1, 256, 256, 2)).astype(np.float32)
    half = tf.cast(tf.constant(logits), tf.bfloat16)
    found = mask_decoder.loss(targets, half)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, mask_decoder.loss(targets, tf.cast(half, tf.float32)), rtol=1e-6)


def test_right_answers_cost_nothing_and_wrong_ones_much(batch):
    targets, _ = batch
    right = 30.0 * (targets[..., None] == np.arange(3)).astype(np.float32)
    assert float(tf.reduce_max(mask_decoder.loss(tf.constant(targets), tf.constant(right)))) < 1e-3
    wrong = mask_decoder.loss(tf.constant(targets[:3]), tf.constant(np.roll(right, 1, -1)[:3]))
    assert float(tf.reduce_min(wrong)) > 5


def test_it_saves_and_loads(tmp_path):
    features = pyramid(64, (8, 32))
    head = mask_decoder.build(features, 2, 64, width=16, dropout=0.2)
    head.save(tmp_path / "head.keras")
    maps = random_maps(features)
    loaded = keras.saving.load_model(tmp_path / "head.keras")
    np.testing.assert_allclose(loaded(maps), head(maps), atol=1e-6)


def test_class_weights_follow_the_root_of_rarity():
    counts = np.array([900_000, 90_000, 900, 0])
    weights = mask_decoder.class_weights(counts)
    assert weights is not None and weights.dtype == np.float32
    assert weights @ counts / counts.sum() == pytest.approx(1, rel=1e-5)
    assert weights[1] / weights[0] == pytest.approx(10**0.5, rel=1e-5)
    assert weights[2] / weights[1] == pytest.approx(10, rel=1e-5)
    assert weights[3] == 1
    assert mask_decoder.class_weights(np.array([4, 1])) is None
    assert mask_decoder.class_weights(np.array([4, 1]), always=True) is not None
    assert mask_decoder.class_weights(np.array([0, 0])) is None
