"""Origin and identity of weights."""

import dataclasses
import subprocess
import sys

import pytest

from keras_transfer import samples, weights


def test_the_origin_of_a_sample_states_its_licence():
    origin = weights.sample_origin("sample:efficientnet_lite0")
    assert origin.licence == "Apache-2.0"
    assert origin.source == "sample:efficientnet_lite0"
    assert "ImageNet" in origin.description
    with pytest.raises(dataclasses.FrozenInstanceError):
        origin.licence = "none"


@pytest.mark.parametrize("function", [weights.sample_origin, weights.sample_preset, weights.preset_arguments])
def test_only_weights_have_a_preset(function):
    with pytest.raises(ValueError, match="expected weights.*'trees', which is data"):
        function("trees")


def test_preset_arguments_are_copies():
    assert weights.preset_arguments("efficientnet_lite0") == {"batch_norm_epsilon": 1e-3}
    weights.preset_arguments("efficientnet_lite0").clear()
    assert weights.preset_arguments("sample:efficientnet_lite0") == {"batch_norm_epsilon": 1e-3}
    assert weights.preset_arguments("minilm") == {}


def test_samples_and_weights_import_no_tensorflow():
    code = (
        "import sys, keras_transfer.weights, keras_transfer.samples.trees, keras_transfer.samples.smollm2\n"
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'keras_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def make_model():
    keras = pytest.importorskip("keras")

    def make(seed, units=3):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(units), keras.layers.Dropout(0.5)])

    return make


def test_equal_weights_have_equal_fingerprints_whatever_names_keras_makes_up(make_model):
    first, second = make_model(0), make_model(0)
    assert first.weights[0].path != second.weights[0].path  # else this proves nothing
    assert weights.fingerprint(first) == weights.fingerprint(second)
    assert len(weights.fingerprint(first)) == 32


def test_a_changed_bit_or_shape_changes_the_fingerprint(make_model):
    import numpy as np

    model = make_model(0)
    before = weights.fingerprint(model)
    kernel = model.weights[0].numpy().copy()
    kernel.view(np.uint32)[0, 0] ^= 1
    model.weights[0].assign(kernel)
    assert weights.fingerprint(model) != before
    assert weights.fingerprint(make_model(0, units=4)) != before


def test_training_state_that_is_no_weight_does_not_count(make_model):
    import numpy as np

    model = make_model(0)
    before = weights.fingerprint(model)
    model(np.ones((1, 2)), training=True)  # advances the seed of dropout
    assert weights.fingerprint(model) == before


def test_the_preset_of_a_sample_is_its_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path))
    made = tmp_path / "weights" / "minilm" / str(samples.SAMPLES["minilm"].form)
    made.mkdir(parents=True)
    assert weights.sample_preset("sample:minilm") == made
