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


def test_a_bright_cell_is_answered_where_it_is():
    """Of every level: the answer to one bright cell lies over that cell, not beside it."""
    features = pyramid(128, channels=8)
    head = mask_decoder.build(features, 1, 128, width=16)
    dark = {name: np.zeros((1, *spec.shape[1:]), np.float32) for name, spec in features.items()}
    nothing = head(dark).numpy()
    for name, spec in features.items():
        side = spec.shape[1]
        row, column = side // 2, side // 4
        lit = {key: value.copy() for key, value in dark.items()}
        lit[name][0, row, column] = 100.0
        change = np.abs(head(lit).numpy() - nothing)[0, :, :, 0]
        # Normalisation moves the rest of the map a little everywhere: look at where most of the change is.
        change = np.maximum(change - np.median(change), 0)
        weight = change**2 / (change**2).sum()
        middle = (weight.sum(1) @ (np.arange(128) + 0.5), weight.sum(0) @ (np.arange(128) + 0.5))
        stride = int(name)
        assert abs(middle[0] - (row + 0.5) * stride) <= max(stride / 2, 4)
        assert abs(middle[1] - (column + 0.5) * stride) <= max(stride / 2, 4)


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
