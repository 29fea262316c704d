"""Where weights come from, and their identity."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.samples import find_sample, weights_folder

if TYPE_CHECKING:
    import keras


# keras_hub takes timm's default of 1e-5 for the one, and its own of 1e-6 for the other.
_PRESET_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "efficientnet_lite0": {"batch_norm_epsilon": 1e-3},
    "smollm2": {"layer_norm_epsilon": 1e-5},
}

# Keras numbers the names that it makes up, by a count over the whole process.
_MADE_UP_NUMBER = re.compile(r"_\d+(?=/|$)")


@dataclass(frozen=True)
class WeightsOrigin:
    """What the weights of a backbone are and where they came from, for the record and the export."""

    description: str
    """One line for people."""
    licence: str
    """As its publisher declares it; "unknown" where that is not recorded."""
    source: str
    """`sample:NAME`, `keras.applications`, a preset's name, a path, or `random`."""


def sample_preset(name: str) -> Path:
    """The folder of a sample's weights that keras_hub's `from_preset` loads; converted once, then cached.

    `efficientnet_lite0` loads as EfficientNet, `minilm` as BERT and `smollm2` as Llama 3, each with its
    `preset_arguments`.

    Args:
        name: a weights sample's name, with or without the leading `sample:`.

    Raises:
        ValueError: for an unknown name, or if the package file cannot be had.
    """
    return weights_folder(name)


def preset_arguments(name: str) -> dict[str, Any]:
    """Arguments for `from_preset` besides the folder: values of the training that a folder's form cannot say.

    Args:
        name: a weights sample's name, with or without the leading `sample:`.

    Raises:
        ValueError: for an unknown name.
    """
    return dict(_PRESET_ARGUMENTS.get(find_sample(name, "weights").name, {}))


def sample_origin(name: str) -> WeightsOrigin:
    """The origin of a sample's weights.

    Args:
        name: a weights sample's name, with or without the leading `sample:`.

    Raises:
        ValueError: for an unknown name.
    """
    sample = find_sample(name, "weights")
    return WeightsOrigin(
        f"{sample.title}, from the package {sample.package} {sample.version}", sample.licence, f"sample:{sample.name}"
    )


def fingerprint(model: keras.Model) -> str:
    """32 hexadecimal digits over the path, type, shape and value of every weight of a built model.

    The same for a second model with equal weights, also in another process; a single changed bit changes it. State of
    metrics and of random seeds does not count.

    Args:
        model: a built model.
    """
    digest = hashlib.blake2b(digest_size=16)
    for weight in model.weights:
        value = np.asarray(weight)
        path = _MADE_UP_NUMBER.sub("", weight.path)
        digest.update(f"{path}\0{weight.dtype}\0{value.shape}\0".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
