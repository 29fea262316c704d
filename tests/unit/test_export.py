"""Exports: folded weights, verified in a fresh process, published at once or not at all, and read again."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import exported, folding, saved_model_check, versions, warmup
from keras_transfer.export import describe_version, export, load_signature, publish
from keras_transfer.labels import Labels
from keras_transfer.saved_model_check import difference
from keras_transfer.tasks.base import Serving
from keras_transfer.vision import images

SIZE, NAMES = 32, ("cat", "dog", "owl")


def small_network(activation: str = "swish", ends_in: str | None = None, seed: int = 0) -> keras.Model:
    """Pixels 0..255 to three outputs; BatchNormalization with statistics as after training."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2)(x)
    normalization = keras.layers.BatchNormalization()
    x = keras.layers.Activation(activation)(normalization(x))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(3, activation=ends_in)(x), name="small")
    generator = np.random.default_rng(seed)
    normalization.moving_mean.assign(generator.normal(0, 0.3, 8))
    normalization.moving_variance.assign(generator.uniform(0.3, 2.0, 8))
    return model


def make_serving(numeric: Callable[[Any], Any]) -> Serving:
    """An image classifier's signatures, with a table that must be tracked."""
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.range(3, dtype=tf.int64), tf.constant(NAMES)), "?"
    )

    def answer(logits: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(logits)
        return {"probabilities": probabilities, "label": table.lookup(tf.argmax(probabilities, -1))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def from_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(numeric(images.decode_batch(image_bytes, SIZE, "stretch")))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")])
    def from_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(numeric(images.resize_batch(pixels, SIZE, "stretch")))

    warmup = {"serving_default": {"image_bytes": encoded(photos(1))}, "pixels": {"pixels": photos(1)}}
    return Serving({"serving_default": from_bytes, "pixels": from_pixels}, [table], warmup)


def photos(count: int, side: int = SIZE, seed: int = 0) -> np.ndarray:
    """uint8 [count, side, side, 3], noise of different brightness."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (count, side, side, 3))
    return (noise * np.linspace(0.2, 1.0, count)[:, None, None, None]).astype(np.uint8)


def encoded(pixels: np.ndarray) -> np.ndarray:
    """The photos as PNG files."""
    return np.array([tf.io.encode_png(image).numpy() for image in pixels], object)


def training_side(model: keras.Model, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What the model predicts for photos of its own size."""
    probabilities = tf.nn.softmax(model(pixels.astype(np.float32), training=False)).numpy()
    return {"probabilities": probabilities, "label": np.array([NAMES[i].encode() for i in probabilities.argmax(-1)])}


def request_of(model: keras.Model, count: int = 4) -> dict[str, Any]:
    """The arguments of `publish` that say what the model answers."""
    pixels = photos(count)
    answers = training_side(model, pixels)
    return {
        "probe": {"serving_default": {"image_bytes": encoded(pixels)}, "pixels": {"pixels": pixels}},
        "expected": {"serving_default": answers, "pixels": answers},
    }


def entries(folder: Path) -> list[str]:
    """Names in a folder, hidden ones too."""
    return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small_network()


@pytest.fixture(scope="module")
def extra() -> dict[str, Any]:
    return {
        "recipe.json": json.dumps({"name": "animals"}),
        "metrics.json": b'{"accuracy": 0.5}',
        **exported.label_files(Labels(NAMES)),
    }


@pytest.fixture(scope="module")
def published(model: keras.Model, extra: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("served") / "animals"
    licence = base.parent / "licence"
    licence.write_text("Apache-2.0\n")
    return publish(
        base, make_serving, model, extra={**extra, exported.WEIGHTS_LICENCE_FILE: licence}, **request_of(model)
    )


class Unverified(contextlib.nullcontext):
    """In place of `FreshProcess`."""

    def __enter__(self) -> Unverified:
        return self

    def verify(self, *args: Any) -> None:
        pass


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the fresh process out, where a test is about something else."""
    monkeypatch.setattr(versions, "FreshProcess", Unverified)


def test_a_version_is_whole_and_alone(published: Path) -> None:
    assert (published.name, entries(published.parent)) == ("1", ["1"])
    assert entries(published / "assets.extra") == sorted(
        ["LICENCE-weights.txt", "format.json", "labels.json", "labels.txt", "metrics.json", "recipe.json"]
        + ["tf_serving_warmup_requests"]
    )
    assert (published / "assets.extra" / "LICENCE-weights.txt").read_text() == "Apache-2.0\n"
    assert (published.stat().st_mode & 0o055) == 0o055 & ~_umask()


def test_the_warmup_asks_each_signature_once(published: Path) -> None:
    file = published / "assets.extra" / warmup.WARMUP_FILE
    requests = make_serving(lambda pixels: pixels[:, 0, 0]).warmup
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(file))] == [
        warmup.prediction_log("animals", name, requests[name]) for name in ("pixels", "serving_default")
    ]


def test_the_fresh_process_imports_plain_tensorflow_only() -> None:
    tree = ast.parse(Path(saved_model_check.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"argparse", "json", "pathlib", "sys", "typing", "numpy", "tensorflow", "tensorflow_text"}


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def test_both_signatures_answer_as_the_model(published: Path, model: keras.Model) -> None:
    pixels = photos(6, seed=9)
    expected = training_side(model, pixels)
    from_bytes = load_signature(published)(image_bytes=encoded(pixels))
    from_pixels = load_signature(published.parent, "pixels")(pixels=pixels)
    for answers in (from_bytes, from_pixels):
        np.testing.assert_allclose(answers["probabilities"].numpy(), expected["probabilities"], atol=1e-5)
        assert answers["label"].numpy().tolist() == expected["label"].tolist()
    assert np.ptp(expected["probabilities"], axis=0).max() > 1e-3  # else the parity above says nothing


def test_an_empty_batch_is_answered(published: Path) -> None:
    answers = load_signature(published)(image_bytes=np.array([], object))
    assert answers["probabilities"].shape == (0, 3)
    assert answers["label"].shape == (0,)
    assert load_signature(published, "pixels")(pixels=photos(4)[:0])["probabilities"].shape == (0, 3)


def test_weights_are_constants(published: Path) -> None:
    assert describe_version(published)["weights_folded"] is True
    assert tf.train.list_variables(str(published / "variables" / "variables"))[0][0] == "_CHECKPOINTABLE_OBJECT_GRAPH"
    assert len(tf.train.list_variables(str(published / "variables" / "variables"))) == 1


def test_description(published: Path) -> None:
    found = describe_version(published.parent)
    assert found["path"] == published
    assert (found["name"], found["version"], found["format"]) == ("animals", 1, exported.EXPORT_FORMAT)
    assert found["recipe"] == {"name": "animals"}
    assert found["metrics"] == {"accuracy": 0.5}
    assert found["labels"] == Labels(NAMES)
    assert found["signatures"] == ["pixels", "serving_default"]


def test_a_label_of_two_lines_keeps_the_file_in_order() -> None:
    labels = Labels(("a\nb", "c"), "multi", (0.2, 0.7))
    files = exported.label_files(labels)
    assert files["labels.txt"] == "a b\nc\n"
    assert Labels.from_dict(json.loads(files["labels.json"])) == labels


def test_wrong_expectation_publishes_nothing(model: keras.Model, extra: dict[str, Any], tmp_path: Path) -> None:
    arguments = request_of(model)
    wrong = dict(arguments["expected"]["serving_default"])
    wrong["probabilities"] = wrong["probabilities"] + np.float32([[0, 0, 0], [0, 0.25, 0], [0, 0, 0], [0, 0, 0]])
    wrong["label"] = np.array([b"newt", *wrong["label"][1:]])
    arguments["expected"]["serving_default"] = wrong
    with pytest.raises(ValueError) as refused:
        publish(tmp_path / "new", make_serving, model, extra=extra, **arguments)
    message = str(refused.value)
    assert "'probabilities' differs by up to 0.25 (tolerance 0.0001) in 1 of 12 values; at [1, 1]" in message
    assert "'label' differs in 1 of 4 values; at [0]" in message
    assert "expected b'newt'" in message
    assert "pixels" not in message  # that signature's expectation is right
    assert entries(tmp_path) == []


def test_a_signature_that_fails_publishes_nothing(model: keras.Model, extra: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    arguments = request_of(model)
    arguments["probe"]["serving_default"]["image_bytes"] = np.array([b"not an image"] * 4, object)
    with pytest.raises(ValueError, match="loading it: it failed.*InvalidArgument"):
        publish(tmp_path / "old", make_serving, model, extra=extra, **arguments)
    assert entries(tmp_path / "old") == []


@pytest.mark.usefixtures("unverified")
def test_numbers_go_on_from_the_largest(model: keras.Model, tmp_path: Path) -> None:
    base = tmp_path / "small"
    for name in ("7", "notes", ".hidden", "007old"):
        (base / name).mkdir(parents=True)
    arguments = request_of(model)
    assert publish(base, make_serving, model, extra={}, **arguments) == base / "8"
    assert publish(base, make_serving, model, extra={}, version=12, **arguments) == base / "12"
    with pytest.raises(ValueError, match=r"not yet published. Received: 12; published: \[7, 8, 12\]"):
        publish(base, make_serving, model, extra={}, version=12, **arguments)


def test_publishers_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    base = tmp_path / "busy"
    base.mkdir()
    start, taken = threading.Barrier(8), []

    def take(number: int) -> None:
        for turn in range(5):
            hidden = base / f"{versions.HIDDEN_PREFIX}{number}-{turn}"
            hidden.mkdir()
            (hidden / "saved_model.pb").write_text(f"{number} {turn}")
            if turn == 0:
                start.wait()
            taken.append(versions._take_number(hidden, base, None))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name) for path in taken) == list(range(1, 41))
    assert len({(path / "saved_model.pb").read_text() for path in taken}) == 40


def test_a_number_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    for name in ("3", ".publishing-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_text(name)
    with pytest.raises(ValueError, match="3: could not be published"):
        versions._take_number(tmp_path / ".publishing-x", tmp_path, 3)
    assert (tmp_path / "3" / "saved_model.pb").read_text() == "3"


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
import test_export as here
from pathlib import Path
def verify(self, *args):
    print("ready", flush=True)
    time.sleep(600)
here.versions.FreshProcess.verify = verify
model = here.small_network()
here.publish(Path(sys.argv[1]), here.make_serving, model, extra={{}}, **here.request_of(model))
"""


@pytest.mark.usefixtures("unverified")
def test_a_killed_publisher_leaves_nothing_that_is_served(model: keras.Model, tmp_path: Path) -> None:
    base = tmp_path / "small"
    program = textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent)))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(base)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    (leftover,) = base.iterdir()
    assert leftover.name.startswith(".")
    assert (leftover / "saved_model.pb").exists()  # it was killed late, just before it would have been renamed
    with pytest.raises(ValueError, match="neither saved_model.pb nor numbered versions"):
        load_signature(base)
    assert publish(base, make_serving, model, extra={}, **request_of(model)) == base / "1"
    assert leftover.exists()  # a young one may belong to a publisher at work
    old = time.time() - versions.LEFTOVER_AFTER_S - 60
    for path in (*leftover.iterdir(), leftover):
        os.utime(path, (old, old))
    assert publish(base, make_serving, model, extra={}, **request_of(model)) == base / "2"
    assert entries(base) == ["1", "2"]


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": Path("/x/.hidden")}, "base: expected DIR/NAME"),
        ({"base": Path("/x/3")}, "base: expected DIR/NAME"),
        ({"extra": {"../a": b""}}, r"plain file names .*\['../a'\]"),
        ({"extra": {"format.json": b""}}, r"other than .*\['format.json'\]"),
        ({"extra": {"a": Path("/no/such/file")}}, r"expected files. Received: \['/no/such/file'\]"),
        ({"probe": {}, "expected": {}}, "at least one real request"),
        ({"probe": {"nope": {"x": photos(1)}}, "expected": {}}, r"\['pixels', 'serving_default'\].*\['nope'\]"),
        ({"expected": {"nope": {}}}, "also .*nope"),
        ({"version": 0}, "a number from 1"),
    ],
)
def test_faulty_arguments_are_named(model: keras.Model, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    arguments = {"base": tmp_path / "small", "extra": {}, **request_of(model), **changes}
    with pytest.raises(ValueError, match=said):
        publish(arguments.pop("base"), make_serving, model, **arguments)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_folded_equals_unfolded(activation: str) -> None:
    network = small_network(activation)
    folded, plain = folding.numeric_part(network), folding.numeric_part(network, fold_below=0)
    assert (folded.folded, plain.folded) == (True, False)
    assert not folded.variables
    assert len(plain.variables) == len(network.variables)
    pixels = photos(5)
    np.testing.assert_allclose(folded.call(pixels), plain.call(pixels), atol=1e-6)
    np.testing.assert_allclose(folded.call(pixels), network(pixels.astype(np.float32), training=False), atol=1e-6)


def test_folding_says_nothing_of_lookup_tables_made_before(caplog: pytest.LogCaptureFixture) -> None:
    name, logger = tf.compat.v1.GraphKeys.TABLE_INITIALIZERS, logging.getLogger("tensorflow")
    tf.compat.v1.add_to_collection(name, None)  # as the tables of keras_hub's tokenizers do
    logger.addHandler(caplog.handler)
    try:
        assert folding.numeric_part(small_network()).folded
    finally:
        logger.removeHandler(caplog.handler)
        tf.compat.v1.get_default_graph().clear_collection(name)
    assert "serializing" not in caplog.text


@pytest.mark.parametrize("offset", [0.0, -1.0])
@pytest.mark.parametrize("fold_below", [0, folding.FOLD_BELOW_BYTES])
def test_an_empty_batch_passes_a_network_that_itself_fails_on_it(offset: float, fold_below: int) -> None:
    # Without an offset the optimizer moves the scale into the convolution, which then meets the batch directly.
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 3, strides=2)(keras.layers.Rescaling(1 / 255, offset)(inputs))
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x)))
    call = tf.function(folding.numeric_part(network, fold_below).call)
    assert call(photos(1)[:0]).shape == (0, 8)
    np.testing.assert_allclose(call(photos(2)), network(photos(2).astype(np.float32)), atol=1e-6)


def test_folding_stops_at_the_size_of_the_weights() -> None:
    network = small_network()
    size = sum(int(np.prod(weight.shape)) * 4 for weight in network.weights)
    assert folding.weight_bytes(network) == pytest.approx(size, abs=16)  # the seed of the dropout counts too
    assert not folding.numeric_part(network, folding.weight_bytes(network)).folded
    assert folding.numeric_part(network, folding.weight_bytes(network) + 1).folded


def test_variables_are_exported_where_they_are_too_large(model: keras.Model, tmp_path: Path) -> None:
    version = publish(tmp_path / "large", make_serving, model, extra={}, fold_below=0, **request_of(model))
    assert describe_version(version)["weights_folded"] is False
    pixels = photos(3)
    answers = load_signature(version, "pixels")(pixels=pixels)
    np.testing.assert_allclose(answers["probabilities"], training_side(model, pixels)["probabilities"], atol=1e-6)


def token_network(mask_type: str) -> keras.Model:
    """A dictionary of tokens to two outputs, with a loop inside."""
    keras.utils.set_random_seed(1)
    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype=mask_type, name="padding_mask")
    x = keras.layers.Embedding(50, 8)(tokens)
    x = keras.layers.LSTM(8)(x, mask=keras.ops.cast(mask, "bool"))
    return keras.Model({"token_ids": tokens, "padding_mask": mask}, {"logits": keras.layers.Dense(2)(x), "state": x})


@pytest.mark.parametrize("mask_type", ["bool", "int32"])
def test_dictionaries_and_masks_of_either_type(mask_type: str) -> None:
    network = token_network(mask_type)
    folded, plain = folding.numeric_part(network), folding.numeric_part(network, fold_below=0)
    tokens = np.random.default_rng(0).integers(0, 50, (3, 7))
    for mask in (tokens > 9, (tokens > 9).astype(np.int32)):
        for batch in (3, 1, 0):
            inputs = {"padding_mask": mask[:batch], "token_ids": tokens[:batch]}
            one, other = folded.call(inputs), plain.call(inputs)
            assert set(one) == {"logits", "state"}
            for name in one:
                np.testing.assert_allclose(one[name], other[name], atol=1e-6)
    with pytest.raises(ValueError, match=r"\['padding_mask', 'token_ids'\]. Received: \['token_ids'\]"):
        folded.call({"token_ids": tokens})


def test_a_folded_function_itself_rejects_a_bool_mask() -> None:
    """The fact that the casts are there for."""
    network = token_network("int32")
    specs = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.int32)]
    traced = tf.function(
        lambda mask, tokens: network({"token_ids": tokens, "padding_mask": mask}), input_signature=specs
    )
    folded = folding.convert_variables_to_constants_v2(traced.get_concrete_function(), lower_control_flow=False)
    with pytest.raises((TypeError, ValueError, tf.errors.OpError)):
        folded(tf.constant([[True]]), tf.constant([[1]]))


def test_weights_made_under_a_strategy_are_folded() -> None:
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        network = small_network()
    folded = folding.numeric_part(network)
    assert folded.folded
    pixels = photos(2)
    np.testing.assert_allclose(folded.call(pixels), network(pixels.astype(np.float32), training=False), atol=1e-6)


def test_unknown_inputs_are_refused_with_the_mend() -> None:
    class Own(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(ValueError, match=r"a Own without. Wrap it: inputs = keras.Input\(shape\)"):
        folding.numeric_part(Own(name="own"))
    with pytest.raises(ValueError, match="known inputs"):
        folding.numeric_part(keras.Sequential([keras.layers.Dense(1)]))


def test_a_text_model_keeps_its_tokenizer_outside_the_constants(tmp_path: Path) -> None:
    import tensorflow_text

    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(5, 4, embeddings_initializer="normal")(tokens))
    network = keras.Model({"token_ids": tokens}, keras.layers.Dense(2)(x))

    def make_text_serving(numeric: Callable[[Any], Any]) -> Serving:
        tokenizer = tensorflow_text.FastBertTokenizer(["[PAD]", "[UNK]", "good", "bad", "##ly"])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def answer(text: tf.Tensor) -> dict[str, tf.Tensor]:
            ids = tokenizer.tokenize(text).merge_dims(1, -1).to_tensor(shape=[None, 4])
            return {"logits": numeric({"token_ids": ids})}

        return Serving({"serving_default": answer}, [tokenizer], {"serving_default": {"text": np.array(["good"])}})

    texts = np.array(["goodly good", "bad"])
    ids = np.array([[2, 4, 2, 0], [3, 0, 0, 0]])
    version = publish(
        tmp_path / "words",
        make_text_serving,
        network,
        extra={},
        probe={"serving_default": {"text": texts}},
        expected={"serving_default": {"logits": network({"token_ids": ids}).numpy()}},
        require_text_ops=True,
    )
    found = describe_version(version)
    assert (found["weights_folded"], found["text_ops"]) == (True, True)
    np.testing.assert_allclose(load_signature(version)(text=texts)["logits"], network({"token_ids": ids}), atol=1e-6)


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (np.float32([1.0, np.nan]), np.float32([1.0, np.nan]), ""),
        (np.float32([1.0, np.nan]), np.float32([1.0, 2.0]), "by up to inf"),
        (np.float32([np.inf]), np.float32([np.inf]), ""),
        (np.float32([2000.1]), np.float32([2000.0]), ""),
        (np.float32([2001.0]), np.float32([2000.0]), "by up to 0.0005"),
        (np.float32([0.5002]), np.float32([0.5]), "by up to 0.0002"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), r"has shape \(2, 3\), expected \(2, 4\)"),
        (np.int32([1, 2]), np.int32([1, 3]), r"in 1 of 2 values; at \[1\] it is 2, expected 3"),
        (np.int32([1]), np.float32([1]), "has type int32, expected float32"),
        (np.array([b"a"], object), np.array([b"b"], object), "it is b'a', expected b'b'"),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), ""),
    ],
)
def test_what_counts_as_a_difference(answer: np.ndarray, expected: np.ndarray, said: str) -> None:
    found = difference(answer, expected, 1e-4)
    assert re.search(said, found) if said else found == ""


def test_reading_what_is_no_export(tmp_path: Path, published: Path) -> None:
    with pytest.raises(ValueError, match="Received: no such path"):
        describe_version(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="Received: a file"):
        describe_version(tmp_path / "file")
    with pytest.raises(ValueError, match=r"keras-transfer export RUN"):
        load_signature(tmp_path)
    foreign = tmp_path / "foreign"
    tf.saved_model.save(tf.Module(), str(foreign))
    with pytest.raises(ValueError, match="a SavedModel without assets.extra/format.json"):
        describe_version(foreign)
    with pytest.raises(ValueError, match="pixels, serving_default. Received: 'nope'"):
        load_signature(published, "nope")
    with pytest.raises(ValueError, match="expected the inputs image_bytes. Received: pixels"):
        load_signature(published)(pixels=photos(1))


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    extra = tmp_path / "4" / "assets.extra"
    extra.mkdir(parents=True)
    (tmp_path / "4" / "saved_model.pb").write_bytes(b"")
    (extra / "format.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="expected export format 1. Received: 99. Read it with the release"):
        describe_version(tmp_path)
    (extra / "format.json").write_text("{")
    with pytest.raises(ValueError, match=r"format.json: expected JSON"):
        describe_version(tmp_path)


def test_the_newest_whole_version_is_read(tmp_path: Path) -> None:
    for name in ("2", "10", "11", ".publishing-1"):
        (tmp_path / name).mkdir()
    for name in ("2", "10"):
        (tmp_path / name / "saved_model.pb").write_bytes(b"")
    assert exported.version_folder(tmp_path) == tmp_path / "10"
    assert exported.version_folder(tmp_path / "2") == tmp_path / "2"


class Subclassed(keras.Model):
    """A caller's model whose inputs Keras does not know."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.inner = small_network()

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.inner(inputs, training=training)


@pytest.fixture
def exports(tmp_path: Path) -> Iterator[Callable[..., dict[str, np.ndarray]]]:
    """Exports a caller's model and returns its answers to some photos."""

    def answers(network: keras.Model, labels: Any = NAMES, **options: Any) -> dict[str, np.ndarray]:
        version = export(network, tmp_path, task="image_classification", labels=labels, name="own", **options)
        assert version.parent == tmp_path / "own"
        found = load_signature(version, "pixels")(pixels=photos(4))
        return {name: value.numpy() for name, value in found.items()}

    yield answers


def test_a_callers_model_in_a_fresh_process(exports: Callable[..., dict[str, np.ndarray]], model: keras.Model) -> None:
    answers = exports(model, licence="CC-BY-4.0")
    expected = training_side(model, photos(4))
    np.testing.assert_allclose(answers["probabilities"], expected["probabilities"], atol=1e-5)
    assert answers["label"].tolist() == expected["label"].tolist()


@pytest.mark.usefixtures("unverified")
def test_a_callers_export_describes_itself(tmp_path: Path, model: keras.Model) -> None:
    version = export(model, tmp_path, task="image_classification", labels=NAMES, licence="CC-BY-4.0", resize="pad")
    found = describe_version(tmp_path / "small")
    assert (found["version"], found["labels"]) == (1, Labels(NAMES))
    assert (found["recipe"]["task"], found["recipe"]["data"]["resize"]) == ("image_classification", "pad")
    assert found["recipe"]["backbone"]["image_size"] == SIZE
    assert (version / "assets.extra" / "LICENCE-weights.txt").read_text() == "CC-BY-4.0\n"


@pytest.mark.usefixtures("unverified")
def test_probabilities_are_not_flattened_by_a_second_softmax(exports: Callable[..., dict[str, np.ndarray]]) -> None:
    logits, softmax = small_network(), small_network(ends_in="softmax")
    expected = training_side(logits, photos(4))["probabilities"]
    for options in ({}, {"outputs": "probabilities"}):
        np.testing.assert_allclose(exports(softmax, **options)["probabilities"], expected, atol=1e-6)
    nested = keras.Sequential([keras.Input((SIZE, SIZE, 3)), softmax])
    np.testing.assert_allclose(exports(nested)["probabilities"], expected, atol=1e-6)


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize("ends_in", [None, "sigmoid"])
def test_one_output_for_two_labels(exports: Callable[..., dict[str, np.ndarray]], ends_in: str | None) -> None:
    inner = small_network()
    inputs = keras.Input((SIZE, SIZE, 3))
    network = keras.Model(inputs, keras.layers.Dense(1, activation=ends_in)(inner(inputs)))
    answers = exports(network, ("cat", "dog"))
    outputs = network(photos(4).astype(np.float32), training=False).numpy()[:, 0]
    dog = outputs if ends_in else 1 / (1 + np.exp(-outputs))
    np.testing.assert_allclose(answers["probabilities"], np.stack([1 - dog, dog], -1), atol=1e-6)


@pytest.mark.usefixtures("unverified")
def test_several_labels_an_image(exports: Callable[..., dict[str, np.ndarray]]) -> None:
    network = small_network(ends_in="sigmoid")
    answers = exports(network, Labels(NAMES, "multi", (0.4, 0.5, 0.6)))
    np.testing.assert_allclose(answers["probabilities"], network(photos(4).astype(np.float32)), atol=1e-6)


@pytest.mark.usefixtures("unverified")
def test_a_subclassed_model_needs_its_size(exports: Callable[..., dict[str, np.ndarray]]) -> None:
    network = Subclassed()
    expected = training_side(network.inner, photos(4))["probabilities"]
    np.testing.assert_allclose(exports(network, image_size=SIZE)["probabilities"], expected, atol=1e-6)
    with pytest.raises(ValueError, match="a Subclassed without known inputs; give image_size"):
        exports(network)


@pytest.mark.parametrize(
    ("network", "options", "said"),
    [
        (small_network, {"labels": ("a", "b")}, r"as many as the model has outputs, \(None, 3\). Received: 2"),
        (small_network, {"labels": ("a", "a", "b")}, r"different class names .*\['a'\]"),
        (small_network, {"labels": "abc"}, "Put it in a list"),
        (small_network, {"labels": (0, 1, 2)}, "class names as text"),
        (small_network, {"image_size": 64}, "the model's 32. Received: 64"),
        (lambda: small_network(ends_in="sigmoid"), {}, "Received: a sigmoid at the end"),
        (lambda: small_network(ends_in="softmax"), {"labels": Labels(NAMES, "multi")}, "Received: a softmax"),
        (lambda: token_network("bool"), {}, r"expected (one input|an input) of \[N, S, S, 3\]"),
        (small_network, {"task": "image_clasification"}, "Did you mean image_classification"),
    ],
)
def test_a_callers_faults_are_named(
    tmp_path: Path, network: Callable[[], keras.Model], options: dict[str, Any], said: str
) -> None:
    arguments = {"task": "image_classification", "labels": NAMES, **options}
    with pytest.raises(ValueError, match=said):
        export(network(), tmp_path, **arguments)
    assert entries(tmp_path) == []
