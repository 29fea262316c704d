"""Building the bare image networks: from keras.applications, from keras_hub presets, from files of weights."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras

from keras_transfer.vision.families import Architecture, Preprocessing

WEIGHT_ENDINGS = (".weights.h5", ".h5", ".keras")
# EfficientNet-Lite was trained with this; timm's converter assumes another value.
LITE_EPSILON = 1e-3


def application(architecture: Architecture, image_size: int, weights: str | None) -> keras.Model:
    """A network of keras.applications without its head.

    Args:
        architecture: which one.
        image_size: side of the square input in pixels.
        weights: `imagenet`, which Keras downloads into its own cache if it is not there, or None for random weights.

    Raises:
        ValueError: if the image is too small, or the weights cannot be downloaded.
    """
    smallest = architecture.family.smallest
    if image_size < smallest:
        raise ValueError(
            f"backbone.image_size: {architecture.name} expects at least {smallest} pixels. Received: {image_size}."
        )
    build = getattr(keras.applications, architecture.builder)
    try:
        # Keras writes the progress of a download to standard output, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            model = build(include_top=False, weights=weights, input_shape=(image_size, image_size, 3))
    except Exception as error:  # Keras raises a bare Exception where a download fails.
        if "URL fetch failure" not in str(error):
            raise
        file = keras_cache() / architecture.weights_file(image_size)
        found = re.search(r"URL fetch failure on (\S+): (?:None -- )?(.*)", str(error))
        address, reason = found.groups() if found else ("the internet", str(error))
        raise ValueError(
            f"backbone.weights: the ImageNet weights of {architecture.name} could not be downloaded from {address} "
            f"({reason}). Fetch that file on a machine with internet access, and put it here by hand as {file}; or "
            "name a file of weights that you have: backbone.weights=PATH."
        ) from error
    return with_fresh_names(model)


def keras_cache() -> Path:
    """The folder where Keras keeps the weights that it downloads."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models"


def with_fresh_names(model: keras.Model) -> keras.Model:
    """The model with its automatic layer names counted from the start, as in a fresh process.

    Keras numbers unnamed layers (`conv2d_94`) over the whole process; frozen layers, paths of weights and what is
    cached under them need names that do not depend on what was built before.
    """
    lowest: dict[str, int] = {}
    for operation in model.operations:
        if (found := _automatic(operation)) is not None:
            lowest[found[0]] = min(found[1], lowest.get(found[0], found[1]))
    # A model inside the model gives its weights other paths when it is built than when it is copied or loaded.
    nested = any(isinstance(layer, keras.Model) for layer in model.layers)
    if not nested and not any(number for prefix, number in lowest.items() if prefix != "input_layer"):
        return model

    def renamed(operation: keras.Operation) -> keras.Operation:
        config = operation.get_config()
        if (found := _automatic(operation)) is not None:
            number = found[1] - lowest[found[0]]
            config["name"] = f"{found[0]}_{number}" if number else found[0]
        return type(operation).from_config(config)

    copy = keras.models.clone_model(model, clone_function=renamed)
    copy.set_weights(model.get_weights())
    return copy


def _automatic(operation: keras.Operation) -> tuple[str, int] | None:
    """(prefix, number) of a name that Keras gave by itself, else None."""
    snake = re.sub(r"\W+", "", type(operation).__name__)
    snake = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", snake)
    snake = re.sub("([a-z])([A-Z])", r"\1_\2", snake).lower()
    match = re.fullmatch(rf"({re.escape(snake)})(?:_(\d+))?", operation.name)
    return (match[1], int(match[2] or 0)) if match else None


def efficientnet_lite0(preset: Path | None, image_size: int) -> keras.Model:
    """EfficientNet-Lite0 from its preset folder, or with random weights and without any file.

    Args:
        preset: the sample's folder in timm's form, or None.
        image_size: side of the square input in pixels.
    """
    import keras_hub

    build = keras_hub.models.EfficientNetBackbone.from_preset
    if preset is not None:
        model = build(str(preset), batch_norm_epsilon=LITE_EPSILON, name="efficientnet_lite0")
    else:
        with tempfile.TemporaryDirectory() as folder:
            config = {"architecture": "efficientnet_lite0", "num_classes": 1000, "pretrained_cfg": {}}
            (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
            model = build(folder, load_weights=False, batch_norm_epsilon=LITE_EPSILON, name="efficientnet_lite0")
    _pad_as_tensorflow(model, image_size)
    # A plain functional model: keras_hub's class would be read back with its own padding.
    return with_fresh_names(keras.Model(model.inputs[0], model.outputs[0], name=model.name))


def _pad_as_tensorflow(model: keras.Model, side: int) -> None:
    """Pads each convolution as TensorFlow's SAME does for an input of that side.

    The published weights were trained so: at stride 2 an even side gets one pixel less on the left and at the top.
    keras_hub pads all four sides alike, as timm's own networks do; with this, features are those of timm's
    `tf_efficientnet_lite0` to 2e-5.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.ZeroPadding2D):
            convolution = model.get_layer(layer.name.removesuffix("_pad"))
            stride, kernel = convolution.strides[0], convolution.kernel_size[0]
            after = -(-side // stride)
            total = max((after - 1) * stride + kernel - side, 0)
            layer.padding = ((total // 2, total - total // 2),) * 2
            side = after


def is_preset(name: str) -> bool:
    """Whether keras_hub has a built-in backbone preset of that name, or it is a handle or a preset folder."""
    import keras_hub

    known = "://" in name or (Path(name) / "config.json").is_file()
    return known or name in keras_hub.models.Backbone.presets


def hub_presets() -> list[str]:
    """The names of keras_hub's built-in backbone presets."""
    import keras_hub

    return sorted(keras_hub.models.Backbone.presets)


def hub_backbone(preset: str, image_size: int, load_weights: bool) -> tuple[keras.Model, Preprocessing, int]:
    """A keras_hub image backbone with its own preprocessing.

    Args:
        preset: a built-in name, a handle or a folder (in the form of Keras, Hugging Face or timm).
        image_size: side of the square input in pixels; 0 takes the preset's.
        load_weights: False leaves them random; the preset's configuration is needed all the same.

    Returns:
        The backbone, its preprocessing, and its image size.

    Raises:
        ValueError: if the preset cannot be had, is not an image backbone, or says nothing about preprocessing.
    """
    import keras_hub

    try:
        with contextlib.redirect_stdout(sys.stderr):
            model = keras_hub.models.Backbone.from_preset(preset, load_weights=load_weights)
    except Exception as error:  # Hubs raise errors of many libraries.
        raise ValueError(_unavailable(preset, error)) from error
    shape: tuple[Any, ...] = model.input.shape if isinstance(model.input, keras.KerasTensor) else ()
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            f"backbone.name: expected an image backbone, with one input of shape (height, width, 3). Received: "
            f"{preset!r}, a {type(model).__name__}."
        )
    converter = _converter(preset, model)
    preferred = converter.image_size[0] if converter.image_size else 224
    fixed = shape[1]
    if fixed is not None and image_size and image_size != fixed:
        raise ValueError(
            f"backbone.image_size: {preset} takes images of {fixed} pixels only. Received: {image_size}. "
            "Leave it at 0, the default."
        )
    return (
        model,
        Preprocessing(_by_channel(converter.scale, 1.0), _by_channel(converter.offset, 0.0)),
        (fixed or image_size or preferred),
    )


def _unavailable(preset: str, error: Exception) -> str:
    """Says that a preset cannot be loaded, and what to do."""
    if Path(preset).is_dir():
        return f"backbone.name: the preset folder {preset} could not be loaded: {type(error).__name__}: {error}"
    return (
        f"The keras_hub preset {preset!r} could not be fetched ({type(error).__name__}: {error}). On a machine with "
        f"internet access run keras_hub.models.Backbone.from_preset({preset!r}).save_to_preset(FOLDER), and the same "
        "for keras_hub.layers.ImageConverter; copy FOLDER here and give it as backbone.name=FOLDER."
    )


def _converter(preset: str, model: keras.Model) -> Any:
    """The image converter that belongs to a preset."""
    import keras_hub

    try:
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except Exception:  # A preset without a converter raises errors of several kinds.
        converter = None
    if converter is None:
        raise ValueError(
            f"backbone.name: the preset {preset!r} does not say how its images are scaled. Add it with "
            "keras_hub.layers.ImageConverter(scale=…, offset=…).save_to_preset(FOLDER), or load the model yourself and "
            f"pass keras_transfer.backbones.wrap(model, preprocess=…). Received: {type(model).__name__} without an "
            "image converter."
        )
    return converter


def _by_channel(value: Any, default: float) -> tuple[float, float, float]:
    """A scale or an offset as three numbers."""
    if value is None:
        return (default,) * 3
    numbers = [float(v) for v in value] if hasattr(value, "__len__") else [float(value)] * 3
    return numbers[0], numbers[1], numbers[2]


def load_file(model: keras.Model, path: Path, source: keras.Model | None) -> None:
    """Fills a network with weights from a file.

    Args:
        model: the network.
        path: `.weights.h5` or `.h5` (weights of the same network without its head), or `.keras`.
        source: for a `.keras` file: the network that was read from it.

    Raises:
        ValueError: if the file's weights are not those of such a network.
    """
    try:
        if source is None:
            with warnings.catch_warnings():
                # Keras leaves layers random, with a warning, where a file lacks them.
                warnings.filterwarnings("error", "Skipping", UserWarning)
                model.load_weights(path)
            return
        theirs, ours = source.get_weights(), model.get_weights()
        shapes = [w.shape for w in theirs], [w.shape for w in ours]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{len(theirs)} weights, where {len(ours)} of other shapes are expected")
        model.set_weights(theirs)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        raise ValueError(
            f"backbone.weights: {path} does not hold the weights of {model.name} without its classification head: "
            f"{error}. Save them with model.save_weights('NAME.weights.h5') from the same network."
        ) from error
