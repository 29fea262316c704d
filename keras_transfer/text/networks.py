"""Text networks: the blocks of a keras_hub text backbone, and encoders from tokens to features."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_transfer.text.families import Pooling
from keras_transfer.vision import blocks as graph
from keras_transfer.vision.blocks import Block

INPUTS = ("token_ids", "padding_mask", "segment_ids")
# `transformer_layer_3`, `f_net_layer_3`, `decoder_block_3`, `disentangled_attention_encoder_layer_3`, …
_LAYER = re.compile(r"(?:layer|block)_(\d+)$")


@keras.saving.register_keras_serializable("keras_transfer")
class SequencePooling(keras.layers.Layer):
    """One vector a text from one a token: float [N, T, F] and int [N, T] (1, or 0 for padding) -> float32 [N, F].

    Args:
        how: `mean` over the tokens that are no padding; `first` token; `last` token that is no padding.
    """

    def __init__(self, how: Pooling, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.how = how

    def build(self, *shapes: Any) -> None:
        """Nothing to make."""
        self.built = True

    def call(self, sequence: Any, mask: Any) -> Any:
        """The vectors."""
        ops = keras.ops
        if self.how == "first":
            return sequence[:, 0]
        mask = ops.cast(mask, sequence.dtype)
        if self.how == "last":
            # Padding on either side: what counts is the last token that is none. A sum, since a gather of one row a
            # text has a gradient that TensorFlow scatters slowly.
            places = ops.cast(ops.arange(1, ops.shape(sequence)[1] + 1), sequence.dtype)
            last = ops.max(mask * places, axis=1, keepdims=True)
            mask = ops.cast(ops.equal(mask * places, ops.maximum(last, 1.0)), sequence.dtype)
        total = ops.sum(sequence * mask[:, :, None], axis=1)
        return total / ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1.0)

    def compute_output_shape(self, sequence_shape: Any, mask_shape: Any = None) -> tuple[Any, ...]:
        """[N, F]."""
        return (sequence_shape[0], sequence_shape[2])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "how": self.how}


@keras.saving.register_keras_serializable("keras_transfer")
class HubNetwork(keras.Model):
    """A keras_hub text backbone up to one of its operations.

    It is saved as the backbone's own configuration and the operation's name: the configurations of the layers in a
    backbone are not all complete (Llama's decoder layer in keras_hub 0.32 has none that can be read back).

    Args:
        inputs: of the backbone, by name.
        outputs: of the operation.
        source: the backbone, as JSON of `keras.saving.serialize_keras_object`.
        end: the operation's name.
    """

    def __init__(self, inputs: Any, outputs: Any, source: str, end: str, **kwargs: Any):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.source, self.end = source, end

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        return {"source": self.source, "end": self.end, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> HubNetwork:
        """The network that `get_config` described, with fresh weights."""
        import keras_hub  # noqa: F401  (its classes must be known)

        backbone = keras.saving.deserialize_keras_object(json.loads(config["source"]), custom_objects)
        outputs = output_of(backbone, config["end"])
        return cls(backbone.input, outputs, config["source"], config["end"], name=config["name"])


def network(model: keras.Model, pooling: Pooling) -> HubNetwork:
    """A keras_hub text backbone with one output: the sequence [N, T, F], or the vector [N, F] of its own pooler.

    Raises:
        ValueError: for inputs that are not those of one text, or `pooled` where the network has no pooler.
    """
    names = set(model.input) if isinstance(model.input, Mapping) else set()
    if "token_ids" not in names or not names <= set(INPUTS):
        raise ValueError(
            f"backbone.name: expected a text encoder or decoder, of the inputs {', '.join(INPUTS)}. Received: "
            f"a {type(model).__name__} of {', '.join(sorted(names)) or model.input}."
        )
    output = model.output
    if isinstance(output, Mapping):
        chosen = "pooled_output" if pooling == "pooled" and "pooled_output" in output else "sequence_output"
        output = output[chosen]
    if pooling == "pooled" and len(output.shape) != 2:
        raise ValueError(
            f"backbone.pooling: a {type(model).__name__} has no pooler of its own; expected mean, first or last. "
            "Received: 'pooled'."
        )
    end = next(step.name for step in graph.steps(model) if step.output is output)
    source = json.dumps(keras.saving.serialize_keras_object(model))
    return HubNetwork(model.input, output, source, end, name=model.name)


def cut(model: HubNetwork, name: str) -> HubNetwork:
    """The network that ends after the operation of that name."""
    return HubNetwork(model.input, output_of(model, name), model.source, name, name=model.name)


def output_of(model: keras.Model, name: str) -> Any:
    """The last output of the operation of that name, since ALBERT calls one layer many times over."""
    return next(step.output for step in reversed(graph.steps(model)) if step.name == name)


def blocks(model: keras.Model) -> tuple[Block, ...]:
    """`embeddings`, each `transformer_layer_N`, `final_norm`, `pooler`: what a text network has of them."""
    steps = graph.steps(model)
    order: list[str] = []
    members: dict[str, list[str]] = {}
    current, started = "embeddings", False
    for step in steps:
        operation = step.operation
        if not isinstance(operation, keras.layers.Layer) or isinstance(operation, keras.layers.InputLayer):
            continue
        if match := _LAYER.search(operation.name):
            current, started = f"transformer_layer_{match[1]}", True
        elif started and operation.weights:
            current = "pooler" if operation.name.startswith("pooled") else "final_norm"
        if current not in members:
            order.append(current)
        known = members.setdefault(current, [])
        if operation.name not in known:
            known.append(operation.name)
    found = [Block(name, tuple(members[name]), members[name][-1]) for name in order]
    if order[:1] == ["embeddings"]:
        found[0] = Block("embeddings", found[0].layers, _fed_to_first_layer(steps))
    return tuple(found)


def _fed_to_first_layer(steps: Sequence[graph.Step]) -> str:
    """The operation whose output the first transformer layer takes; "" where it takes several (relative positions)."""
    first = next((step for step in steps if _LAYER.search(step.name)), None)
    sources = [steps[i] for i in first.sources] if first else []
    sources = [step for step in sources if not isinstance(step.operation, keras.layers.InputLayer)]
    return sources[0].name if len(sources) == 1 else ""


def encoder(backbone: Any, kind: str) -> keras.Model:
    """A model from packed tokens to features, which calls the network in inference mode.

    Args:
        backbone: one of texts.
        kind: `pooled`: float32 [N, F]; `sequence`: `{"sequence": float32 [N, T, F], "mask": float32 [N, T]}`, where
            the mask is 0 for padding.

    Returns:
        A model of a dictionary of `token_ids`, `padding_mask` and `segment_ids`, as the network takes them, each int32
        [N, T]; T may differ between calls. A padding mask is always among them.

    Raises:
        ValueError: for another kind, or a sequence of a network that ends in its pooler.
    """
    if kind not in ("pooled", "sequence"):
        raise ValueError(
            f"features: {backbone.name}, a backbone of texts, offers pooled and sequence. Received: {kind!r}."
        )
    names = input_names(backbone.model)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    taken = {name: inputs[name] for name in backbone.model.input}
    outputs = backbone.wrapped(backbone.model)(taken)
    if len(outputs.shape) == 2:
        if kind == "sequence":
            raise ValueError("backbone.pooling: expected auto, mean, first or last for a sequence. Received: 'pooled'.")
        pooled = keras.layers.Activation("linear", dtype="float32", name="pooled")(outputs)
        return keras.Model(inputs, pooled, name="pooled_encoder")
    if kind == "pooled":
        # A network cut below its pooler: the pooler would have read the first token.
        how: Any = "first" if backbone.pooling == "pooled" else backbone.pooling
        pooled = SequencePooling(how, name="pooled")(outputs, inputs["padding_mask"])
        return keras.Model(inputs, pooled, name="pooled_encoder")
    sequence = keras.layers.Activation("linear", dtype="float32", name="sequence")(outputs)
    mask = keras.ops.cast(inputs["padding_mask"], "float32")
    return keras.Model(inputs, {"sequence": sequence, "mask": mask}, name="sequence_encoder")


def input_names(model: keras.Model) -> tuple[str, ...]:
    """The inputs of an encoder made from a network: the network's own, and the padding mask."""
    return tuple(name for name in INPUTS if name in model.input or name == "padding_mask")
