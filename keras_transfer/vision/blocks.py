"""The blocks of an image network: what can be frozen, where the network can be cut, which outputs form a pyramid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_transfer.vision.families import FAMILIES, Family

PYRAMID_STRIDES = (4, 8, 16, 32)
NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
)
# How keras_hub and others name the stages of networks that are not in the registry.
STAGED = Family("staged", "none", "", ((r"(?:^|_)((?:stage|stack)_?\d+)_", r"\1"),))


@dataclass(frozen=True)
class Block:
    """Layers that are frozen or trained together."""

    name: str
    layers: tuple[str, ...]
    """Names of layers of the backbone's model, in graph order, the input layer left out."""
    output: str = ""
    """The operation whose single output is all that later blocks see, so that the network can be cut after it;
    "" where there is none (the cells of NASNet see two cells back)."""


@dataclass(frozen=True)
class Step:
    """One operation in a model's graph."""

    operation: Any
    sources: tuple[int, ...]
    """Positions of the steps that it takes its inputs from."""
    output: Any
    """Its (first) output tensor, symbolic."""
    stride: int
    """Pixels of the input for one cell of its output."""

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.operation.name


def steps(model: keras.Model) -> list[Step]:
    """The operations of a functional model, in graph order; empty for a subclassed model, which has no graph."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    # Only this private mapping tells the calls that belong to this model from other calls of the same layers.
    by_depth = getattr(model, "_nodes_by_depth", None)
    if by_depth is None:
        return []
    order = {id(operation): position for position, operation in enumerate(model.operations)}
    # Of a layer that is called many times, the call next to the input comes first: depth counts from the output.
    placed = [(order[id(node.operation)], -depth, node) for depth, level in by_depth.items() for node in level]
    nodes = [node for _, _, node in sorted(placed, key=lambda entry: entry[:2])]
    found: list[Step] = []
    producers: dict[int, int] = {}
    for position, node in enumerate(nodes):
        sources = tuple(sorted({producers[id(tensor)] for tensor in node.input_tensors if id(tensor) in producers}))
        before = max((found[source].stride for source in sources), default=1)
        own = _own_stride(node.operation, node.input_tensors, node.output_tensors[0])
        found.append(Step(node.operation, sources, node.output_tensors[0], before * own))
        producers.update((id(tensor), position) for tensor in node.output_tensors)
    return found


def cuts(graph: Sequence[Step]) -> set[int]:
    """Positions of the steps through which every path from input to output runs."""
    crossings = [0] * (len(graph) + 1)
    for position, step in enumerate(graph):
        for source in step.sources:
            if position - source > 1:
                crossings[source + 1] += 1
                crossings[position] -= 1
    passed, free = 0, set()
    for position in range(len(graph)):
        passed += crossings[position]
        if passed == 0:
            free.add(position)
    return free


def partition(model: keras.Model, family: Family | None = None) -> tuple[Block, ...]:
    """The ordered blocks of a model, by its family's rules or else by where its graph can be cut.

    Every layer with weights is in exactly one block.
    """
    graph = steps(model)
    if not graph:
        return tuple(Block(layer.name, (layer.name,)) for layer in model.layers if layer.weights)
    free = cuts(graph)
    for rules in (family,) if family is not None else (STAGED, *(known for known in FAMILIES.values() if known.starts)):
        owners = _owners([step.name for step in graph], rules)
        blocks = _blocks(graph, owners, free)
        if len(blocks) > 1 and (rules.members or all(block.output for block in blocks)):
            return blocks
    return _blocks(graph, _segments(graph, free), free)


def pyramid(model: keras.Model, family: Family | None = None) -> dict[int, str]:
    """By stride (4 to 32, where they exist): the last operation of that resolution that may serve as a feature map."""
    graph = steps(model)
    own = _own_pyramid(model, graph)
    if own:
        return {stride: own[stride] for stride in PYRAMID_STRIDES if stride in own}
    free = cuts(graph)
    units = re.compile(family.units) if family is not None and family.units else None
    levels: dict[int, str] = {}
    for position, step in enumerate(graph):
        last = position == len(graph) - 1
        chosen = last or (units.search(step.name) is not None if units else position in free)
        if chosen and step.stride in PYRAMID_STRIDES and len(step.output.shape) == 4:
            levels[step.stride] = step.name
    return dict(sorted(levels.items()))


def _own_pyramid(model: keras.Model, graph: Sequence[Step]) -> dict[int, str]:
    """By stride: the levels that a keras_hub backbone says it has; empty for other models."""
    levels = {id(tensor): 2 ** int(level[1:]) for level, tensor in getattr(model, "pyramid_outputs", {}).items()}
    found = [step for step in graph if id(step.output) in levels]
    followed = {step.stride: step.name for step in found}
    if found and None not in (side := model.inputs[0].shape[1], *(step.output.shape[1] for step in found)):
        # MiT counts its levels from P1 at stride 4, so sizes go before names.
        return {round(side / step.output.shape[1]): step.name for step in found}
    return followed if len(followed) == len(found) else {levels[id(step.output)]: step.name for step in found}


def output_of(model: keras.Model, name: str) -> Any:
    """The symbolic output of the operation with that name.

    Raises:
        ValueError: if the model has no such operation.
    """
    for step in steps(model):
        if step.name == name:
            return step.output
    raise ValueError(f"expected the name of an operation of {model.name}. Received: {name!r}")


def _own_stride(operation: Any, inputs: Sequence[Any] = (), output: Any = None) -> int:
    """By how much an operation coarsens its input."""
    if isinstance(operation, keras.Model):
        stride = 1
        for layer in operation.layers:
            stride *= _own_stride(layer)
        return stride
    strides = getattr(operation, "strides", None)
    if strides:
        return int(strides if isinstance(strides, int) else strides[0])
    # A layer made of layers does not say its stride; the sizes do, but for a squeezed map of one cell.
    sides = [tensor.shape[1] for tensor in (*inputs, output) if tensor is not None and len(tensor.shape) == 4]
    if len(sides) == 2 and None not in sides and 1 < sides[1] < sides[0]:
        return round(sides[0] / sides[1])
    return 1


def _owners(names: Sequence[str], family: Family) -> list[str]:
    """The block of each operation by the rules of a family."""
    if family.ends:
        return _owners_by_end(names, family.ends)
    owners: list[str] = []
    current, seen = "stem", set()
    for name in names:
        for pattern, template in family.members or family.starts:
            match = re.search(pattern, name)
            block = match.expand(template) if match else None
            if block and (family.members or block not in seen):
                current = block
                seen.add(block)
                break
        owners.append(current)
    return owners


def _owners_by_end(names: Sequence[str], rules: Sequence[tuple[str, str]]) -> list[str]:
    """The block of each operation where rules name the last operation of a block."""
    owners: list[str] = []
    open_since, last = 0, "stem"
    for position, name in enumerate(names):
        match = next(((m, template) for pattern, template in rules if (m := re.search(pattern, name))), None)
        if match:
            last = match[0].expand(match[1])
            owners += [last] * (position + 1 - open_since)
            open_since = position + 1
    return owners + [last] * (len(names) - open_since)


def _segments(graph: Sequence[Step], free: set[int]) -> list[str]:
    """Blocks for a network without rules: stretches between cuts that hold weights, normalisation with its layer."""
    owners = [""] * len(graph)
    start, current = 0, ""
    for position in sorted(free):
        stretch = range(start, position + 1)
        weighted = [graph[i].operation for i in stretch if getattr(graph[i].operation, "weights", None)]
        if not current or any(not isinstance(layer, NORMALIZATIONS) for layer in weighted):
            current = weighted[0].name if weighted else current
        for i in stretch:
            owners[i] = current
        start = position + 1
    first = next((owner for owner in owners if owner), "stem")
    return [owner or first for owner in owners]


def _blocks(graph: Sequence[Step], owners: Sequence[str], free: set[int]) -> tuple[Block, ...]:
    """Blocks from the owner of each step, in order of first appearance; a block without layers is left out."""
    members: dict[str, list[int]] = {}
    for position, owner in enumerate(owners):
        members.setdefault(owner, []).append(position)
    blocks = []
    for name, positions in members.items():
        layers = tuple(
            graph[i].name
            for i in positions
            if isinstance(graph[i].operation, keras.layers.Layer)
            and not isinstance(graph[i].operation, keras.layers.InputLayer)
        )
        contiguous = positions[-1] - positions[0] == len(positions) - 1
        output = graph[positions[-1]].name if contiguous and positions[-1] in free else ""
        if layers:
            blocks.append(Block(name, tuple(dict.fromkeys(layers)), output))
    return tuple(blocks)


def as_mapping(blocks: Sequence[Block]) -> list[Mapping[str, Any]]:
    """The blocks as plain JSON values."""
    return [{"name": block.name, "layers": list(block.layers), "output": block.output} for block in blocks]


def from_mapping(plain: Sequence[Mapping[str, Any]]) -> tuple[Block, ...]:
    """The blocks that `as_mapping` described."""
    return tuple(Block(entry["name"], tuple(entry["layers"]), entry.get("output", "")) for entry in plain)
