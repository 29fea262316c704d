"""Backbone: a pretrained network without its head, with its preprocessing, its blocks and its weights' origin."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import keras

from keras_transfer.inference_mode import InferenceMode, find_wrapper
from keras_transfer.recipe import BackboneSpec
from keras_transfer.vision import blocks as graph
from keras_transfer.vision import families, pretrained
from keras_transfer.vision.blocks import Block
from keras_transfer.vision.families import Preprocessing
from keras_transfer.weights import WeightsOrigin, sample_origin, sample_preset

__all__ = ["Backbone", "Block", "InferenceMode", "find_wrapper", "from_wrapper", "load", "wrap"]

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
    """Tokens in an input; 0 for images."""
    tokenizer: Any = None
    """Text only."""
    pooling: str = ""
    """How a sequence becomes one vector: `mean`, `first`, `last`; "" where the output is a map or a vector."""
    wrappers: list[InferenceMode] = field(default_factory=list, repr=False, compare=False)
    """The layers through which the encoders made from this backbone call it."""

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
            A model of `pixels`, float32 [N, S, S, 3], 0–255, S the backbone's image size.

        Raises:
            ValueError: if the network does not offer such features.
        """
        if features_at:
            return self.cut(features_at).encoder(kind)
        if kind not in ("pooled", "pyramid") or self.modality != "image":
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
        model = keras.Model(self.model.inputs, graph.output_of(self.model, name), name=self.model.name)
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
        levels = self.wrapped(keras.Model(self.model.inputs, tensors))(self.preprocess(pixels))
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


def load(spec: BackboneSpec) -> Backbone:
    """The backbone that a recipe names, with the weights that it names.

    Args:
        spec: `name` is a registered name however it is written (`resnet50`, `ResNet50V2`), `sample:NAME`, a keras_hub
            image preset, a handle or a folder of such a preset, or `run:PATH`, an earlier run's folder or a `.keras`
            file. `weights` is `auto`, `imagenet`, `sample:NAME`, a file, or `none` for random ones.

    Raises:
        ValueError: for a name that nothing goes by, weights that do not fit or are out of reach, an image size that
            the network cannot take, or an unknown `features_at`.
    """
    name = spec.name.removeprefix("sample:")
    architecture = families.find(name)
    if name.startswith("run:"):
        backbone = _from_run(Path(name.removeprefix("run:")), spec)
    elif architecture is not None and architecture.builder:
        backbone = _from_applications(architecture, spec)
    elif architecture is not None:
        backbone = _from_sample(architecture, spec)
    elif name and pretrained.is_preset(name):
        backbone = _from_hub(name, spec)
    else:
        raise ValueError(_unknown(spec.name))
    return backbone.cut(spec.features_at) if spec.features_at else backbone


def wrap(
    model: keras.Model, *, image_size: int | None = None, preprocess: str | Preprocessing = "none", name: str = ""
) -> Backbone:
    """The caller's own network as a backbone.

    Args:
        model: takes images [N, H, W, 3] and gives a map [N, h, w, F], a sequence [N, T, F] or a vector [N, F].
        image_size: side of the square input in pixels; None takes the model's own, or 224 where that is open.
        preprocess: what happens to pixels 0–255 before the model: `none`, `unit`, `tf`, `torch`, `caffe`, `lite`, or
            a `Preprocessing`.
        name: for the record; "" is the model's own.

    Raises:
        ValueError: if the model is not built or does not take one image, or takes another size.
    """
    shape = tuple(model.inputs[0].shape) if model.built and len(model.inputs or ()) == 1 else ()
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            "model: expected a built model with one input of images, shape (height, width, 3). Received: "
            f"{model.name} with inputs {[tuple(tensor.shape) for tensor in model.inputs or ()]}."
        )
    if image_size and shape[1] is not None and image_size != shape[1]:
        raise ValueError(f"image_size: {model.name} takes images of {shape[1]} pixels. Received: {image_size}.")
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    family = families.recognise(model.name)
    return Backbone(
        name=name or model.name,
        family=family.name if family else "own",
        modality="image",
        model=model,
        blocks=graph.partition(model, family),
        origin=WeightsOrigin(f"the caller's own model {model.name}", "unknown", "own"),
        image_size=image_size or shape[1] or 224,
        pyramid=graph.pyramid(model, family),
        preprocessing=families.preprocessing(preprocess),
        pooling="first" if getattr(model, "use_class_token", False) else "",
    )


def from_wrapper(wrapper: InferenceMode) -> Backbone:
    """The backbone inside a joined model; its blocks are found anew where the model was wrapped by hand."""
    about, model = wrapper.about, wrapper.model
    if not about:
        return replace(wrap(model), wrappers=[wrapper])
    if isinstance(model.output, Mapping):
        model = keras.Model(model.inputs, graph.steps(model)[-1].output, name=about["name"])
    return Backbone(
        name=about["name"],
        family=about["family"],
        modality=about["modality"],
        model=model,
        blocks=graph.from_mapping(about["blocks"]),
        origin=WeightsOrigin(**about["origin"]),
        image_size=about["image_size"],
        pyramid={int(stride): name for stride, name in about["pyramid"].items()},
        preprocessing=Preprocessing(
            **{key: tuple(v) if isinstance(v, list) else v for key, v in about["preprocessing"].items()}
        ),
        sequence_length=about["sequence_length"],
        pooling=about["pooling"],
        wrappers=[wrapper],
    )


def _from_applications(architecture: families.Architecture, spec: BackboneSpec) -> Backbone:
    """A network of keras.applications."""
    size = spec.image_size or architecture.image_size
    if spec.weights.startswith("sample:"):
        raise ValueError(
            f"backbone.weights: the samples hold no weights of {architecture.name}; expected auto, imagenet, a file or "
            f"none. Received: {spec.weights!r}."
        )
    pretrained_ones = spec.weights in ("auto", "imagenet")
    model = pretrained.application(architecture, size, "imagenet" if pretrained_ones else None)
    origin = WeightsOrigin(
        f"{architecture.name}, trained on ImageNet", architecture.family.licence, "keras.applications"
    )
    return _filled(architecture, model, size, origin, spec)


def _from_sample(architecture: families.Architecture, spec: BackboneSpec) -> Backbone:
    """A network whose ImageNet weights come from a sample."""
    if spec.weights.startswith("sample:") and spec.weights != f"sample:{architecture.name}":
        raise ValueError(f"backbone.weights: expected sample:{architecture.name}. Received: {spec.weights!r}.")
    from_sample = spec.weights in ("auto", "imagenet") or spec.weights.startswith("sample:")
    model = pretrained.efficientnet_lite0(sample_preset(architecture.name) if from_sample else None)
    size = spec.image_size or architecture.image_size
    return _filled(architecture, model, size, sample_origin(architecture.name), spec)


def _filled(
    architecture: families.Architecture, model: keras.Model, size: int, origin: WeightsOrigin, spec: BackboneSpec
) -> Backbone:
    """A registered network with its family's rules, and with the weights of a file where the recipe names one."""
    if spec.weights == "none":
        origin = _RANDOM
    elif spec.weights not in ("auto", "imagenet") and not spec.weights.startswith("sample:"):
        origin = _fill_from_file(model, spec.weights)
    return Backbone(
        name=architecture.name,
        family=architecture.family.name,
        modality="image",
        model=model,
        blocks=graph.partition(model, architecture.family),
        origin=origin,
        image_size=size,
        pyramid=graph.pyramid(model, architecture.family),
        preprocessing=families.preprocessing(architecture.family.preprocess),
    )


def _from_hub(preset: str, spec: BackboneSpec) -> Backbone:
    """A keras_hub image preset."""
    model, preprocessing, size = pretrained.hub_backbone(preset, spec.image_size, spec.weights == "auto")
    backbone = replace(wrap(model, image_size=size, preprocess=preprocessing, name=preset), family="keras_hub")
    if spec.weights == "auto":
        return replace(backbone, origin=WeightsOrigin(f"keras_hub preset {preset}", "see the preset's page", preset))
    origin = _RANDOM if spec.weights == "none" else _fill_from_file(model, spec.weights)
    return replace(backbone, origin=origin)


def _from_run(path: Path, spec: BackboneSpec) -> Backbone:
    """The backbone inside an earlier run's model, as that run left it."""
    if spec.weights != "auto":
        raise ValueError(f"backbone.weights: expected auto, since run: brings its own. Received: {spec.weights!r}.")
    file = path / "model.keras" if path.is_dir() else path
    model = _read_keras(file, "backbone.name: run:")
    wrapper = find_wrapper(model)
    backbone = wrap(model) if wrapper is None else replace(from_wrapper(wrapper), wrappers=[])
    if spec.image_size and spec.image_size != backbone.image_size:
        raise ValueError(
            f"backbone.image_size: {path} was trained with images of {backbone.image_size} pixels. "
            f"Received: {spec.image_size}. Leave it at 0, the default."
        )
    origin = replace(backbone.origin, description=f"{backbone.origin.description}, trained on in {path}")
    return replace(backbone, origin=replace(origin, source=f"run:{path}"))


def _fill_from_file(model: keras.Model, weights: str) -> WeightsOrigin:
    """Fills a network from a file, and says where the weights came from."""
    path = Path(weights)
    if not path.is_file() or not path.name.endswith(pretrained.WEIGHT_ENDINGS):
        known = ["auto", "imagenet", "none"]
        raise ValueError(
            f"backbone.weights: expected {', '.join(known)}, sample:NAME or a file that ends in "
            f"{', '.join(pretrained.WEIGHT_ENDINGS)}{families.hint(weights, known)}. Received: {weights!r}"
            f"{'' if path.is_file() else ', and there is no such file'}."
        )
    source = None
    if path.suffix == ".keras":
        source = _read_keras(path, "backbone.weights: ")
        wrapper = find_wrapper(source)
        source = wrapper.model if wrapper is not None else source
    pretrained.load_file(model, path, source)
    return WeightsOrigin(f"{model.name}, weights from {path.name}", "unknown", str(path))


def _read_keras(file: Path, argument: str) -> keras.Model:
    """A saved model, uncompiled."""
    if not file.is_file():
        raise ValueError(
            f"{argument}expected a run folder with a finished model.keras, or a .keras file. Received: {file}"
        )
    return keras.saving.load_model(file, compile=False)


def _unknown(name: str) -> str:
    """Says that nothing goes by that name, and what is near."""
    near = families.suggestions(name.removeprefix("sample:"))
    if not near and name:
        near = difflib.get_close_matches(name, pretrained.hub_presets(), 3)
    hint = f"; did you mean {', '.join(near)}" if near else ""
    return (
        "backbone.name: expected a name that `keras-transfer backbones` lists, sample:NAME, a keras_hub image preset, "
        f"a preset folder with a config.json, or run:PATH{hint}. Received: {name!r}."
    )


_RANDOM = WeightsOrigin("random weights", "none", "random")
