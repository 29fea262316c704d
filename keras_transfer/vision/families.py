"""The image backbones that are known by name: preprocessing, size, blocks. Plain data; TensorFlow is not imported."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """What a family does to pixels 0–255 in RGB order before its first layer: `pixels * scale + offset`."""

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """By channel, in the order that the network takes."""
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bgr: bool = False
    """The network takes blue, green, red; the channels are reversed before scale and offset."""


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PREPROCESSING: Mapping[str, Preprocessing] = {
    # The names `caffe`, `tf`, `torch` and their constants are those of keras.applications.imagenet_utils.
    "none": Preprocessing(),
    "unit": Preprocessing(scale=(1 / 255,) * 3),
    "tf": Preprocessing(scale=(1 / 127.5,) * 3, offset=(-1.0,) * 3),
    "torch": Preprocessing(
        scale=tuple(1 / 255 / std for std in IMAGENET_STD),  # type: ignore[arg-type]
        offset=tuple(-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)),  # type: ignore[arg-type]
    ),
    "caffe": Preprocessing(offset=(-103.939, -116.779, -123.68), bgr=True),
    # EfficientNet-Lite as its authors trained it: (pixel - 127) / 128.
    "lite": Preprocessing(scale=(1 / 128,) * 3, offset=(-127 / 128,) * 3),
}


def preprocessing(name: str | Preprocessing) -> Preprocessing:
    """The preprocessing of that name: `none`, `unit` (0–1), `tf` (−1–1), `torch`, `caffe`, `lite`.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(name, Preprocessing):
        return name
    if name not in PREPROCESSING:
        known = ", ".join(PREPROCESSING)
        raise ValueError(f"preprocess: expected one of {known}{hint(name, PREPROCESSING)}. Received: {name!r}")
    return PREPROCESSING[name]


@dataclass(frozen=True)
class Family:
    """What the members of a family share.

    A rule is (pattern of operation names, name of the block, which may refer to the pattern's groups).
    """

    name: str
    preprocess: str
    licence: str
    """As stated by keras.applications for the ported weights."""
    starts: tuple[tuple[str, str], ...] = ()
    """A block starts at the first operation that matches; what comes before the first block is `stem`."""
    ends: tuple[tuple[str, str], ...] = ()
    """Instead of `starts`: a block ends with the operation that matches; what follows belongs to the last block."""
    members: tuple[tuple[str, str], ...] = ()
    """Instead of both, where blocks overlap in the graph: an operation belongs to the block of the rule it matches."""
    smallest: int = 32
    """Side of the smallest image in pixels."""
    units: str = ""
    """Operations whose outputs may serve as pyramid levels: the ends of residual units and the like."""


_NUMBERED_CONV = ((r"^(conv[2-5])_block", r"\1"),)
_EFFICIENT = ((r"^(block\d)\D", r"\1"),)
_CELLS_MOBILE = {"stem": "stem_[12]", "stage1": "[0-3]", "stage2": "(reduce_4|[5-8])", "stage3": "(reduce_8|9|1[0-2])"}
_CELLS_LARGE = {
    "stem": "stem_[12]",
    "stage1": "[0-5]",
    "stage2": "(reduce_6|[7-9]|1[0-2])",
    "stage3": "(reduce_12|1[3-8])",
}


def _staged(*starts: str) -> tuple[tuple[str, str], ...]:
    """Rules for stage1, stage2, … from the name of each one's first operation."""
    return tuple((f"^{first}(_|$)", f"stage{number}") for number, first in enumerate(starts, 1))


def _cells(ids: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Rules for NASNet, whose operations end with the id of their cell; unnamed ones belong to the block before."""
    cell_named = r"^(adjust|normal|reduction|separable).*(?<!reduce)(?<!stem)_{}$"
    named = tuple((cell_named.format(cell), stage) for stage, cell in ids.items())
    return ((r"^stem_", "stem"), *named)


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("vgg", "caffe", "CC BY 4.0", ((r"^(block\d)_", r"\1"),), units=r"^block\d_pool$"),
        Family("resnet", "caffe", "MIT", _NUMBERED_CONV, units=r"^conv\d_block\d+_out$"),
        Family("resnet_v2", "tf", "MIT", _NUMBERED_CONV, units=r"^conv\d_block\d+_out$"),
        Family(
            "inception_v3",
            "tf",
            "Apache-2.0",
            ends=((r"^max_pooling2d_1$", "stem"), (r"^(mixed\d+)$", r"\1")),
            smallest=75,
            units=r"^(mixed\d+|activation_4)$",
        ),
        Family(
            "inception_resnet_v2",
            "tf",
            "Apache-2.0",
            ends=(
                (r"^mixed_5b$", "stem"),
                (r"^block35_10_ac$", "block35"),
                (r"^block17_20_ac$", "block17"),
                (r"^conv_7b_ac$", "block8"),
            ),
            smallest=75,
            units=r"^(block\d+_\d+_ac|activation_4)$",
        ),
        Family("xception", "tf", "MIT", ((r"^(block\d+)_", r"\1"),), smallest=71, units=r"^add(_\d+)?$"),
        Family(
            "mobilenet",
            "tf",
            "Apache-2.0",
            _staged("conv_dw_1", "conv_(pad|dw)_2", "conv_(pad|dw)_4", "conv_(pad|dw)_6", "conv_(pad|dw)_12"),
            units=r"^conv_pw_\d+_relu$",
        ),
        Family(
            "mobilenet_v2",
            "tf",
            "Apache-2.0",
            _staged("expanded_conv", "block_1", "block_3", "block_6", "block_10", "block_13", "block_16"),
            units=r"^(expanded_conv|block_\d+)_(project_BN|add)$",
        ),
        Family(
            "mobilenet_v3_small",
            "none",
            "Apache-2.0",
            _staged("expanded_conv", *(f"expanded_conv_{n}" for n in (1, 3, 6, 8))),
            units=r"^expanded_conv(_\d+)?_(project_bn|add)$",
        ),
        Family(
            "mobilenet_v3_large",
            "none",
            "Apache-2.0",
            _staged("expanded_conv", *(f"expanded_conv_{n}" for n in (1, 3, 6, 10, 12))),
            units=r"^expanded_conv(_\d+)?_(project_bn|add)$",
        ),
        Family("efficientnet_lite", "lite", "Apache-2.0", _EFFICIENT, units=r"^block\d[a-z]+_(add|project_bn)$"),
        Family("efficientnet", "none", "Apache-2.0", _EFFICIENT, units=r"^block\d.+_(add|project_bn)$"),
        Family("efficientnet_v2", "none", "Apache-2.0", _EFFICIENT, units=r"^block\d.+_(add|project_bn)$"),
        Family("densenet", "torch", "BSD-3-Clause", _NUMBERED_CONV, units=r"^conv\d_block\d+_concat$"),
        Family(
            "convnext",
            "none",
            "MIT",
            (
                (r"_stage_(\d)_block", r"stage\1"),
                *((rf"_downsampling_block_{n}$", f"stage{n + 1}") for n in range(3)),
            ),
            units=r"^add(_\d+)?$",
        ),
        Family("nasnet_mobile", "tf", "Apache-2.0", members=_cells(_CELLS_MOBILE), units=r"^\w+_concat_\w+$"),
        Family("nasnet_large", "tf", "Apache-2.0", members=_cells(_CELLS_LARGE), units=r"^\w+_concat_\w+$"),
    )
}


@dataclass(frozen=True)
class Architecture:
    """One image backbone of the registry."""

    name: str
    family: Family
    builder: str
    """Its function in keras.applications; "" for those from a sample."""
    image_size: int
    """Default side of the square input in pixels: the one that the weights were trained with."""
    parameters: int
    """Without the classification head."""
    file: str
    """The file of its ImageNet weights in the cache of Keras; "" for those from a sample."""

    def weights_file(self, image_size: int) -> str:
        """The name of the ImageNet weights' file for that image size (the first MobileNets have several)."""
        rows = image_size if image_size in MOBILENET_SIZES else 224
        return self.file.format(kernels="_weights_tf_dim_ordering_tf_kernels_notop.h5", rows=rows)


MOBILENET_SIZES = (96, 128, 160, 192, 224)
# name, family, function in keras.applications, image size, parameters without the head, file of the weights.
_APPLICATIONS = (
    ("vgg16", "vgg", "VGG16", 224, 14_714_688, "vgg16{kernels}"),
    ("vgg19", "vgg", "VGG19", 224, 20_024_384, "vgg19{kernels}"),
    ("resnet50", "resnet", "ResNet50", 224, 23_587_712, "resnet50{kernels}"),
    ("resnet101", "resnet", "ResNet101", 224, 42_658_176, "resnet101{kernels}"),
    ("resnet152", "resnet", "ResNet152", 224, 58_370_944, "resnet152{kernels}"),
    ("resnet50_v2", "resnet_v2", "ResNet50V2", 224, 23_564_800, "resnet50v2{kernels}"),
    ("resnet101_v2", "resnet_v2", "ResNet101V2", 224, 42_626_560, "resnet101v2{kernels}"),
    ("resnet152_v2", "resnet_v2", "ResNet152V2", 224, 58_331_648, "resnet152v2{kernels}"),
    ("inception_v3", "inception_v3", "InceptionV3", 299, 21_802_784, "inception_v3{kernels}"),
    (
        "inception_resnet_v2",
        "inception_resnet_v2",
        "InceptionResNetV2",
        299,
        54_336_736,
        "inception_resnet_v2{kernels}",
    ),
    ("xception", "xception", "Xception", 299, 20_861_480, "xception{kernels}"),
    ("mobilenet", "mobilenet", "MobileNet", 224, 3_228_864, "mobilenet_1_0_{rows}_tf_no_top.h5"),
    (
        "mobilenet_v2",
        "mobilenet_v2",
        "MobileNetV2",
        224,
        2_257_984,
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{rows}_no_top.h5",
    ),
    (
        "mobilenet_v3_small",
        "mobilenet_v3_small",
        "MobileNetV3Small",
        224,
        939_120,
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    ),
    (
        "mobilenet_v3_large",
        "mobilenet_v3_large",
        "MobileNetV3Large",
        224,
        2_996_352,
        "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    ),
    ("efficientnet_b0", "efficientnet", "EfficientNetB0", 224, 4_049_571, "efficientnetb0_notop.h5"),
    ("efficientnet_b1", "efficientnet", "EfficientNetB1", 240, 6_575_239, "efficientnetb1_notop.h5"),
    ("efficientnet_b2", "efficientnet", "EfficientNetB2", 260, 7_768_569, "efficientnetb2_notop.h5"),
    ("efficientnet_b3", "efficientnet", "EfficientNetB3", 300, 10_783_535, "efficientnetb3_notop.h5"),
    ("efficientnet_b4", "efficientnet", "EfficientNetB4", 380, 17_673_823, "efficientnetb4_notop.h5"),
    ("efficientnet_b5", "efficientnet", "EfficientNetB5", 456, 28_513_527, "efficientnetb5_notop.h5"),
    ("efficientnet_b6", "efficientnet", "EfficientNetB6", 528, 40_960_143, "efficientnetb6_notop.h5"),
    ("efficientnet_b7", "efficientnet", "EfficientNetB7", 600, 64_097_687, "efficientnetb7_notop.h5"),
    ("efficientnet_v2_b0", "efficientnet_v2", "EfficientNetV2B0", 224, 5_919_312, "efficientnetv2-b0_notop.h5"),
    ("efficientnet_v2_b1", "efficientnet_v2", "EfficientNetV2B1", 240, 6_931_124, "efficientnetv2-b1_notop.h5"),
    ("efficientnet_v2_b2", "efficientnet_v2", "EfficientNetV2B2", 260, 8_769_374, "efficientnetv2-b2_notop.h5"),
    ("efficientnet_v2_b3", "efficientnet_v2", "EfficientNetV2B3", 300, 12_930_622, "efficientnetv2-b3_notop.h5"),
    ("efficientnet_v2_s", "efficientnet_v2", "EfficientNetV2S", 384, 20_331_360, "efficientnetv2-s_notop.h5"),
    ("efficientnet_v2_m", "efficientnet_v2", "EfficientNetV2M", 480, 53_150_388, "efficientnetv2-m_notop.h5"),
    ("efficientnet_v2_l", "efficientnet_v2", "EfficientNetV2L", 480, 117_746_848, "efficientnetv2-l_notop.h5"),
    ("densenet121", "densenet", "DenseNet121", 224, 7_037_504, "densenet121{kernels}"),
    ("densenet169", "densenet", "DenseNet169", 224, 12_642_880, "densenet169{kernels}"),
    ("densenet201", "densenet", "DenseNet201", 224, 18_321_984, "densenet201{kernels}"),
    ("convnext_tiny", "convnext", "ConvNeXtTiny", 224, 27_820_128, "convnext_tiny_notop.h5"),
    ("convnext_small", "convnext", "ConvNeXtSmall", 224, 49_454_688, "convnext_small_notop.h5"),
    ("convnext_base", "convnext", "ConvNeXtBase", 224, 87_566_464, "convnext_base_notop.h5"),
    ("convnext_large", "convnext", "ConvNeXtLarge", 224, 196_230_336, "convnext_large_notop.h5"),
    ("convnext_xlarge", "convnext", "ConvNeXtXLarge", 224, 348_147_968, "convnext_xlarge_notop.h5"),
    ("nasnet_mobile", "nasnet_mobile", "NASNetMobile", 224, 4_269_716, "nasnet_mobile_no_top.h5"),
    ("nasnet_large", "nasnet_large", "NASNetLarge", 331, 84_916_818, "nasnet_large_no_top.h5"),
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "efficientnet_lite0": Architecture("efficientnet_lite0", FAMILIES["efficientnet_lite"], "", 224, 3_413_024, ""),
    **{
        name: Architecture(name, FAMILIES[family], builder, size, parameters, file)
        for name, family, builder, size, parameters, file in _APPLICATIONS
    },
}
_BY_LETTERS = {re.sub(r"[^a-z0-9]", "", name): name for name in ARCHITECTURES}


def names() -> list[tuple[str, str, int, int]]:
    """The registry, in order: (name, family, parameters without the head, default image size in pixels)."""
    return [(a.name, a.family.name, a.parameters, a.image_size) for a in ARCHITECTURES.values()]


def find(name: str) -> Architecture | None:
    """The architecture of that name, however it is written (`ResNet50`, `resnet50v2`, `inception-v3`), or None."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return ARCHITECTURES[_BY_LETTERS[letters]] if letters in _BY_LETTERS else None


def suggestions(name: str) -> list[str]:
    """Up to three registered names that are near a mistyped one, the nearest first."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return [_BY_LETTERS[near] for near in difflib.get_close_matches(letters, _BY_LETTERS, 3)]


def hint(name: str, known: Iterable[str]) -> str:
    """The text ` (did you mean X?)` for a mistyped name, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def recognise(model_name: str) -> Family | None:
    """The family of a keras.applications model that somebody else built, by the name that Keras gave it."""
    letters = re.sub(r"[^a-z0-9]", "", model_name.lower())
    fitting = [known for known in _BY_LETTERS if letters.startswith(known)]
    return ARCHITECTURES[_BY_LETTERS[max(fitting, key=len)]].family if fitting else None
