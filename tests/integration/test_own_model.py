"""The import into an existing TensorFlow project: the caller's own model and datasets through the public pieces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import draw_photo

import keras_transfer
from keras_transfer import Phase, Recipe, build, evaluation, fit, freeze, run_phase, unfreeze
from keras_transfer.progress import Log

SIZE = 32
NAMES = ["blue", "red"]
SCRIPT = Path(__file__).parent / "own_model_on_devices.py"


def own_model(units: int = 2) -> keras.Model:
    """Raw pixels in, logits out; a nested backbone with BatchNormalization and dropout, as a user would write it."""
    keras.utils.set_random_seed(3)
    base_in = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 3, 2, activation="relu", name="conv1")(base_in)
    x = keras.layers.BatchNormalization(name="bn1")(x)
    x = keras.layers.Conv2D(16, 3, 2, activation="relu", name="conv2")(x)
    x = keras.layers.BatchNormalization(name="bn2")(x)
    base = keras.Model(base_in, keras.layers.Conv2D(16, 3, 2, activation="relu", name="conv3")(x), name="base")
    inputs = keras.Input((SIZE, SIZE, 3))
    features = keras.layers.GlobalAveragePooling2D()(base(keras.layers.Rescaling(1 / 127.5, -1)(inputs)))
    return keras.Model(inputs, keras.layers.Dense(units, name="logits")(features), name="mine")


def photos(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 2
    return np.stack([np.asarray(draw_photo(k, 2, SIZE, [seed, n]), np.uint8) for n, k in enumerate(labels)]), labels


def dataset(count: int, seed: int = 0, batch: int = 8) -> tf.data.Dataset:
    images, labels = photos(count, seed)
    return tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(batch)


def test_freeze_train_unfreeze_train_export(tmp_path):
    model, train, validation = own_model(), dataset(22), dataset(10, 1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    head = freeze(model)
    assert head == ["logits/kernel", "logits/bias"]
    before = {w.path: w.numpy() for w in model.weights}
    first = run_phase(model, train, validation, Phase(epochs=3, learning_rate=0.05), loss=loss, metrics=["accuracy"])
    assert first.trained == head and [row["epoch"] for row in first.epochs] == [0, 1, 2, 3]
    assert first.best["val_accuracy"] >= first.epochs[0]["val_accuracy"]
    moved = [path for path, value in before.items() if not np.array_equal(value, model_weight(model, path))]
    assert set(moved) <= set(head)

    tuned = unfreeze(model, "layers:conv3")
    assert tuned == ["conv3/kernel", "conv3/bias", *head]
    before = {w.path: w.numpy() for w in model.weights}
    second = run_phase(model, train, validation, Phase(epochs=8, learning_rate=0.02), loss=loss, metrics=["accuracy"])
    assert second.best["val_accuracy"] >= first.best["val_accuracy"] and second.best["val_accuracy"] > 0.9
    moved = {path for path, value in before.items() if not np.array_equal(value, model_weight(model, path))}
    assert moved <= set(tuned) and "conv3/kernel" in moved

    version = keras_transfer.export(model, tmp_path, task="image_classification", labels=NAMES, name="mine")
    served = tf.saved_model.load(str(version)).signatures
    images, labels = photos(6, 1)
    encoded = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    answers = served["serving_default"](image_bytes=encoded)
    expected = tf.nn.softmax(model(images.astype("float32"), training=False)).numpy()
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-4)
    assert [name.decode() for name in answers["label"].numpy()] == [NAMES[k] for k in expected.argmax(1)]


def model_weight(model: keras.Model, path: str) -> np.ndarray:
    return next(w.numpy() for w in model.weights if w.path == path)


def test_the_best_epoch_stays_without_metrics_too():
    model, validation = own_model(), dataset(10, 1)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = run_phase(model, dataset(16), validation, Phase(epochs=3, learning_rate=0.5, trainable="all"))
    found = float(tf.reduce_mean(model.loss.call(photos(10, 1)[1], model(photos(10, 1)[0].astype("float32")))))
    assert found == pytest.approx(min(row["val_loss"] for row in history.epochs), rel=1e-4)
    assert history.best["val_loss"] == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize(
    ("units", "loss", "one_hot"),
    [
        (2, keras.losses.SparseCategoricalCrossentropy(from_logits=True), False),
        (2, keras.losses.CategoricalCrossentropy(from_logits=True), True),
        (1, keras.losses.BinaryCrossentropy(from_logits=True), False),
    ],
    ids=["sparse", "one_hot", "binary"],
)
def test_accuracy_is_the_one_that_fits_the_targets(units: int, loss, one_hot: bool):
    model, data = own_model(units), dataset(16)
    data = data.map(lambda x, y: (x, tf.one_hot(y, 2) if one_hot else y))
    freeze(model)
    history = run_phase(model, data, data, Phase(epochs=1, learning_rate=1e-9), loss=loss, metrics=["accuracy"])
    images, labels = photos(16, 0)
    logits = model(images.astype("float32")).numpy()
    guessed = logits.argmax(1) if units == 2 else (logits[:, 0] > 0).astype(int)
    assert history.best["val_accuracy"] == pytest.approx(np.mean(guessed == labels))


def test_lower_blocks_learn_more_slowly_with_layer_decay():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    moved = {}
    for decay in (1.0, 0.1):
        model = own_model()
        before = {w.path: w.numpy() for w in model.weights}
        # One step of Adam moves every weight that has a gradient by the learning rate, whatever the gradient's size.
        phase = Phase(
            epochs=1, learning_rate=1e-3, trainable="all", layer_decay=decay, warmup_share=0.0, schedule="constant"
        )
        run_phase(model, dataset(16, batch=16), None, phase, loss=loss)
        moved[decay] = {
            name: float(np.abs(model_weight(model, f"{name}/kernel") - before[f"{name}/kernel"]).max())
            for name in ("conv1", "conv2", "conv3", "logits")
        }
    assert all(value == pytest.approx(1e-3, rel=0.02) for value in moved[1.0].values())
    assert moved[0.1]["logits"] == pytest.approx(1e-3, rel=0.02)
    assert moved[0.1]["conv1"] < moved[0.1]["conv2"] < moved[0.1]["conv3"] == pytest.approx(1e-4, rel=0.02)


def test_weights_of_examples_count():
    images, labels = photos(16, 0)
    weights = (labels == 1).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels, weights)).batch(16)
    model = own_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    run_phase(model, data, None, Phase(epochs=20, learning_rate=0.1, trainable="none"), loss=loss)
    assert (model(images.astype("float32")).numpy().argmax(1) == 1).all(), "the other class weighed nothing"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: {"train": dataset(8).repeat()}, "never ends"),
        (lambda: {"train": dataset(8).take(0)}, "at least one batch"),
        (lambda: {"train": tf.data.Dataset.range(3)}, "inputs, targets"),
        (lambda: {"loss": None}, "expected a Keras loss"),
        (lambda: {"phase": Phase(epochs=1)}, "learning rate"),
        (lambda: {"phase": Phase(epochs=0, learning_rate=1.0)}, "epochs"),
    ],
)
def test_what_cannot_be_trained_is_said(change, says: str):
    given = {"train": dataset(8), "validation": None, "phase": Phase(epochs=1, learning_rate=0.1), "loss": "mse"}
    with pytest.raises(ValueError, match=says):
        run_phase(own_model(), **{**given, **change()})


@pytest.mark.slow
def test_two_devices_train_an_own_model_as_one_does(tmp_path):
    found = []
    for count in (1, 2):
        out = tmp_path / f"{count}.npz"
        done = subprocess.run([sys.executable, str(SCRIPT), str(count), str(out)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(dict(np.load(out)))
    assert len(found[0]["numbers"]) == 16
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-5, rtol=1e-5, err_msg=name)


def test_build_gives_a_plain_model():
    recipe = Recipe(
        task="image_classification",
        backbone=keras_transfer.BackboneSpec(name="mobilenet_v3_small", weights="none", image_size=SIZE),
    )
    model = build(recipe, NAMES)
    assert model.input_shape == (None, SIZE, SIZE, 3) and model.output_shape == (None, 2)
    assert set(freeze(model)) == {v.path for v in model.trainable_variables}
    assert len(model.trainable_variables) == 2


def test_fit_takes_datasets_and_gives_a_plain_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, labels = photos(24, 0)
    others, other_labels = photos(8, 1)
    run = fit(
        {
            "train": tf.data.Dataset.from_tensor_slices((images, labels)),
            "validation": tf.data.Dataset.from_tensor_slices((others, other_labels)).batch(3),
        },
        label_names=NAMES,
        log=Log(quiet=True),
        name="made",
        backbone={"name": "mobilenet_v3_small", "weights": "none", "image_size": SIZE},
        fine_tune={"epochs": 0},
        **{"export.enabled": False, "head.epochs": 1},
    )
    assert run.labels.names == ("blue", "red") and run.metrics_by_split["validation"]["accuracy"] >= 0.5
    assert isinstance(run.model, keras.Model)
    logits = run.model(images[:3].astype("float32"))
    assert logits.shape == (3, 2) and not np.allclose(tf.reduce_sum(logits, -1), 1.0), "logits, no probabilities"
    again = keras.saving.load_model(run.path / "model.keras", compile=False)
    np.testing.assert_allclose(again(images[:3].astype("float32")), logits, atol=1e-5)


def test_validation_is_scored_once_where_the_last_epoch_stays_and_without_class_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scored: list[int] = []
    score = evaluation.Predictor.__call__

    def counted(self, task, examples, *rest):
        scored.append(len(examples))
        return score(self, task, examples, *rest)

    monkeypatch.setattr(evaluation.Predictor, "__call__", counted)
    images, labels = photos(24, 0)
    kept = np.flatnonzero((labels == 0) | (np.arange(24) < 8))  # 12 blue, 4 red
    parts = {"train": (images[kept], labels[kept]), "validation": photos(8, 1), "test": photos(6, 2)}
    run = fit(
        {split: tf.data.Dataset.from_tensor_slices(part) for split, part in parts.items()},
        label_names=NAMES,
        log=Log(quiet=True),
        name="made",
        class_weights="balanced",
        backbone={"name": "mobilenet_v3_small", "weights": "none", "image_size": SIZE},
        head={"epochs": 0},
        fine_tune={"epochs": 2, "learning_rate": 1e-2, "trainable": "all", "keep": "last", "label_smoothing": 0.0},
        **{"export.enabled": False, "cache": "off"},
    )
    assert scored == [8, 8, 6], "after each epoch, and the test split"
    images, labels = parts["validation"]
    logits = run.model(images.astype("float32"), training=False)
    each = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True).numpy()
    weighted = each * np.where(labels == 0, 16 / (2 * 12), 16 / (2 * 4))
    assert abs(weighted.mean() - each.mean()) > 0.1, "weights would make a difference"
    rows = [row for row in run.history() if row["phase"] == "fine_tune"]
    assert rows[-1]["val_loss"] == run.metrics_by_split["validation"]["loss"] == pytest.approx(each.mean(), rel=1e-4)
