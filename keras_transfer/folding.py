"""The numeric part of a model as one function, its weights folded into constants where the size allows.

Constants let TensorFlow's graph optimizer merge normalization into convolutions and kernels, which variables forbid;
the function stays an ordinary part of a SavedModel. Only the numeric part can be folded: lookup tables and tokenizers
stay outside and are tracked.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

FOLD_BELOW_BYTES = 1_500_000_000
"""A protocol buffer, hence a SavedModel's graph, ends at 2 GB; the rest is margin for the graph itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Numeric:
    """A model ready to be called inside serving signatures."""

    call: Callable[[Any], Any]
    """Inputs of the model's structure, [N, …] each, cast to its types -> its outputs' structure, [N, …] each, in
    inference mode; N may be 0."""
    variables: tuple[tf.Variable, ...]
    """What the SavedModel must track; nothing when folded."""
    folded: bool


def numeric_part(model: keras.Model, fold_below: int = FOLD_BELOW_BYTES) -> Numeric:
    """The model as a function, with its weights as constants if they are smaller than `fold_below`.

    Args:
        model: a functional or Sequential model with one input or a structure of inputs.
        fold_below: bytes of weights from which the weights stay variables; 0 never folds.

    Raises:
        ValueError: for a model whose inputs are unknown.
    """
    structure = input_structure(model)
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{number}")
        for number, tensor in enumerate(tf.nest.flatten(structure))
    ]

    @tf.function(input_signature=specs, autograph=False)
    def numeric(*flat: tf.Tensor) -> Any:
        return model(tf.nest.pack_sequence_as(structure, flat), training=False)

    concrete = numeric.get_concrete_function()
    outputs = concrete.structured_outputs
    function = _fold(concrete) if weight_bytes(model) < fold_below else None

    def call(inputs: Any) -> Any:
        flat = _matched(inputs, structure, model.name)
        # A folded function rejects a bool mask where the model said int32; the casts make both kinds accept the same.
        cast = [tf.cast(value, spec.dtype) for value, spec in zip(flat, specs, strict=True)]
        count = tf.shape(cast[0])[0]
        answers = tf.nest.flatten((function or concrete)(*[_never_empty(value) for value in cast]))
        return tf.nest.pack_sequence_as(outputs, [answer[:count] for answer in answers])

    # Keras's variables wrap TensorFlow's, and only the latter can be tracked.
    variables = () if function is not None else tuple(variable.value for variable in model.variables)
    return Numeric(call, variables, function is not None)


def live(model: keras.Model) -> Callable[[Any], Any]:
    """The model itself under the same contract: what a serving signature is compared with."""
    return numeric_part(model, fold_below=0).call


def weight_bytes(model: keras.Model) -> int:
    """Bytes of all weights."""
    return sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in model.variables)


def _never_empty(batch: tf.Tensor) -> tf.Tensor:
    """The batch, or one row of zeros for an empty one."""
    # Convolutions on a CPU (oneDNN) give an empty batch the shape of their input, on which the next layer fails.
    # Not tf.pad: oneDNN merges it into a convolution that follows, as if only height and width could be padded.
    shape = tf.shape(batch)
    row = tf.zeros(tf.concat([tf.maximum(1 - shape[:1], 0), shape[1:]], 0), batch.dtype)
    return tf.concat([batch, row], 0)


def _fold(concrete: Any) -> Any | None:
    """The function with constants for variables, or None where TensorFlow cannot convert it."""
    # Lookup tables made eagerly (keras_hub's tokenizers) leave None here in every graph; TensorFlow warns of each.
    concrete.graph.clear_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS)
    try:
        # Loops and branches stay functional: the old control flow is not needed by anything that reads SavedModels.
        return convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    except Exception as error:  # any kind, by the operation it cannot convert; a slower export is still a right one
        _log.warning(
            "The weights could not be folded into constants (%s); they are exported as variables, which serve slower.",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
        )
        return None


def input_structure(model: keras.Model) -> Any:
    """The model's symbolic inputs, as it takes them: a KerasTensor or a structure of them.

    Raises:
        ValueError: for a model whose inputs are unknown.
    """
    if isinstance(model, keras.Sequential):
        inputs = model.inputs if model.built else None
        return inputs[0] if inputs else _unknown_inputs(model)
    if getattr(model, "inputs", None) is None:
        return _unknown_inputs(model)
    return model.input


def _unknown_inputs(model: keras.Model) -> Any:
    raise ValueError(
        f"model: expected a functional or Sequential model with known inputs. Received: {model.name!r}, "
        f"a {type(model).__name__} without. Wrap it: inputs = keras.Input(shape); keras.Model(inputs, model(inputs))"
    )


def _matched(inputs: Any, structure: Any, name: str) -> list[Any]:
    """The flat inputs in the order of the model's."""
    if isinstance(structure, Mapping):
        received = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        if received != sorted(structure):
            raise ValueError(
                f"the inputs of {name}: expected a dictionary with {sorted(structure)}. Received: {received}"
            )
        inputs = {name: inputs[name] for name in structure}
    return tf.nest.flatten(inputs)
