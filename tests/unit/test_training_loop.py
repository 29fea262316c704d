"""The training loop: best weights, early stop, a loss that is no number, interruption, resuming, pacing."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import training_loop
from keras_transfer.data.pipeline import Batches
from keras_transfer.recipe import Phase
from keras_transfer.training_loop import Watch, train_phase

PHASE = Phase(epochs=4, learning_rate=0.05, warmup_share=0.0, schedule="constant")


def squared(targets, outputs):
    return tf.reduce_sum((tf.cast(outputs, tf.float32) - targets["y"]) ** 2, axis=-1)


def line_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((2,), name="x")
    return keras.Model(inputs, keras.layers.Dense(1, name="out")(inputs))


def line_batches(rows=12, size=4, poison=False):
    x = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    y = x @ np.array([[2.0], [-1.0]], np.float32)
    if poison:
        y[-1] = np.nan
    index = np.arange(rows)
    element = {
        "inputs": {"x": x},
        "targets": {"y": y},
        "weight": np.full(rows, 1 / size, np.float32),
        "real": np.ones(rows, np.float32),
        "index": index,
    }
    dataset = tf.data.Dataset.from_tensor_slices(element).repeat().batch(size, drop_remainder=True)
    return Batches(dataset, rows // size, size, endless=True)


def scores(model, values):
    """A validation whose score follows a script, whatever the weights."""
    script = iter(values)
    return lambda: {"score": next(script), "loss": 1.0}


def test_it_learns():
    model = line_model()
    history = train_phase(model, line_batches(), None, Phase(epochs=60, learning_rate=0.1), squared)
    assert history.epochs[-1]["loss"] < 0.01 < history.epochs[0]["loss"]
    np.testing.assert_allclose(model.get_weights()[0].ravel(), [2, -1], atol=0.1)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_step_compiled_by_xla_trains_the_same(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        ends = []
        for xla in (False, True):
            model = line_model()
            history = train_phase(model, line_batches(), None, PHASE, squared, xla=xla)
            ends.append(
                [*(row["loss"] for row in history.epochs), *(value for w in model.get_weights() for value in w.ravel())]
            )
        assert ends[0][0] > ends[0][3]
        np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5 if policy == "float32" else 1e-2)
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_a_step_in_bfloat16_trains_nearly_the_same_and_leaves_a_model_of_float32():
    trained = []
    for fast in (False, True):
        model = line_model()
        config = model.get_config()
        layers = list(model._flatten_layers()) if fast else []
        history = train_phase(model, line_batches(), None, PHASE, squared, in_bfloat16=layers)
        assert model.get_config() == config
        assert {v.dtype for v in model.variables} == {"float32"}
        assert model(tf.ones([1, 2])).dtype == tf.float32
        trained.append((model.get_weights()[0], [row["loss"] for row in history.epochs]))
    for one, two in zip(*trained, strict=True):
        np.testing.assert_allclose(two, one, rtol=0.03, atol=0.01)
        assert not np.array_equal(two, one), "computed otherwise"


def test_gelu_in_one_pass_trains_the_same(monkeypatch):
    ends = []
    was = training_loop.fused_gelu.fused
    replaced = []
    monkeypatch.setattr(training_loop.fused_gelu, "fused", lambda function: replaced.append(function) or was(function))
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(training_loop.fused_gelu, "in_one_pass", lambda layers: contextlib.nullcontext())
        keras.utils.set_random_seed(1)
        inputs = keras.Input((2,), name="x")
        hidden = keras.layers.Dense(16, activation="gelu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1, name="out")(hidden))
        history = train_phase(model, line_batches(), None, PHASE, squared)
        ends.append([*(row["loss"] for row in history.epochs), *(v for w in model.get_weights() for v in w.ravel())])
        assert model.layers[1].activation is keras.activations.gelu
    assert replaced[0] is keras.activations.gelu, "the step was traced with it"
    assert ends[0][0] > ends[0][3]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_the_best_epoch_is_restored_and_the_state_before_counts():
    model = line_model()
    before = model.get_weights()
    history = train_phase(
        model, line_batches(), scores(model, [0.9, 0.5, 0.6, 0.7, 0.8]), PHASE, squared, primary="score"
    )
    assert history.best_epoch == 0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    history = train_phase(
        model, line_batches(), scores(model, [0.1, 0.5, 0.9, 0.7, 0.8]), PHASE, squared, primary="score"
    )
    assert history.best_epoch == 2


def test_the_last_epoch_is_kept_where_the_phase_says_so():
    phase = replace(PHASE, keep="last")
    values, ends = [0.9, 0.5, 0.8, 0.4, 0.3], []
    for chosen in (phase, PHASE):
        model = line_model()
        watch = Watch(save=lambda state: ends.append(state.weights))
        history = train_phase(
            model, line_batches(), scores(model, values), chosen, squared, primary="score", watch=watch
        )
        assert history.best_epoch == (4 if chosen.keep == "last" else 0)
        assert (history.best["val_score"], len(history.epochs)) == ((0.3 if chosen.keep == "last" else 0.9), 5)
        if chosen.keep == "last":
            for variable in model.variables:
                np.testing.assert_array_equal(variable.numpy(), ends[-1][variable.path])


def test_a_model_whose_head_is_random_is_not_scored_before():
    model = line_model()
    history = train_phase(
        model, line_batches(), scores(model, [0.1, 0.3, 0.2, 0.2]), PHASE, squared, primary="score", untrained=True
    )
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3, 4] and history.best_epoch == 2


def test_patience_ends_the_phase():
    phase = Phase(epochs=10, learning_rate=0.01, patience=2)
    model = line_model()
    history = train_phase(
        model, line_batches(), scores(model, [0.1, 0.5, 0.4, 0.3, 0.2]), phase, squared, primary="score"
    )
    assert (history.stopped, history.best_epoch, len(history.epochs)) == ("patience", 1, 4)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights():
    model = line_model()
    before = model.get_weights()
    history = train_phase(model, line_batches(poison=True), scores(model, [0.5]), PHASE, squared, primary="score")
    assert history.stopped == "not a number"
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_interruption_keeps_the_best_weights():
    model = line_model()

    def stop(epoch, epochs, step, steps, loss):
        if epoch == 3:
            raise KeyboardInterrupt

    watch = Watch(progress=stop)
    values = scores(model, [0.1, 0.9, 0.5])
    history = train_phase(model, line_batches(), values, PHASE, squared, primary="score", watch=watch)
    assert (history.stopped, history.best_epoch) == ("interrupted", 1)


def test_resuming_gives_the_weights_of_an_uninterrupted_training():
    whole = line_model()
    states = []
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    train_phase(
        whole, line_batches(), scores(whole, values), PHASE, squared, primary="score", watch=Watch(save=states.append)
    )
    resumed = line_model()
    state = states[1]
    assert state.epoch == 2
    history = train_phase(
        resumed,
        line_batches(),
        scores(resumed, values[3:]),
        PHASE,
        squared,
        primary="score",
        watch=Watch(restored=state),
    )
    assert [row["epoch"] for row in history.epochs] == [0, 1, 2, 3, 4]
    for one, two in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_clipping_bounds_the_step():
    loose, tight = line_model(), line_model()
    phase = Phase(epochs=1, learning_rate=0.05, warmup_share=0.0, schedule="constant", clip_norm=1e-9)
    start = loose.get_weights()[0]
    train_phase(loose, line_batches(), None, PHASE, squared)
    train_phase(tight, line_batches(), None, phase, squared)
    moved = [np.abs(model.get_weights()[0] - start).max() for model in (loose, tight)]
    assert moved[1] < moved[0]


def test_each_variable_moves_at_its_own_pace():
    model = line_model()
    kernel, bias = model.get_weights()
    train_phase(model, line_batches(), None, PHASE, squared, paces={"out/kernel": 0.0, "out/bias": 1.0})
    np.testing.assert_array_equal(model.get_weights()[0], kernel)
    assert np.abs(model.get_weights()[1] - bias).max() > 0


def test_variables_of_one_path_are_kept_apart():
    inputs = keras.Input((2,), name="x")
    towers = [keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs), name=name) for name in ("one", "two")]
    model = keras.Model(
        inputs, keras.layers.Dense(1, name="out")(keras.layers.Add()([tower(inputs) for tower in towers]))
    )
    assert [v.path for v in model.variables].count("dense/kernel") == 2
    before = model.get_weights()
    train_phase(model, line_batches(), scores(model, [0.9, 0.1, 0.1, 0.1, 0.1]), PHASE, squared, primary="score")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_phase_that_patience_ended_is_not_gone_on_with():
    phase = Phase(epochs=10, learning_rate=0.01, patience=1)
    states, model = [], line_model()
    values = [0.1, 0.5, 0.4]
    first = train_phase(
        model, line_batches(), scores(model, values), phase, squared, primary="score", watch=Watch(save=states.append)
    )
    again = line_model()
    second = train_phase(
        again, line_batches(), scores(again, []), phase, squared, primary="score", watch=Watch(restored=states[-1])
    )
    assert (second.stopped, second.best_epoch, second.epochs) == ("patience", 1, first.epochs)
    for one, two in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
