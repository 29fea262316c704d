"""FeatureCache: outputs of the frozen prefix, computed once, on disk.

Layout of one cache folder: `<cache>/features/<key>/<name>.npy`, one memory-mapped array a tensor of the structure,
plus `cache.json` with the structure and how many rows are written. Rows are written in order and counted after they
are flushed, so that a killed pass goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.pipeline import evaluation_batches, unwrap
from keras_transfer.samples import cache_folder
from keras_transfer.tasks.base import Examples
from keras_transfer.weights import fingerprint

CACHE_FORMAT = 1
SECONDS_BETWEEN_MARKS = 5.0


@dataclass(frozen=True)
class FeatureCache:
    """Features of all examples of one split, in the order of the examples."""

    folder: Path
    arrays: Mapping[str, np.ndarray]
    """Memory-mapped, [n, …], by flat name."""
    template: Any
    """The nested structure, with flat names as leaves."""

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(array.nbytes for array in self.arrays.values())

    def rows(self, index: Any) -> Any:
        """The features of some examples, in the encoder's own structure."""
        return tf.nest.map_structure(lambda name: self.arrays[name][index], self.template)


class CachedExamples:
    """Examples whose inputs are cached features: what a head trains on.

    The same object as the joined model's examples for all else: ids, targets, meta, order.
    """

    def __init__(self, cache: FeatureCache, examples: Examples):
        self.ids, self.meta, self.key = examples.ids, examples.meta, examples.key
        self.lengths, self.bucket_lengths = None, ()
        self.augment = self.augment_batch = None
        self._cache = cache
        self._targets = gather_targets(examples)

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: tf.Tensor) -> Any:
        """One example; the pipeline prefers `load_batch`."""
        inputs, targets = self.load_batch(index[None], tf.constant(0))
        return tf.nest.map_structure(lambda x: x[0], (inputs, targets))

    def load_batch(self, index: tf.Tensor, length: tf.Tensor) -> Any:
        """int64 [B] -> (features, targets) of those examples, read from the memory map."""
        names = tf.nest.flatten(self._cache.template)
        arrays = [self._cache.arrays[name] for name in names]

        def read(rows: np.ndarray) -> list[np.ndarray]:
            return [np.asarray(array[rows], np.float32) for array in arrays]

        flat = tf.numpy_function(read, [index], [tf.float32] * len(names))
        for value, array in zip(flat, arrays, strict=True):
            value.set_shape([index.shape[0], *array.shape[1:]])
        inputs = tf.nest.pack_sequence_as(self._cache.template, flat)
        targets = {name: tf.gather(values, index) for name, values in self._targets.items()}
        return inputs, targets


def gather_targets(examples: Examples) -> dict[str, np.ndarray]:
    """Every target, loaded once: {name: [n, …]}."""
    if getattr(examples, "targets", None) is not None:
        return dict(examples.targets)  # type: ignore[arg-type]
    batches = evaluation_batches(examples, 64)
    collected: dict[str, np.ndarray] = {}
    for batch in batches.dataset:
        real = batch["real"].numpy() > 0
        rows = batch["index"].numpy()[real]
        for name, value in batch["targets"].items():
            value = value.numpy()[real]
            if name not in collected:
                collected[name] = np.empty((len(examples), *value.shape[1:]), value.dtype)
            collected[name][rows] = value
    return collected


def compute(
    encoder: keras.Model,
    examples: Examples,
    *,
    batch_size: int = 64,
    directory: Path | None = None,
    progress: Callable[[int], None] | None = None,
    describe: str = "",
) -> FeatureCache:
    """The features of all examples: read where they are cached, else computed in one pass and written as it streams.

    Args:
        encoder: from raw inputs to features; called in inference mode.
        examples: unaugmented examples with a `key`.
        directory: default `<cache folder>/features`.
        progress: called with the number of examples done.

    Source of the idea: features of frozen layers never change, so each is computed once (keras.io transfer-learning
    guide, "feature extraction").
    """
    directory = directory or cache_folder() / "features"
    folder = directory / _key(encoder, examples)
    opened = _open(folder, len(examples))
    if opened is not None and opened[1] == len(examples):
        os.utime(folder)
        if progress:
            progress(len(examples))
        return opened[0]
    return _fill(encoder, examples, folder, opened, batch_size, progress, describe)


def _key(encoder: keras.Model, examples: Examples) -> str:
    """The identity of a cache: weights, architecture, examples, precision."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{CACHE_FORMAT}|{examples.key}|{keras.config.dtype_policy().name}|".encode())
    digest.update(fingerprint(encoder).encode())
    digest.update(repr([(layer.__class__.__name__, layer.name) for layer in encoder.layers]).encode())
    return digest.hexdigest()


def _open(folder: Path, count: int) -> tuple[FeatureCache, int] | None:
    """A cache with the number of rows that are written; None where there is none to go on with."""
    try:
        mark = json.loads((folder / "cache.json").read_text())
        if mark["format"] != CACHE_FORMAT or mark["count"] != count:
            return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in mark["names"]}
    except (OSError, ValueError, KeyError):
        return None
    template = tf.nest.pack_sequence_as(_from_json(mark["template"]), mark["names"])
    return FeatureCache(folder, arrays, template), int(mark["written"])


def _fill(
    encoder: keras.Model,
    examples: Examples,
    folder: Path,
    opened: tuple[FeatureCache, int] | None,
    batch_size: int,
    progress: Callable[[int], None] | None,
    describe: str,
) -> FeatureCache:
    """Writes the rows that are missing."""
    batches = evaluation_batches(examples, max(1, min(batch_size, len(examples))))
    start = opened[1] // batches.batch_size if opened and examples.lengths is None else 0
    cache = opened[0] if opened and start else None

    @tf.function(reduce_retracing=True, autograph=False)
    def encode(inputs: Any) -> Any:
        return encoder(inputs, training=False)

    done, marked = start * batches.batch_size, time.monotonic()
    for batch in batches.dataset.skip(start):
        features = encode(unwrap(batch["inputs"]))
        rows = batch["index"].numpy()[batch["real"].numpy() > 0]
        flat = [np.asarray(value, np.float32) for value in tf.nest.flatten(features)]
        if cache is None:
            cache = _create(folder, features, flat, examples, describe)
        for array, value in zip((cache.arrays[n] for n in tf.nest.flatten(cache.template)), flat, strict=True):
            array[rows] = value[: len(rows)]
        done += len(rows)
        if progress:
            progress(done)
        if time.monotonic() - marked > SECONDS_BETWEEN_MARKS:
            _mark(cache, done, len(examples), describe)
            marked = time.monotonic()
    assert cache is not None
    _mark(cache, len(examples), len(examples), describe)
    return cache


def _create(folder: Path, features: Any, flat: list[np.ndarray], examples: Examples, describe: str) -> FeatureCache:
    """Empty arrays on disk for all rows; checks the space first."""
    needed = sum(value[0].nbytes for value in flat) * len(examples)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if needed > 0.95 * free:
        raise OSError(
            f"The feature cache needs {needed / 1e6:,.0f} MB in {folder.parent}. Expected so much free space. "
            f"Received: {free / 1e6:,.0f} MB. Free some, set KERAS_TRANSFER_CACHE to another disk, or use cache off."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = [f"t{number}" for number in range(len(flat))]
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(len(examples), *value.shape[1:])
        )
        for name, value in zip(names, flat, strict=True)
    }
    cache = FeatureCache(folder, arrays, tf.nest.pack_sequence_as(features, names))
    _mark(cache, 0, len(examples), describe)
    return cache


def _mark(cache: FeatureCache, written: int, count: int, describe: str) -> None:
    """Flushes the rows, then says how many there are."""
    for array in cache.arrays.values():
        array.flush()  # type: ignore[attr-defined]
    mark = {
        "format": CACHE_FORMAT,
        "count": count,
        "written": written,
        "names": list(tf.nest.flatten(cache.template)),
        "template": _to_json(cache.template),
        "describe": describe,
    }
    beside = cache.folder / "cache.json.tmp"
    beside.write_text(json.dumps(mark))
    os.replace(beside, cache.folder / "cache.json")


def _to_json(template: Any) -> Any:
    """A structure as JSON; integer keys (strides) survive as pairs."""
    if isinstance(template, dict):
        return {"pairs": [[key, _to_json(value)] for key, value in template.items()]}
    if isinstance(template, (list, tuple)):
        return {"items": [_to_json(value) for value in template]}
    return template


def _from_json(plain: Any) -> Any:
    if isinstance(plain, dict) and "pairs" in plain:
        return {key: _from_json(value) for key, value in plain["pairs"]}
    if isinstance(plain, dict):
        return [_from_json(value) for value in plain["items"]]
    return plain
