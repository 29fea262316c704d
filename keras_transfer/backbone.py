"""Backbone: a pretrained network without its head, with its preprocessing, its blocks and its weights' origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import keras

from keras_transfer.inference_mode import InferenceMode, settle_names
from keras_transfer.text import networks
from keras_transfer.vision import blocks as graph
from keras_transfer.vision import families
from keras_transfer.vision.blocks import Block
from keras_transfer.vision.families import Preprocessing
from keras_transfer.weights import WeightsOrigin

FeatureKind = Literal["pooled", "sequence", "pyramid"]


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its head."""

    name: str
    family: str
    modality: Literal["image", "text"]
    model: keras.Model
    """The bare network: preprocessed inputs in, the outputs of its last block out."""
    blocks: tuple[Block, ...]
    """Ordered from the input; together they hold every layer with weights."""
    origin: WeightsOrigin
    image_size: int = 0
    """Side of the square input in pixels; 0 for text."""
    pyramid: Mapping[int, str] = field(default_factory=dict)
    """By stride, 4 to 32 where they exist: the operation whose output is that level."""
    preprocessing: Preprocessing = Preprocessing()
    """What is done to pixels 0–255 before `model`; images only."""
    sequence_length: int = 0
    """The most tokens in an input, special ones included; 0 for images."""
    tokenizer: Any = None
    """A `text.tokenizing.Tokenizer`; None for images."""
    pooling: str = ""
    """How a sequence becomes one vector: `mean`, `first`, `last`; "" where the output is a map or a vector;
    `pooled`: a text network's own pooler has done it."""
    wrappers: list[InferenceMode] = field(default_factory=list, repr=False, compare=False)
    """The layers through which the encoders made from this backbone call it."""

    def __post_init__(self) -> None:
        settle_names(self.model)

    def about(self) -> dict[str, Any]:
        """All but the model, as plain JSON values; `InferenceMode` keeps it."""
        return {
            "name": self.name,
            "family": self.family,
            "modality": self.modality,
            "blocks": graph.as_mapping(self.blocks),
            "origin": asdict(self.origin),
            "image_size": self.image_size,
            "pyramid": {str(stride): name for stride, name in self.pyramid.items()},
            "preprocessing": asdict(self.preprocessing),
            "sequence_length": self.sequence_length,
            "pooling": self.pooling,
            "tokenizer": None if self.tokenizer is None else self.tokenizer.to_dict(),
        }

    def preprocess(self, pixels: Any) -> Any:
        """What the network takes, from pixels float32 [N, S, S, 3], 0–255, RGB.

        Made of standard Keras layers and operations in float32, so that it is saved with the model.
        """
        step = self.preprocessing
        if step.bgr:
            pixels = keras.ops.flip(pixels, axis=-1)
        if (step.scale, step.offset) != (Preprocessing().scale, Preprocessing().offset):
            scale = keras.layers.Rescaling(list(step.scale), list(step.offset), dtype="float32", name="preprocess")
            pixels = scale(pixels)
        return pixels

    def encoder(self, kind: FeatureKind, features_at: str = "") -> keras.Model:
        """A model from raw inputs to features, which calls the network in inference mode.

        Args:
            kind: `pooled`: float32 [N, F], the average over the map or the family's own pooling; `pyramid`: a
                dictionary of maps by stride, the keys written as text ("4" to "32", since a saved model has no other),
                map `s` of shape [N, ceil(S / s), ceil(S / s), F]; `sequence`: texts only.
            features_at: take the features after this block or layer, and drop what is above.

        Returns:
            A model of `pixels`, float32 [N, S, S, 3], 0–255, S the backbone's image size; for texts of packed tokens,
            see `text.networks.encoder`.

        Raises:
            ValueError: if the network does not offer such features.
        """
        if features_at:
            return self.cut(features_at).encoder(kind)
        if self.modality == "text":
            return networks.encoder(self, kind)
        if kind not in ("pooled", "pyramid"):
            raise ValueError(
                f"features: {self.name}, an {self.modality} backbone, offers pooled and pyramid. Received: {kind!r}."
            )
        pixels = keras.Input((self.image_size, self.image_size, 3), dtype="float32", name="pixels")
        outputs = self._pooled(pixels) if kind == "pooled" else self._levels(pixels)
        return keras.Model(pixels, outputs, name=f"{kind}_encoder")

    def cut(self, features_at: str) -> Backbone:
        """The backbone that ends after that block or layer.

        Raises:
            ValueError: if there is no such block or layer.
        """
        block = next((block for block in self.blocks if block.name == features_at), None)
        name = (block.output or block.layers[-1]) if block else features_at
        known = [step.name for step in graph.steps(self.model)]
        if block is self.blocks[-1] or known[-1:] == [name]:
            return self
        if name not in known:
            names = [block.name for block in self.blocks]
            raise ValueError(
                "backbone.features_at: expected the name of a block or layer"
                f"{families.hint(features_at, [*names, *known])}; blocks: {', '.join(names)}. "
                f"Received: {features_at!r}."
            )
        if isinstance(self.model, networks.HubNetwork):
            model = networks.cut(self.model, name)
        else:
            model = keras.Model(self.model.input, graph.output_of(self.model, name), name=self.model.name)
        kept = {step.name for step in graph.steps(model)}
        blocks = []
        for block in self.blocks:
            layers = tuple(layer for layer in block.layers if layer in kept)
            if layers:
                blocks.append(replace(block, layers=layers, output=block.output if block.output in kept else name))
        pyramid = {stride: level for stride, level in self.pyramid.items() if level in kept}
        return replace(self, model=model, blocks=tuple(blocks), pyramid=pyramid, wrappers=self.wrappers)

    def wrapped(self, model: keras.Model) -> InferenceMode:
        """The layer that calls this network, or a part of it, in inference mode."""
        self.wrappers.append(InferenceMode(model, about=self.about(), name="backbone"))
        return self.wrappers[-1]

    def _pooled(self, pixels: Any) -> Any:
        """Pixels to one vector a picture, float32 [N, F]."""
        outputs = self.wrapped(self.model)(self.preprocess(pixels))
        if not isinstance(outputs, keras.KerasTensor):
            raise ValueError(f"features: {self.name} has several outputs; name one with backbone.features_at.")
        rank = len(outputs.shape)
        if rank == 4:
            return keras.layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(outputs)
        if rank == 3 and self.pooling == "first":
            outputs = keras.ops.take(outputs, 0, axis=1)
        elif rank == 3:
            return keras.layers.GlobalAveragePooling1D(dtype="float32", name="pooled")(outputs)
        return keras.layers.Activation("linear", dtype="float32", name="pooled")(outputs)

    def _levels(self, pixels: Any) -> dict[str, Any]:
        """Pixels to maps by stride, zero-padded to the size that the stride asks for where valid padding lost a rim."""
        if not self.pyramid:
            raise ValueError(f"features: {self.name} has no maps of strides 4 to 32, and so no pyramid.")
        tensors = {str(stride): graph.output_of(self.model, name) for stride, name in self.pyramid.items()}
        levels = self.wrapped(keras.Model(self.model.input, tensors))(self.preprocess(pixels))
        return {stride: _aligned(level, -(-self.image_size // int(stride))) for stride, level in levels.items()}


def _aligned(level: Any, size: int) -> Any:
    """A map brought to `size` cells a side: valid padding loses cells at the rim, evenly at both ends."""
    height, width = level.shape[1:3]
    lost, extra = (size - height, size - width), (height - size, width - size)
    if max(lost) > 0:
        level = keras.layers.ZeroPadding2D([(n // 2, n - n // 2) for n in (max(m, 0) for m in lost)])(level)
    if max(extra) > 0:
        level = keras.layers.Cropping2D([(n // 2, n - n // 2) for n in (max(m, 0) for m in extra)])(level)
    return level
