"""What trains and what stays: the flags, the paths and the checks that follow from a `FreezePolicy`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_transfer.backbones import Backbone
from keras_transfer.freeze_policy import (
    Batchnorm,
    FreezePolicy,
    add_adapters,
    find_target,
    is_batchnorm,
    select,
    units_of,
)
from keras_transfer.inference_mode import InferenceMode

__all__ = [
    "FreezePolicy",
    "apply",
    "assert_only_changed",
    "boundary",
    "describe",
    "freeze",
    "paces",
    "snapshot",
    "unfreeze",
]


@dataclass(frozen=True)
class LayerRow:
    """One layer, for a listing."""

    name: str
    kind: str
    parameters: int


@dataclass(frozen=True)
class BlockRow:
    """One block, for a listing."""

    name: str
    layers: tuple[LayerRow, ...]
    parameters: int
    last: int
    """`last:N` with this N trains from here on, the same as `from:NAME`."""
    trains: int
    """How many parameters that is, BatchNormalization frozen."""


def freeze(model: keras.Model, trainable: str = "none") -> list[str]:
    """Freezes the backbone of any model, but for what `trainable` names.

    The backbone is what an `InferenceMode` layer holds, else a nested model with most of the layers, else the model's
    own layers up to the last map (what follows, behind pooling or flattening, is the head). The head always trains.
    BatchNormalization layers of the backbone stay frozen, and so use their moving statistics even in training.

    Args:
        model: a built model; compile it again afterwards.
        trainable: see `FreezePolicy.parse`.

    Returns:
        The paths of the weights that train, head included.

    Raises:
        ValueError: for a policy that does not fit the model.
    """
    apply(model, FreezePolicy.parse(trainable))
    return list(dict.fromkeys(variable.path for variable in model.trainable_variables))


def unfreeze(model: keras.Model, trainable: str) -> list[str]:
    """Makes what `trainable` names train, and nothing else of the backbone; otherwise the same as `freeze`."""
    return freeze(model, trainable)


def apply(backbone: Backbone | keras.Model, policy: FreezePolicy | str, batchnorm: Batchnorm = "frozen") -> list[str]:
    """Sets the `trainable` flags, layer by layer (a flag of a whole model says nothing about the layers inside).

    Args:
        backbone: a backbone, or a model that has one (see `freeze`).
        policy: what trains.
        batchnorm: `frozen`: BatchNormalization neither trains nor moves its statistics (with `norms` its scales and
            offsets train, where an `InferenceMode` layer keeps the statistics); `train`: it does both in what trains.

    Returns:
        The paths of the backbone's weights that train.

    Raises:
        ValueError: for a policy that does not fit the backbone.
    """
    policy = FreezePolicy.parse(policy) if isinstance(policy, str) else policy
    target = find_target(backbone)
    chosen = select(target, policy, batchnorm)
    for wrapper in target.wrappers:
        wrapper.trainable, wrapper.batchnorm = True, batchnorm
    units = units_of(target)
    for layer in (target.network if isinstance(backbone, Backbone) else backbone)._flatten_layers():
        layer.trainable = True
    if policy.kind == "lora":
        chosen = add_adapters([unit for unit in units if id(unit.layer) in chosen.layers], policy.number)
    for unit in units:
        kept = [variable for variable in unit.variables if id(variable) in chosen.variables]
        if not kept and not list(unit.layer._flatten_layers(include_self=False)):
            unit.layer.trainable = False
        else:
            for variable in unit.variables:
                variable.trainable = id(variable) in chosen.variables
    return list(dict.fromkeys(v.path for v in target.network.trainable_variables if id(v) in chosen.variables))


def boundary(
    backbone: Backbone | keras.Model, policy: FreezePolicy | str, batchnorm: Batchnorm = "frozen"
) -> str | None:
    """The last block below everything that trains, after which the network can be cut; None if there is none."""
    policy = FreezePolicy.parse(policy) if isinstance(policy, str) else policy
    target = find_target(backbone)
    chosen = select(target, policy, batchnorm)
    lowest = min(
        (unit.block for unit in units_of(target) if id(unit.layer) in chosen.layers), default=len(target.blocks)
    )
    below = [block.name for block in target.blocks[:lowest]]
    return below[-1] if below and target.blocks[lowest - 1].output else None


def describe(backbone: Backbone) -> list[BlockRow]:
    """The blocks in order, with their layers and what each toggle would train."""
    target = find_target(backbone)
    units = units_of(target)
    by_name = {layer.name: layer for layer in target.network.layers}
    rows: list[BlockRow] = []
    above = 0
    for index in reversed(range(len(target.blocks))):
        block = target.blocks[index]
        layers = [by_name[name] for name in block.layers]
        above += sum(_size(unit.variables) for unit in units if unit.block == index and not is_batchnorm(unit.layer))
        rows.append(
            BlockRow(
                block.name,
                tuple(LayerRow(layer.name, type(layer).__name__, layer.count_params()) for layer in layers),
                sum(layer.count_params() for layer in layers),
                last=len(target.blocks) - index,
                trains=above,
            )
        )
    return rows[::-1]


def paces(model: keras.Model, backbone: Backbone, layer_decay: float) -> dict[str, float]:
    """The share of the learning rate of each weight that trains, by path.

    Args:
        model: the joined model.
        backbone: its backbone.
        layer_decay: the share of each block in that of the block above; the head has 1, the top block `layer_decay`
            (discriminative fine-tuning, https://arxiv.org/abs/1801.06146).
    """
    if layer_decay == 1:
        return {}
    target = find_target(backbone)
    block_of = {variable.path: unit.block for unit in units_of(target) for variable in unit.variables}
    top = len(target.blocks)
    return {v.path: layer_decay ** (top - block_of.get(v.path, top)) for v in model.trainable_variables}


def snapshot(model: keras.Model) -> dict[str, str]:
    """A hash of each weight's value by path, but for the moving statistics that training was asked to move."""
    moving = {id(variable) for layer in _moving(model) for variable in layer._non_trainable_variables}
    digests: dict[str, Any] = {}
    for variable in model.weights:
        if id(variable) not in moving:
            digest = digests.setdefault(variable.path, hashlib.blake2b(digest_size=16))
            digest.update(np.ascontiguousarray(variable.numpy()).view(np.uint8))
    return {path: digest.hexdigest() for path, digest in digests.items()}


def assert_only_changed(before: Mapping[str, str], after: Mapping[str, str], chosen: Sequence[str]) -> list[str]:
    """Checks that a training changed nothing but the chosen weights.

    Args:
        before: `snapshot` before the training.
        after: `snapshot` after it.
        chosen: paths of the weights that were to train.

    Returns:
        The chosen weights that did not change.

    Raises:
        RuntimeError: if any other weight changed in a single bit, appeared or went away.
    """
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    wrong = sorted(changed - set(chosen))
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} frozen weights changed in training, among them {', '.join(wrong[:5])}. "
            "This is a fault of the trainer: please report it with the recipe."
        )
    return [path for path in chosen if path not in changed]


def _moving(model: keras.Model) -> list[keras.layers.Layer]:
    """The BatchNormalization layers whose statistics move in training."""
    kept: set[int] = set()
    for layer in model._flatten_layers():
        if isinstance(layer, InferenceMode) and layer.batchnorm == "frozen":
            kept |= {id(inner) for inner in layer._flatten_layers()}
    return [
        layer for layer in model._flatten_layers() if is_batchnorm(layer) and layer.trainable and id(layer) not in kept
    ]


def _size(variables: Sequence[Any]) -> int:
    """How many numbers the variables hold."""
    return sum(int(np.prod(variable.shape)) for variable in variables)
