"""BoundaryCache: a network cut at its frozen boundary, so that fine-tuning computes the frozen part once.

With `last:N` or `from:X` everything below the lowest block that trains gives the same activations each epoch. They are
computed once into the form of `feature_cache`, and a model of the upper part alone, which shares its layers with the
joined model, trains on them. When it is done, the joined model holds the trained weights: they are the same variables.

An epoch then costs (L + 2k) / 3k times less for k of L equal layers trained: one forward pass of L layers and a
backward pass of twice k become k and twice k.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import freezing
from keras_transfer.backbones import Backbone
from keras_transfer.data.pipeline import training_batches, unwrap
from keras_transfer.feature_cache import Encode, best_batch_size, bytes_of_example
from keras_transfer.feature_store import seconds_to_read
from keras_transfer.inference_mode import InferenceMode
from keras_transfer.recipe import Phase
from keras_transfer.tasks.base import Examples
from keras_transfer.vision import blocks as graph

BOUNDARY = "boundary"
"""The name of the activations among the inputs of the upper part."""
PROBE_BATCHES = 3
TRACING = 2
"""Batches before those that count: a first one traces, and another length traces once more, for all lengths."""
FIXED_SECONDS = 5.0
"""Tracing and folding the lower part, which the cache costs once."""


class NoBoundary(ValueError):
    """The network cannot be cut where this phase would have it; says why."""


@dataclass(frozen=True)
class Cut:
    """A joined model in two parts, which share its layers."""

    block: str
    """The last block of the lower part."""
    prefix: keras.Model
    """Raw inputs to the activations after that block, in inference mode."""
    suffix: keras.Model
    """Activations, and what else of the raw inputs the upper part takes, to raw outputs."""
    extras: tuple[str, ...]
    """Names of those raw inputs."""


@dataclass(frozen=True)
class Estimate:
    """What caching saves, from a few batches."""

    compute: float
    """Seconds to load one example and compute its activations."""
    read: float
    """Seconds to read them again."""
    bytes: float
    """Of one example's activations."""

    def saved(self, train: int, validation: int, epochs: int) -> float:
        """Seconds that caching saves; below zero it costs.

        Args:
            train: number of training examples.
            validation: number of validation examples.
            epochs: of training; the validation examples are scored once more, before the first.
        """
        live = self.compute * (train * epochs + validation * (epochs + 1))
        cached = (self.compute + self.read) * (train + validation) + self.read * (train + validation) * epochs
        return live - cached - FIXED_SECONDS


def activations(backbone: Backbone, phase: Phase) -> Any:
    """The symbolic tensor at the boundary of a phase, by the frozen blocks alone; None if there is no boundary."""
    name = freezing.boundary(backbone, phase.trainable, phase.batchnorm)
    block = next((block for block in backbone.blocks if block.name == name), None)
    if block is None:
        return None
    return next((step.output for step in graph.steps(backbone.model) if step.name == block.output), None)


def cut(backbone: Backbone, encoder: keras.Model, head: keras.Model, phase: Phase) -> Cut:
    """The joined model of an encoder and a head, cut below everything that the phase trains.

    Call it after `freezing.apply`, which sets what trains (and may add adapters).

    Args:
        backbone: the encoder's.
        encoder: from raw inputs to features, as `Backbone.encoder` made it.
        head: from features to raw outputs.
        phase: says what trains.

    Raises:
        NoBoundary: there is no such place.
    """
    name = freezing.boundary(backbone, phase.trainable, phase.batchnorm)
    if name is None:
        raise NoBoundary(f"with trainable {phase.trainable} there is no place below all that trains")
    wrapper = next((layer for layer in encoder.layers if isinstance(layer, InferenceMode)), None)
    if wrapper is None or not isinstance(wrapper.output, keras.KerasTensor):
        raise NoBoundary("features of several levels cannot be cut in one place")
    block = next(block for block in backbone.blocks if block.name == name)
    network = wrapper.model
    steps = graph.steps(network)
    end = next(position for position, step in enumerate(steps) if step.name == block.output)
    tensor = steps[end].output
    if end == len(steps) - 1:
        raise NoBoundary("nothing of the backbone trains")
    prefix_net = keras.Model(network.input, tensor, name=f"{network.name}_below")
    if phase.batchnorm == "train" and any(_is_random(layer) for layer in prefix_net._flatten_layers()):
        raise NoBoundary("with batchnorm train, dropout below the boundary stays active")
    arguments = wrapper._inbound_nodes[0].arguments.args[0]
    prefix = keras.Model(encoder.input, InferenceMode(prefix_net, name="below")(arguments), name="below_boundary")
    above = _inputs_above(network, steps, end)
    around = _inputs_above(encoder, tail_steps := graph.steps(encoder), _position(tail_steps, wrapper))
    suffix = _suffix(network, encoder, head, wrapper, tensor, above, around, phase)
    chosen = [variable.path for variable in suffix.trainable_variables]
    wanted = [variable.path for variable in (*wrapper.trainable_variables, *head.trainable_variables)]
    if chosen != wanted:
        raise NoBoundary("something that trains lies below the boundary")
    return Cut(name, prefix, suffix, tuple(dict.fromkeys([*above, *around])))


def _suffix(
    network: keras.Model,
    encoder: keras.Model,
    head: keras.Model,
    wrapper: InferenceMode,
    tensor: Any,
    above: Sequence[str],
    around: Sequence[str],
    phase: Phase,
) -> keras.Model:
    """The upper part: the network above the cut, what the encoder does after it (pooling), and the head."""
    # Lists, not dictionaries: Keras wants the keys of those to be the names of the tensors.
    with _history_kept(network), _history_kept(encoder):
        upper = keras.Model(_one_or_all([tensor, *(network.input[name] for name in above)]), network.output)
        tail = keras.Model(_one_or_all([wrapper.output, *(encoder.input[name] for name in around)]), encoder.output)
    inputs = {BOUNDARY: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=BOUNDARY)}
    for name in dict.fromkeys([*above, *around]):
        raw = encoder.input[name]
        inputs[name] = keras.Input(raw.shape[1:], dtype=raw.dtype, name=name)
    layer = InferenceMode(upper, batchnorm=phase.batchnorm, name="above")
    outputs = layer(_one_or_all([inputs[BOUNDARY], *(inputs[name] for name in above)]))
    features = tail(_one_or_all([outputs, *(inputs[name] for name in around)]))
    return keras.Model(inputs if len(inputs) > 1 else inputs[BOUNDARY], head(features), name="above_boundary")


@contextlib.contextmanager
def _history_kept(model: keras.Model) -> Iterator[None]:
    """Puts back what the model's inputs say of their origin.

    A Keras model from an intermediate tensor and an input makes that input, which it does not copy, the output of a new
    node; the model that it came from could then not be saved.
    """
    histories = [(tensor, tensor._keras_history) for tensor in model.inputs]
    try:
        yield
    finally:
        for tensor, history in histories:
            tensor._keras_history = history


def _one_or_all(tensors: list[Any]) -> Any:
    return tensors if len(tensors) > 1 else tensors[0]


def _position(steps: Sequence[graph.Step], layer: Any) -> int:
    return next(position for position, step in enumerate(steps) if step.operation is layer)


def _inputs_above(model: keras.Model, steps: Sequence[graph.Step], end: int) -> list[str]:
    """Names of the model's inputs that reach its output around the step at which it is cut."""
    ends = {id(tensor) for tensor in tf.nest.flatten(model.output)}
    waiting, seen = [position for position, step in enumerate(steps) if id(step.output) in ends], set()
    while waiting:
        position = waiting.pop()
        if position == end or position in seen:
            continue
        seen.add(position)
        waiting.extend(steps[position].sources)
    reached = {id(steps[position].output) for position in seen}
    named = model.input if isinstance(model.input, dict) else {}
    found = [name for name, tensor in named.items() if id(tensor) in reached]
    if any(isinstance(steps[p].operation, keras.layers.InputLayer) for p in seen) and not found:
        raise NoBoundary("the input reaches the output around every block")
    return found


def _is_random(layer: Any) -> bool:
    """Whether a layer draws random numbers in training."""
    return getattr(layer, "seed_generator", None) is not None and bool(getattr(layer, "rate", 1))


def why_not(parts: Cut, examples: Examples) -> str:
    """Why these examples cannot be cached at this boundary; "" if they can."""
    if parts.extras and examples.load_batch is None:
        return f"its upper part also takes {', '.join(parts.extras)}, which cannot be read in batches"
    if examples.lengths is not None and "padding_mask" not in parts.extras:
        return "its upper part takes no padding mask, so that outputs depend on the padding"
    return ""


def measure(parts: Cut, examples: Examples, encode: Encode | None = None, precision: str = "float32") -> Estimate:
    """Computes a few batches, writes them beside the cache, and reads them again.

    A read from the memory map is that of the system's page cache where the data fit memory, as in training.
    """
    size = min(best_batch_size(), len(examples))
    function = (encode or Encode(parts.prefix))(fold=False)
    seconds, kept = [], []
    # Shuffled: in order of length, the first texts are the shortest.
    dataset = training_batches(examples, size, 0, augment=False).dataset.take(TRACING + PROBE_BATCHES)
    started = time.monotonic()
    for batch in dataset:
        kept = [np.asarray(value) for value in tf.nest.flatten(function(unwrap(batch["inputs"])))]
        seconds.append(time.monotonic() - started)
        started = time.monotonic()
    compute = float(np.mean(seconds[TRACING:])) / size
    read = seconds_to_read([value.astype(precision) for value in kept]) / size
    return Estimate(compute, read, bytes_of_example(parts.prefix, examples, precision))
