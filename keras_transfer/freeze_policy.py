"""FreezePolicy: which part of a backbone trains, as text, and what it selects in a network."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

from keras_transfer.backbones import Backbone, from_wrapper
from keras_transfer.inference_mode import InferenceMode, find_wrapper
from keras_transfer.vision import blocks as graph
from keras_transfer.vision.blocks import Block
from keras_transfer.vision.families import hint, recognise

Batchnorm = Literal["frozen", "train"]
Kind = Literal["none", "all", "last", "from", "layers", "lora", "bias", "norms"]

FORMS = "none, last:N, from:BLOCK_OR_LAYER, all, layers:PATTERN,…, bias, norms, lora:RANK"
NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)


@dataclass(frozen=True)
class FreezePolicy:
    """Which part of a backbone trains. The head always does."""

    kind: Kind = "none"
    number: int = 0
    """Of `last`: blocks, counted from the output; of `lora`: the rank."""
    names: tuple[str, ...] = ()
    """Of `from`: one block or layer, which is included; of `layers`: patterns."""

    @classmethod
    def parse(cls, text: str) -> FreezePolicy:
        """The policy that a recipe writes as text.

        Args:
            text: `none`; `last:N`, blocks counted from the output; `from:X`, block or layer X and all above; `all`;
                `layers:PATTERN,…`, shell patterns over names of layers and paths of weights; `bias`, the bias terms
                alone (BitFit, https://arxiv.org/abs/2106.10199); `norms`, scales and offsets of the normalisation
                layers (https://arxiv.org/abs/2003.00152); `lora:RANK`, low-rank adapters beside the frozen kernels
                (https://arxiv.org/abs/2106.09685).

        Raises:
            ValueError: for anything else.
        """
        kind, colon, argument = str(text).strip().partition(":")
        if kind in ("none", "all", "bias", "norms") and not colon:
            return cls(kind)  # type: ignore[arg-type]
        if kind in ("last", "lora") and argument.isdecimal() and (kind == "last" or int(argument)):
            return cls("none") if int(argument) == 0 else cls(kind, number=int(argument))  # type: ignore[arg-type]
        names = tuple(name.strip() for name in argument.split(",") if name.strip())
        if (kind == "from" and len(names) == 1) or (kind == "layers" and names):
            return cls(kind, names=names)  # type: ignore[arg-type]
        known = ("none", "all", "last", "from", "layers", "bias", "norms", "lora")
        near = "" if kind in known else hint(kind, known)
        raise ValueError(f"trainable: expected one of {FORMS}{near}. Received: {text!r}.")

    @property
    def last(self) -> int:
        """N of `last:N`, else 0."""
        return self.number if self.kind == "last" else 0

    def __str__(self) -> str:
        argument = str(self.number) if self.kind in ("last", "lora") else ",".join(self.names)
        return f"{self.kind}:{argument}" if argument else self.kind


@dataclass(frozen=True)
class Target:
    """The network whose flags a policy sets, and what is around it."""

    network: keras.Model
    blocks: tuple[Block, ...]
    wrappers: tuple[InferenceMode, ...] = ()


@dataclass(frozen=True)
class Unit:
    """A layer with weights of its own."""

    chain: tuple[str, ...]
    """Names from the network's own layer down to this one."""
    layer: keras.layers.Layer
    block: int

    @property
    def variables(self) -> list[Any]:
        """Those that can train."""
        return list(self.layer._trainable_variables)


@dataclass(frozen=True)
class Chosen:
    """What a policy selects, by `id`."""

    variables: set[int]
    layers: set[int]


def select(target: Target, policy: FreezePolicy, batchnorm: Batchnorm) -> Chosen:
    """The weights that a policy makes train."""
    pairs = list(_pairs(target, units_of(target), policy))
    if batchnorm == "frozen" and not (policy.kind == "norms" and target.wrappers):
        pairs = [(layer, variable) for layer, variable in pairs if not is_batchnorm(layer)]
    if not pairs and policy.kind in ("bias", "norms", "lora", "layers"):
        what = {
            "bias": "bias terms",
            "norms": "normalisation layers that can train",
            "lora": "layers that take adapters",
        }
        raise ValueError(
            f"trainable: {target.network.name} has no {what.get(policy.kind, 'weights that can train and match')}. "
            f"Received: {str(policy)!r}. Its blocks: {', '.join(block.name for block in target.blocks)}."
        )
    return Chosen({id(variable) for _, variable in pairs}, {id(layer) for layer, _ in pairs})


def _pairs(target: Target, units: Sequence[Unit], policy: FreezePolicy) -> Iterator[tuple[Any, Any]]:
    """(layer, variable) of what a policy selects, BatchNormalization among it."""
    first = _first_unit(target, units, policy)
    for position, unit in enumerate(units):
        for variable in unit.variables:
            if (
                policy.kind == "all"
                or (policy.kind in ("last", "from") and position >= first)
                or (policy.kind == "layers" and _matches(unit, variable, policy.names))
                or (policy.kind == "bias" and variable.name == "bias")
                or (policy.kind == "norms" and isinstance(unit.layer, NORMALIZATIONS))
                or (policy.kind == "lora" and _takes_adapters(unit.layer))
            ):
                yield unit.layer, variable


def _first_unit(target: Target, units: Sequence[Unit], policy: FreezePolicy) -> int:
    """The position from which on `last:N` or `from:X` trains."""
    names = [block.name for block in target.blocks]
    block = len(names)
    if policy.kind == "last":
        if policy.number > len(names):
            raise ValueError(
                f"trainable: expected last:N with N up to {len(names)}, or all, since {target.network.name} has "
                f"{len(names)} blocks ({', '.join(names)}). Received: {str(policy)!r}."
            )
        block -= policy.number
    elif policy.kind == "from":
        wanted = policy.names[0]
        if wanted not in names:
            return _first_named(target, units, wanted)
        block = names.index(wanted)
    return next((position for position, unit in enumerate(units) if unit.block >= block), len(units))


def _first_named(target: Target, units: Sequence[Unit], wanted: str) -> int:
    """The position of the first layer with that name, or whose name starts with it (`conv5_block2`)."""
    order = {name: position for position, name in enumerate(name for b in target.blocks for name in b.layers)}
    begins = re.compile(rf"{re.escape(wanted)}(_|$)")
    for position, unit in enumerate(units):
        if any(begins.match(name) for name in unit.chain):
            return position
    if wanted in order:
        return next((i for i, unit in enumerate(units) if order[unit.chain[0]] >= order[wanted]), len(units))
    names = [block.name for block in target.blocks]
    known = [*names, *order, *(name for unit in units for name in unit.chain)]
    raise ValueError(
        f"trainable: {target.network.name} has no block or layer {wanted!r}{hint(wanted, known)}; "
        f"blocks: {', '.join(names)}. Received: 'from:{wanted}'."
    )


def _matches(unit: Unit, variable: Any, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits the layer's name, its place in the network, or the weight's path."""
    texts = (*unit.chain, "/".join(unit.chain), variable.path)
    return any(fnmatch.fnmatchcase(text, pattern) for text in texts for pattern in patterns)


def _takes_adapters(layer: keras.layers.Layer) -> bool:
    """Whether Keras has low-rank adapters for this layer's kernel."""
    return hasattr(layer, "enable_lora") and not isinstance(layer, keras.layers.Embedding)


def add_adapters(units: Sequence[Unit], rank: int) -> Chosen:
    """Adds the adapters that are not there yet; they are what trains."""
    variables: set[int] = set()
    for unit in units:
        if not unit.layer.lora_enabled:
            unit.layer.enable_lora(rank)
        variables |= {id(variable) for variable in unit.variables if variable.name.startswith("lora")}
    return Chosen(variables, {id(unit.layer) for unit in units})


def units_of(target: Target) -> list[Unit]:
    """Every layer with weights of its own, block by block in graph order."""
    by_name = {layer.name: layer for layer in target.network.layers}
    return [
        unit
        for index, block in enumerate(target.blocks)
        for name in block.layers
        for unit in _units_in(by_name[name], (name,), index)
    ]


def _units_in(layer: keras.layers.Layer, chain: tuple[str, ...], block: int) -> Iterator[Unit]:
    """The layer itself and those inside it, where they have weights of their own."""
    if layer._trainable_variables or layer._non_trainable_variables:
        yield Unit(chain, layer, block)
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from _units_in(inner, (*chain, inner.name), block)


def find_target(backbone: Backbone | keras.Model) -> Target:
    """Finds the network and its blocks."""
    if isinstance(backbone, Backbone):
        return Target(backbone.model, backbone.blocks, tuple(backbone.wrappers))
    wrapper = find_wrapper(backbone)
    if wrapper is not None:
        found = from_wrapper(wrapper)
        return Target(found.model, found.blocks, (wrapper,))
    weighted = [layer for layer in backbone.layers if layer.weights]
    nested = [layer for layer in weighted if isinstance(layer, keras.Model)]
    if nested:
        # The backbone has most of the layers, though not always most of the weights: a Dense head can be larger.
        main = max(nested, key=_weighted_layers)
        if 2 * _weighted_layers(main) >= _weighted_layers(backbone):
            return Target(main, graph.partition(main, recognise(main.name)))
    head = _head(backbone)
    blocks = graph.partition(backbone, recognise(backbone.name))
    names = {layer.name for layer in head}
    body = tuple(
        Block(block.name, layers, block.output)
        for block in blocks
        if (layers := tuple(name for name in block.layers if name not in names))
    )
    return Target(backbone, body)


def _weighted_layers(model: keras.Model) -> int:
    """How many layers with weights of their own a model has, at any depth."""
    return sum(bool(layer._trainable_variables) for layer in model._flatten_layers())


def _head(model: keras.Model) -> tuple[keras.layers.Layer, ...]:
    """The layers of a plain model behind its last map: what follows pooling or flattening."""
    steps = graph.steps(model)
    last = max((i for i, step in enumerate(steps) if len(step.output.shape) >= 4), default=None)
    if last is None:
        return ()
    return tuple(step.operation for step in steps[last + 1 :] if isinstance(step.operation, keras.layers.Layer))


def is_batchnorm(layer: keras.layers.Layer) -> bool:
    """Whether the layer has moving statistics."""
    return isinstance(layer, keras.layers.BatchNormalization)
