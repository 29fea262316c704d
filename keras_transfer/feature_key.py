"""FeatureKey: what decides a cache of features, as one hash: same key, same features."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_transfer.feature_store import CACHE_FORMAT
from keras_transfer.tasks.base import Examples
from keras_transfer.weights import fingerprint

# Words of a layer's configuration that say nothing about its output in inference mode.
_SILENT = {"trainable", "about", "build_config", "registered_name", "kernel_initializer", "bias_initializer"}


@dataclass(frozen=True)
class View:
    """One augmented view of every example: the one that a training with this seed sees in this epoch."""

    epoch: int
    """From 0."""
    seed: int
    augmentation: str
    """How it is augmented, as the recipe says it: part of the identity of the cache."""
    batch_size: int
    """Of the training, where batches mix examples (MixUp, CutMix); else of any pass."""


def identity(
    encoder: keras.Model,
    examples: Examples,
    view: View | None = None,
    precision: str = "float32",
    in_bfloat16: bool = False,
) -> str:
    """The identity of a cache: weights, architecture with preprocessing, examples, precisions, view.

    Raises:
        ValueError: the examples have no key.
    """
    if not examples.key:
        raise ValueError("examples.key: expected a hash of all that decides the inputs. Received: an empty one.")
    digest = hashlib.blake2b(digest_size=16)
    parts: list[Any] = [CACHE_FORMAT, examples.key, len(examples), keras.config.dtype_policy().name, view]
    parts += [precision] if precision != "float32" else []
    parts += ["computed in bfloat16"] if in_bfloat16 else []
    digest.update(repr(parts).encode())
    if view is not None:
        for name, values in sorted((examples.targets or {}).items()):
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    digest.update(architecture(encoder).encode())
    digest.update(fingerprint(encoder).encode())
    return digest.hexdigest()


def architecture(encoder: keras.Model) -> str:
    """Layers with their settings and connections, whatever Keras called them in this process."""
    try:
        config = encoder.get_config()
    except Exception:  # any kind: a layer of the caller's own that cannot be saved; its name must do
        return repr([(type(layer).__name__, layer.name) for layer in encoder.layers])
    names: dict[str, str] = {}

    def collect(part: Any) -> None:
        if isinstance(part, Mapping):
            name = part.get("name")
            if isinstance(name, str) and re.search(r"_\d+$", name):
                plain_name = re.sub(r"_[0-9]+$", "", name)
                # The first one made in a process has no number.
                first = plain_name == "input_layer" and plain_name not in names.values()
                names.setdefault(name, plain_name if first else f"{plain_name}#{len(names)}")
            for value in part.values():
                collect(value)
        elif isinstance(part, list | tuple):
            for value in part:
                collect(value)

    def plain(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {str(key): plain(value) for key, value in part.items() if key not in _SILENT}
        if isinstance(part, list | tuple):
            return [plain(value) for value in part]
        return names.get(part, part) if isinstance(part, str) else part

    collect(config)
    return json.dumps(plain(config), sort_keys=True, default=str)
