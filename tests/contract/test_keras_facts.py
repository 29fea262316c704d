"""Facts about the libraries that the product relies on, each with a test that fails when a new version changes it.

Where one fails after an upgrade, the module named in the test's docstring has to be looked at before its other tests.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import io
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from packaging.requirements import Requirement
from PIL import Image
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_transfer import schedules
from keras_transfer.vision import images

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("line", PROJECT["dependencies"])
def test_installed_versions_are_in_the_tested_ranges(line: str):
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate():
        installed = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(installed, prereleases=True), f"{requirement.name} {installed}"


def normed(momentum: float = 0.5) -> keras.Model:
    """A network with BatchNormalization and dropout."""
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization(momentum=momentum, name="bn")(inputs)
    return keras.Model(inputs, keras.layers.Dropout(0.5, seed=1, name="dropout")(x), name="inner")


def moved_statistics(inner: keras.Model, call) -> bool:
    """Whether one step of `fit` on a functional model around the network moves the statistics."""
    inputs = keras.Input((4,))
    outer = keras.Model(inputs, keras.layers.Dense(1)(call(inner, inputs)))
    outer.compile("sgd", "mse")
    before = inner.get_layer("bn").moving_mean.numpy()
    outer.fit(np.full((8, 4), 3.0, np.float32), np.zeros((8, 1), np.float32), epochs=1, verbose=0)
    return not np.array_equal(before, inner.get_layer("bn").moving_mean.numpy())


def test_training_false_is_overwritten_inside_a_functional_model():
    """Why `inference_mode.InferenceMode` exists (keras issue 20285); where this fails, it may not be needed."""
    assert moved_statistics(normed(), lambda inner, x: inner(x, training=False))


def test_a_layer_that_passes_training_false_on_is_obeyed():
    """inference_mode."""
    from keras_transfer.inference_mode import InferenceMode

    assert not moved_statistics(normed(), lambda inner, x: InferenceMode(inner)(x))


def test_batch_normalization_that_does_not_train_is_in_inference_mode():
    """freezing: BatchNormalization with `trainable=False` uses and keeps its moving statistics even in training."""
    layer = keras.layers.BatchNormalization()
    x = np.random.default_rng(0).normal(5, 2, (16, 3)).astype(np.float32)
    layer.build(x.shape)
    layer.trainable = False
    statistics = layer.moving_mean.numpy()
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    np.testing.assert_array_equal(layer.moving_mean.numpy(), statistics)


def test_the_flag_of_a_model_reaches_the_layers_inside_only_when_it_changes():
    """freezing sets flags layer by layer."""
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    inner.layers[0].trainable = False
    inner.trainable = True
    assert inner.trainable_variables == []
    inner.trainable = False
    inner.layers[0].trainable = True
    assert inner.trainable_variables == [], "a frozen model hides what trains inside"


def test_flatten_layers_gives_every_layer_at_any_depth():
    """freezing, freeze_policy, inference_mode, training_loop walk models by it."""
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="deep")], name="inner")
    outer = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(1, name="top")], name="outer")
    assert [layer.name for layer in outer._flatten_layers() if layer.name in ("outer", "inner", "deep", "top")] == [
        *("outer", "inner", "deep", "top")
    ]
    assert outer not in list(outer._flatten_layers(include_self=False))
    shallow = [layer.name for layer in outer._flatten_layers(include_self=False, recursive=False)]
    assert "inner" in shallow and "top" in shallow and "deep" not in shallow


def test_a_layers_own_variables_are_told_apart():
    """freeze_policy: `_trainable_variables` and `_non_trainable_variables` hold a layer's own, not its parts'."""
    model = normed()
    bn = model.get_layer("bn")
    assert [v.name for v in bn._trainable_variables] == ["gamma", "beta"]
    assert [v.name for v in bn._non_trainable_variables] == ["moving_mean", "moving_variance"]
    assert model._trainable_variables == [] and model._non_trainable_variables == []


def test_states_of_random_layers_are_variables_but_no_weights():
    """freezing.snapshot hashes `weights`; training_loop keeps `variables`."""
    model = normed()
    states = [v for v in model.variables if "seed_generator" in v.path]
    assert len(states) == 1 and not any(state is weight for state in states for weight in model.weights)


def test_weights_without_a_name_are_counted_over_the_process():
    """inference_mode.settle_names renames them through `_path` and `_name`."""

    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(1,))

    layer = Scaled(name="scaled")
    layer.build((1,))
    assert layer.scale.path == f"scaled/{layer.scale.name}" and layer.scale.name.startswith("variable")
    layer.scale._path, layer.scale._name = "scaled/variable", "variable"
    assert (layer.scale.path, layer.scale.name) == ("scaled/variable", "variable")


def test_an_optimizer_tells_its_variables_by_an_index():
    """schedules.PacedAdamW: `update_step` gets backend variables, and `_get_variable_index` finds their place."""
    assert list(inspect.signature(keras.optimizers.AdamW.update_step).parameters) == [
        *("self", "gradient", "variable", "learning_rate")
    ]
    seen = []

    class Spy(schedules.PacedAdamW):
        def update_step(self, gradient, variable, learning_rate):
            seen.append(self._get_variable_index(variable))
            super().update_step(gradient, variable, learning_rate)

    variables = [keras.Variable([1.0], name=name) for name in ("a", "b")]
    optimizer = Spy(learning_rate=0.1, weight_decay=0.0, paces={"a": 0.0})
    optimizer.build(variables)
    optimizer.apply([tf.constant([1.0]), tf.constant([1.0])], variables)
    assert seen == [0, 1]
    assert float(variables[0].value[0]) == 1.0 > float(variables[1].value[0])


def test_a_loss_scaling_optimizer_says_its_scale():
    """training_loop clips scaled gradients by a scaled norm."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=8.0)
    variable = keras.Variable([1.0])
    optimizer.build([variable])
    assert float(optimizer.dynamic_scale) == 8.0
    assert float(optimizer.scale_loss(tf.constant(2.0))) == 16.0
    optimizer.apply([tf.constant([8.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [0.0])


def test_call_of_a_loss_is_before_the_reduction():
    """own_model.run_phase weighs each example itself."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    targets, logits = tf.constant([0, 1, 1]), tf.constant([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    each = loss.call(targets, logits)
    assert each.shape == (3,)
    np.testing.assert_allclose(tf.reduce_mean(each), loss(targets, logits), rtol=1e-6)


def test_the_metric_named_accuracy_compares_labels_with_outputs():
    """own_model.run_phase chooses the accuracy that fits, as `compile` does; by its name alone it is equality."""
    assert isinstance(keras.metrics.get("accuracy"), keras.metrics.Accuracy)


SUMS_TWICE = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
for attempt in range(2):
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(names, cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        variable = keras.Variable([1.0])
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build([variable])

    @tf.function
    def step():
        strategy.run(lambda: optimizer.apply([tf.constant([0.25])], [variable]))

    step()
    print(float(variable.value[0]))
"""


def test_an_optimizer_sums_gradients_over_replicas_also_under_a_second_strategy():
    """training_loop divides clipped gradients by the replicas before `apply`; devices chooses ReductionToOneDevice."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SUMS_TWICE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["0.5", "0.5"], "1 - 2 * 0.25"


def test_gradients_are_taken_through_the_value_of_a_variable():
    """training_loop watches `variable.value` of what trains and nothing else, so that frozen parts cost no backward."""
    chosen, other = keras.Variable([2.0]), keras.Variable([3.0])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(chosen.value)
        product = chosen * other
    assert tape.gradient(product, [chosen.value, other.value])[1] is None
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(chosen.value)
        product = chosen * other
    np.testing.assert_allclose(tape.gradient(product, chosen.value), [3.0])


def stripes(size: int = 256) -> np.ndarray:
    """Fine stripes, which shrink to even grey."""
    photo = np.zeros((size, size, 3), np.uint8)
    photo[:, ::2] = 255
    return photo


def test_resizing_is_not_antialiased_unless_asked():
    """vision.images asks: pretrained weights expect photos as Pillow shrinks them."""
    photo = stripes()
    pillow = np.asarray(Image.fromarray(photo).resize((30, 30), Image.Resampling.BILINEAR), np.float32)
    plain = tf.image.resize(photo, (30, 30)).numpy()
    smooth = tf.image.resize(photo, (30, 30), antialias=True).numpy()
    assert np.abs(plain - pillow).mean() > 20
    assert np.abs(smooth - pillow).mean() < 1.5
    assert np.abs(images.resize(tf.constant(photo), 30, "stretch").numpy() - pillow).mean() < 1.5


def encoded(photo: np.ndarray, kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(photo).save(out, kind, **options)
    return out.getvalue()


def test_the_decoder_ignores_the_orientation():
    """vision.orientation reads it in the graph."""
    photo = np.zeros((16, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo, "JPEG", exif=exif)
    assert tf.io.decode_image(data, channels=3, expand_animations=False).shape == (16, 32, 3)
    assert images.decode(tf.constant(data)).shape == (32, 16, 3)


def test_the_decoder_reads_no_tiff_and_no_animated_webp():
    """vision.headers refuses them by name."""
    photo = np.zeros((8, 8, 3), np.uint8)
    frames = [Image.fromarray(photo), Image.fromarray(photo + 200)]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    for data in (encoded(photo, "TIFF"), out.getvalue()):
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.io.decode_image(data, channels=3, expand_animations=False)


def test_the_decoder_misreads_a_palette_bmp():
    """vision.headers refuses it: the values are wrong and nothing says so."""
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(photo).quantize(16).save(out, "BMP")
    right = np.asarray(Image.open(io.BytesIO(out.getvalue())).convert("RGB"))
    try:
        found = tf.io.decode_image(out.getvalue(), channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError:
        return
    assert found.shape != right.shape or np.abs(found.astype(int) - right).mean() > 20


def test_folding_a_function_with_a_table_does_not_give_a_function_of_its_inputs():
    """export folds the numeric part alone; tables stay outside and are tracked."""
    names = tf.lookup.KeyValueTensorInitializer(["a", "b"], [1, 2])
    table = tf.lookup.StaticHashTable(names, -1)
    weight = tf.Variable(2)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def look_up(text):
        return table.lookup(text) * weight

    try:
        folded = convert_variables_to_constants_v2(look_up.get_concrete_function())
    except Exception:
        return
    assert len(folded.inputs) == 2, "the table came to be an input of its own"


def test_folding_a_function_of_weights_alone_keeps_its_answers():
    """folding."""
    layer = keras.layers.Dense(3)
    layer.build((None, 4))

    @tf.function(input_signature=[tf.TensorSpec([None, 4])])
    def call(x):
        return layer(x)

    folded = convert_variables_to_constants_v2(call.get_concrete_function(), lower_control_flow=False)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert len(folded.inputs) == 1 and not folded.graph.variables
    np.testing.assert_allclose(folded(tf.constant(x))[0], layer(x), atol=1e-6)
