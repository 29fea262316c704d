"""Where backbones come from: the registry, samples, keras_hub presets, earlier runs, the caller's own model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from keras_transfer.backbone import Backbone, FeatureKind
from keras_transfer.inference_mode import InferenceMode, find_wrapper
from keras_transfer.recipe import BackboneSpec
from keras_transfer.text import families as text_families
from keras_transfer.vision import blocks as graph
from keras_transfer.vision import families, pretrained
from keras_transfer.vision.blocks import Block
from keras_transfer.vision.families import Preprocessing
from keras_transfer.weights import WeightsOrigin, preset_arguments, sample_origin, sample_preset

__all__ = ["Backbone", "Block", "FeatureKind", "InferenceMode", "find_wrapper", "from_wrapper", "load", "wrap"]


def load(spec: BackboneSpec) -> Backbone:
    """The backbone that a recipe names, with the weights that it names.

    Args:
        spec: `name` is a registered name however it is written (`resnet50`, `ResNet50V2`), `sample:NAME`, a keras_hub
            preset of images or of texts, a handle or a folder of such a preset (in Keras's or Hugging Face's form), or
            `run:PATH`, an earlier run's folder or a `.keras` file. `weights` is `auto`, `imagenet`, `sample:NAME`, a
            file, or `none` for random ones.

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
    elif name in text_families.SAMPLES:
        backbone = _from_text(str(sample_preset(name)), spec, preset_arguments(name))
    elif name and pretrained.is_preset(name):
        backbone = _from_text(name, spec) if _is_text(name) else _from_hub(name, spec)
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
    inputs = [tuple(tensor.shape) for tensor in model.inputs] if model.built and hasattr(model, "inputs") else []
    shape = inputs[0] if len(inputs) == 1 else ()
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            "model: expected a built model with one input of images, shape (height, width, 3). Received: "
            f"{model.name} with inputs {inputs}."
        )
    if image_size and shape[1] is not None and image_size != shape[1]:
        raise ValueError(f"image_size: {model.name} takes images of {shape[1]} pixels. Received: {image_size}.")
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
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
        model = keras.Model(model.input, graph.steps(model)[-1].output, name=about["name"])
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
        tokenizer=_restored_tokenizer(about),
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
    size = spec.image_size or architecture.image_size
    model = pretrained.efficientnet_lite0(sample_preset(architecture.name) if from_sample else None, size)
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


def _is_text(preset: str) -> bool:
    """Whether a keras_hub preset is a backbone of texts."""
    from keras_transfer.text import pretrained as texts  # TF Text is needed only by texts

    return texts.family_of(preset) is not None


def _from_text(preset: str, spec: BackboneSpec, arguments: Mapping[str, Any] | None = None) -> Backbone:
    """A text encoder or decoder with its tokenizer."""
    from keras_transfer.text import pretrained as texts

    name = spec.name.removeprefix("sample:")
    sample = f"sample:{name}" if arguments is not None else ""
    with_weights = spec.weights == "auto" or spec.weights == sample
    found = texts.load(preset, spec.pooling, with_weights, **(arguments or {}))
    if spec.sequence_length > found.longest_possible:
        raise ValueError(
            f"backbone.sequence_length: {name} takes at most {found.longest_possible} tokens. "
            f"Received: {spec.sequence_length}."
        )
    if with_weights and sample:
        origin = sample_origin(name)
    elif with_weights:
        kind = "preset folder" if Path(preset).is_dir() else "keras_hub preset"
        origin = WeightsOrigin(f"{kind} {preset}", "see the preset's page", preset)
    else:
        origin = _RANDOM if spec.weights == "none" else _fill_from_file(found.model, spec.weights)
    return Backbone(
        name=name,
        family=found.family.name,
        modality="text",
        model=found.model,
        blocks=found.blocks,
        origin=origin,
        sequence_length=spec.sequence_length or found.longest,
        tokenizer=found.tokenizer,
        pooling=found.pooling,
    )


def _restored_tokenizer(about: Mapping[str, Any]) -> Any:
    """The tokenizer that a saved model brings; None for images."""
    if not about.get("tokenizer"):
        return None
    from keras_transfer.text.tokenizing import Tokenizer

    return Tokenizer.from_dict(about["tokenizer"])


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
        near = difflib.get_close_matches(name, [*text_families.SAMPLES, *pretrained.hub_presets()], 3)
    hint = f"; did you mean {', '.join(near)}" if near else ""
    return (
        "backbone.name: expected a name that `keras-transfer backbones` lists, sample:NAME, a keras_hub preset, "
        f"a preset folder with a config.json, or run:PATH{hint}. Received: {name!r}."
    )


_RANDOM = WeightsOrigin("random weights", "none", "random")
