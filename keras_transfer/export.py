"""Export a caller's own Keras model: `keras_transfer.export(model, directory, task=…, labels=…)`.

What the engine and the commands use lies beside it: `versions.publish` (write a version) and `exported` (read one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.exported import (
    WEIGHTS_LICENCE_FILE,
    Signature,
    describe_version,
    label_files,
    load_signature,
    version_folder,
)
from keras_transfer.folding import input_structure, live
from keras_transfer.labels import Labels
from keras_transfer.recipe import BackboneSpec, DataSpec, Recipe
from keras_transfer.tasks import get_task
from keras_transfer.tasks.base import Serving, Task
from keras_transfer.versions import TOLERANCE, Arrays, publish

__all__ = ["Signature", "describe_version", "export", "load_signature", "publish", "version_folder"]

ModelOutputs = Literal["auto", "logits", "probabilities"]
SMALLEST_PROBABILITY = 1e-30
"""Stands for a probability of 0 under a logarithm; softmax gives it back as 0 to 1e-30."""


def export(
    model: keras.Model,
    directory: str | Path,
    *,
    task: str,
    labels: Sequence[str] | Labels = (),
    name: str | None = None,
    version: int | None = None,
    resize: Literal["crop", "pad", "stretch"] = "crop",
    image_size: int | None = None,
    outputs: ModelOutputs = "auto",
    backbone: Any = None,
    licence: str = "unknown",
    probe: Arrays | None = None,
    tolerance: float = TOLERANCE,
) -> Path:
    """Publishes a Keras model as a version that TF Serving loads: raw input in, decoded answers out.

    Args:
        model: from float32 [N, S, S, 3], raw pixels 0..255 (preprocessing inside the model), or a token dictionary, to
            [N, C] in the order of `labels`. [N, 1] is accepted for two labels: it speaks for the second. For question
            answering: from tokens [N, T] to logits [N, T, 2], a token as the first and as the last of the answer.
        directory: where models are published; the version is DIRECTORY/NAME/N.
        task: a task's name, such as `image_classification`.
        labels: class names in the order of the model's outputs; `Labels` for several labels an example. For question
            answering, which has no classes: nothing, or `Labels((), "none", (THRESHOLD,))` where a question may have no
            answer (that of SQuAD 2.0: none where its score is above that of the best answer by more).
        name: the model's name for a server; None takes `model.name`.
        version: the number to publish; None is the next one.
        resize: how an image meets the square that the model takes.
        image_size: S, where the model does not say it.
        outputs: whether the model ends in logits or in probabilities; `auto` looks at its last activation.
        backbone: for a task on texts: the `Backbone` whose tokenizer the model was trained with.
        licence: the licence of the weights, kept with the export.
        probe: real requests, by signature and input name, on which the export must answer as the model does; None takes
            a few made ones.
        tolerance: largest difference of a float answer.

    Returns:
        The version folder, DIRECTORY/NAME/N.

    Raises:
        ValueError: for a faulty argument, or where the export does not answer as the model does (nothing is published).
    """
    job = get_task(task)
    recipe = Recipe(name=name or model.name, task=task, data=DataSpec(resize=resize))
    labels = _checked_labels(labels, job, recipe)
    if job.modality == "image":
        model, size = _with_image_input(model, image_size)
        recipe = _with_size(recipe, size)
    elif backbone is None:
        raise ValueError(
            f"backbone: expected the Backbone whose tokenizer the model was trained with, since {task} takes texts. "
            "Received: None. keras_transfer.backbones.load gives one"
        )
    if job.features == "pooled":
        model = _with_logits(model, labels, outputs)
    elif job.features == "sequence":
        _check_token_logits(model, outputs)

    def make_serving(numeric: Callable[[Any], Any]) -> Serving:
        return job.serving(numeric, labels, recipe, backbone)

    reference = make_serving(live(model))
    requests: Arrays = probe or {**reference.warmup, **(_made_images(size) if job.modality == "image" else {})}
    return publish(
        Path(directory) / recipe.name,
        make_serving,
        model,
        extra={
            "recipe.json": recipe.to_json(),
            WEIGHTS_LICENCE_FILE: licence.rstrip() + "\n",
            **label_files(labels),
        },
        probe=requests,
        expected=_answers(reference, requests),
        tolerance=tolerance,
        require_text_ops=job.modality == "text",
        version=version,
    )


def _checked_labels(labels: Sequence[str] | Labels, job: Task, recipe: Recipe) -> Labels:
    """The labels as a table, without doubles; of a task without classes, those that it learns from no example."""
    if job.features == "sequence":
        if isinstance(labels, Labels) and labels.kind == "none" and not labels.names:
            return labels
        if isinstance(labels, Labels) or len(labels):
            raise ValueError(
                f"labels: expected none, since {job.name} has no classes, or Labels((), 'none', (THRESHOLD,)). "
                f"Received: {labels!r}"
            )
        return job.learn_labels([], recipe)
    if isinstance(labels, str):
        raise ValueError(f"labels: expected a sequence of class names. Received: the text {labels!r}. Put it in a list")
    table = labels if isinstance(labels, Labels) else Labels(tuple(labels))
    wrong = [name for name in table.names if not isinstance(name, str)]
    doubles = sorted({name for name in table.names if table.names.count(name) > 1})
    if wrong or doubles or len(table) < 2:
        raise ValueError(
            "labels: expected at least two different class names as text, in the order of the model's outputs. "
            f"Received: {wrong or doubles or list(table.names)}"
        )
    return table


def _check_token_logits(model: keras.Model, outputs: ModelOutputs) -> None:
    """Raises unless the model gives two logits a token."""
    shape = model.output_shape
    ends_in = _last_activation(model) if outputs == "auto" else outputs
    if not isinstance(shape, tuple) or len(shape) != 3 or shape[2] != 2 or ends_in not in ("linear", "logits"):
        raise ValueError(
            "model: expected logits of shape [N, T, 2], of a token as the first and as the last of the answer. "
            f"Received: {shape}, ending in {ends_in}. Take a softmax off, or stack the two outputs"
        )


def _with_image_input(model: keras.Model, image_size: int | None) -> tuple[keras.Model, int]:
    """The model with a known input, and the side of the square that it takes."""
    shape = tuple(model.input_shape) if getattr(model, "inputs", None) else None
    if shape is None or isinstance(shape[0], tuple):
        if image_size is None or shape is not None:
            raise ValueError(
                "model: expected one input of [N, S, S, 3]. Received: "
                + (f"inputs of {shape}" if shape else f"a {type(model).__name__} without known inputs; give image_size")
            )
        inputs = keras.Input((image_size, image_size, 3))
        return keras.Model(inputs, model(inputs), name=model.name), image_size
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise ValueError(
            f"model: expected an input of [N, S, S, 3]. Received: {shape}. Wrap it in a model that takes it"
        )
    if image_size is not None and shape[1] not in (None, image_size):
        raise ValueError(f"image_size: expected the model's {shape[1]}. Received: {image_size}. Leave it out")
    size = image_size or shape[1]
    if size is None:
        raise ValueError(f"image_size: expected a side in pixels, since the model's input is {shape}. Received: None")
    return model, size


def _with_size(recipe: Recipe, size: int) -> Recipe:
    """The recipe with the side of its images."""
    return Recipe(name=recipe.name, task=recipe.task, data=recipe.data, backbone=BackboneSpec(image_size=size))


def _with_logits(model: keras.Model, labels: Labels, outputs: ModelOutputs) -> keras.Model:
    """The model ending in logits [N, C], which every task decodes: softmax of a softmax would flatten the answers."""
    ends_in = _last_activation(model) if outputs == "auto" else "linear" if outputs == "logits" else ""
    count = model.output_shape[-1] if isinstance(model.output_shape, tuple) else None
    multi = labels.kind == "multi"
    if count != len(labels) and not (count == 1 and len(labels) == 2 and not multi):
        raise ValueError(
            f"labels: expected as many as the model has outputs, {model.output_shape}. Received: {len(labels)}. "
            "Give one name an output, in their order"
        )
    if not ends_in:
        ends_in = "sigmoid" if multi or count == 1 else "softmax"
    if (ends_in == "softmax" and (multi or count == 1)) or (ends_in == "sigmoid" and not multi and count != 1):
        raise ValueError(
            f"model: expected logits, {'a sigmoid' if multi or count == 1 else 'or a softmax'}, for "
            f"{'several labels an example' if multi else 'one label an example'}. Received: a {ends_in} at the end. "
            "Take it off, or give Labels of the kind that the model was trained for"
        )
    if ends_in == "linear" and count != 1:
        return model
    inputs = input_structure(model)
    values = keras.ops.cast(model(inputs), "float32")
    if ends_in in ("softmax", "sigmoid"):
        logits = keras.ops.log(keras.ops.maximum(values, SMALLEST_PROBABILITY))
        if ends_in == "sigmoid":
            logits = logits - keras.ops.log(keras.ops.maximum(1.0 - values, SMALLEST_PROBABILITY))
        values = logits
    if count == 1:
        values = keras.ops.concatenate([keras.ops.zeros_like(values), values], axis=-1)
    return keras.Model(inputs, values, name=model.name)


def _last_activation(model: keras.Model) -> str:
    """`softmax`, `sigmoid` or `linear`, by the last layer."""
    last = model.layers[-1]
    if isinstance(last, keras.Model):
        return _last_activation(last)
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    activation = getattr(getattr(last, "activation", None), "__name__", "linear")
    return activation if activation in ("softmax", "sigmoid") else "linear"


def _made_images(size: int) -> dict[str, Mapping[str, Any]]:
    """Requests of coloured noise, wide, high and small, for a model without real ones."""
    generator = np.random.default_rng(0)
    shapes = ((size, 2 * size), (size + 7, size), (max(size // 2, 1), max(size // 2, 1)))
    images = [generator.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    return {"serving_default": {"image_bytes": np.array(encoded, object)}, "pixels": {"pixels": images[0][None]}}


def _answers(serving: Serving, requests: Arrays) -> dict[str, dict[str, np.ndarray]]:
    """What the signatures answer in this process, on the device on which the fresh process will answer."""
    answers = {}
    with tf.device("CPU:0"):
        for signature, inputs in requests.items():
            tensors = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
            answers[signature] = {
                name: value.numpy() for name, value in serving.signatures[signature](**tensors).items()
            }
    return answers
