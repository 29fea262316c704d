"""An export answers in a program of C that knows TensorFlow's libraries only, as TF Serving's loader does."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_transfer.export import export

SIZE, NAMES = 32, ("ash", "birch", "cherry")
PHOTO_SIZES = ((40, 64), (64, 40), (16, 16))
COMPILER = next(filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))), None)

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler: neither $CC nor cc, gcc or clang is there")


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="swish")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.fixture(scope="module")
def version(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    return export(network, folder, task="image_classification", labels=NAMES, name="woods", resize="stretch")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One photo a size of `PHOTO_SIZES`."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    paths = []
    for number, shape in enumerate(PHOTO_SIZES):
        pixels = (generator.integers(0, 256, (*shape, 3)) * (number + 1) / 3).astype(np.uint8)
        paths.append(folder / f"{number}.png")
        paths[-1].write_bytes(tf.io.encode_png(pixels).numpy())
    return paths


@pytest.fixture(scope="module")
def ask(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the program on some files for all outputs of `serving_default`."""
    program = build(tmp_path_factory.mktemp("program") / "c_loader")
    signature = signature_of(version)
    outputs = [tensor.name for _, tensor in sorted(signature.outputs.items())]

    def run(paths: Sequence[Path]) -> subprocess.CompletedProcess[str]:
        command = [program, version, signature.inputs["image_bytes"].name, *outputs, "--", *paths]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)

    return run


def build(program: Path) -> Path:
    """Compiles the program against the headers and libraries in the TensorFlow wheel."""
    libraries = Path(tf.sysconfig.get_lib())
    shared = [
        next(path for path in sorted(libraries.glob(f"lib{name}.*")) if path.suffix in (".2", ".so", ".dylib"))
        for name in ("tensorflow_cc", "tensorflow_framework")
    ]
    source = Path(__file__).with_name("c_loader.c")
    command = [COMPILER, "-Wall", "-O1", source, "-I", tf.sysconfig.get_include(), "-o", program, *shared]
    done = subprocess.run([*command, f"-Wl,-rpath,{libraries}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def signature_of(version: Path) -> Any:
    """The signature_def `serving_default`, from the file that a server reads."""
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    (meta_graph,) = saved.meta_graphs
    assert "serve" in meta_graph.meta_info_def.tags
    return meta_graph.signature_def["serving_default"]


def table(stdout: str, tensor: str) -> list[list[str]]:
    """The values of one output, by row."""
    rows = [line.split(" ") for line in stdout.splitlines() if line.startswith(f"{tensor} ")]
    assert [int(row[1]) for row in rows] == list(range(len(rows)))
    return [row[2:] for row in rows]


def test_c_answers_as_the_model(
    ask: Callable[..., subprocess.CompletedProcess[str]], version: Path, network: keras.Model, photos: list[Path]
) -> None:
    done = ask(photos)
    assert done.returncode == 0, done.stderr
    outputs = signature_of(version).outputs
    assert set(outputs) == {"label", "probability", "probabilities"}
    pixels = [tf.io.decode_png(path.read_bytes()) for path in photos]
    squares = tf.stack([tf.image.resize(image, (SIZE, SIZE), antialias=True) for image in pixels])
    expected = tf.nn.softmax(network(squares, training=False)).numpy()
    answered = np.array(table(done.stdout, outputs["probabilities"].name), np.float32)
    np.testing.assert_allclose(answered, expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 1e-3  # else the parity says nothing
    assert [row[0] for row in table(done.stdout, outputs["label"].name)] == [NAMES[i] for i in expected.argmax(-1)]
    top = np.array(table(done.stdout, outputs["probability"].name), np.float32)
    np.testing.assert_allclose(top[:, 0], expected.max(-1), atol=1e-4)


def test_c_gets_no_rows_for_no_images(ask: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = ask([])
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["meta_graph"]


def test_c_is_told_what_is_wrong_with_an_image(
    ask: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    done = ask([tmp_path / "broken.png"])
    assert done.returncode == 1
    assert "running: " in done.stderr
    assert "meta_graph" in done.stdout  # it loaded
