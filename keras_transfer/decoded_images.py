"""DecodedImages: what examples load as (decoded, resized), done once and kept in the disk cache within its budget.

Where a training reads raw images for several epochs (augmented, or through layers that train), each epoch would decode
and resize them again. The loaded inputs are kept exactly as `Examples.load` gives them (float32 squares), and
augmentation, shuffling and batching go on after them as before, so that the training is the same, number by number. The
form on disk is that of `feature_store`: a killed pass goes on where it stopped, and runs share it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.cached_examples import gather_targets
from keras_transfer.data.pipeline import evaluation_batches
from keras_transfer.feature_arrays import FeatureCache, Leaf, write_stream
from keras_transfer.feature_cache import missing_batches
from keras_transfer.feature_store import CACHE_FORMAT, Store, hold, release, seconds_to_read
from keras_transfer.tasks.base import Examples

BATCH = 32
PROBE_BATCHES = 2
FIXED_SECONDS = 2.0
"""Below this gain the files are not worth their place; tracing the pass takes about half of it."""
SLOWEST_LOAD = 0.05
"""Seconds for one image at most, roughly: where even that would not pay, nothing is measured."""


@dataclass(frozen=True)
class Estimate:
    """What keeping the images saves, from a few batches."""

    load: float
    """Seconds to load one example: read the file, decode, resize."""
    read: float
    """Seconds to read it again as it is kept."""
    bytes: float
    """Of one example."""

    def saved(self, train: int, validation: int, epochs: int) -> float:
        """Seconds that keeping them saves; below zero it costs.

        Args:
            train: number of training examples.
            validation: number of validation examples, which may be scored once more, before the first epoch.
            epochs: of training.
        """
        loads = train * epochs + validation * (epochs + 1)
        # Writing takes about as long as reading: both move the bytes once.
        return self.load * loads - (self.load + self.read) * (train + validation) - self.read * loads - FIXED_SECONDS


def why_not(examples: Examples) -> str:
    """Why these examples cannot be kept; "" if they can."""
    if examples.lengths is not None or examples.load_batch is not None:
        return "they are tokens already, in memory"
    if examples.decoded:
        return "they are decoded already"
    return "" if examples.key else "they have no key"


def measure(examples: Examples) -> Estimate | None:
    """Loads a few batches, writes one beside the cache, and reads it again; None where the examples differ in shape."""
    size = min(BATCH, len(examples))
    dataset = evaluation_batches(examples, size).dataset
    if any(None in spec.shape for spec in tf.nest.flatten(_kept(examples, dataset.element_spec))):
        return None
    seconds, last = [], None
    iterator = iter(dataset.take(PROBE_BATCHES + 1))
    while len(seconds) < PROBE_BATCHES + 1:
        started = time.monotonic()
        batch = next(iterator, None)
        if batch is None:
            break
        last = batch
        seconds.append(time.monotonic() - started)
    assert last is not None
    arrays = [value.numpy() for value in tf.nest.flatten(_kept(examples, last))]
    # The first batch traces; those that follow were begun while it was waited for: the mean of all but the first.
    load = float(np.mean(seconds[1:] or seconds)) / size
    return Estimate(load, seconds_to_read(arrays) / size, sum(array.nbytes for array in arrays) / size)


def open_complete(examples: Examples, extra: str = "", directory: Path | None = None) -> Examples | None:
    """The examples with their inputs read from the cache; None where they are not all there."""
    store, key = Store(directory), identity(examples, extra)
    used = store.use(key)
    found = store.open(key, len(examples))
    if found is None or not found.complete:
        release(used)
        return None
    return _reading(examples, hold(found, used))


def keep(
    examples: Examples,
    *,
    extra: str = "",
    directory: Path | None = None,
    progress: Callable[[int], None] | None = None,
    describe: str = "",
) -> Examples:
    """The examples with their inputs read from the cache, after one pass that writes what is missing there.

    Args:
        examples: with a `key`, of one shape each; see `why_not` and `measure`.
        extra: what else decides the targets, where these are not in memory (see `identity`).
        directory: default `<cache folder>/features`.
        progress: called with the number of examples done.
        describe: one line for people, for the list of caches.

    Raises:
        CacheTooLarge: they do not fit into the budget, or onto the disk.
    """
    store, key = Store(directory), identity(examples, extra)
    used = store.use(key)
    try:
        found = store.open(key, len(examples))
        if found is None or not found.complete:
            filled = store.fill(key)
            try:
                found = _fill(examples, store, key, progress, describe)
            finally:
                release(filled)
    except BaseException:
        release(used)
        raise
    return _reading(examples, hold(found, used))


def identity(examples: Examples, extra: str = "") -> str:
    """The identity of the loaded inputs, and of the targets where these are loaded with them."""
    parts = ["loaded", CACHE_FORMAT, examples.key, len(examples), "" if examples.targets is not None else extra]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _fill(
    examples: Examples, store: Store, key: str, progress: Callable[[int], None] | None, describe: str
) -> FeatureCache:
    """Writes the rows that are missing."""
    found, loaded = store.open(key, len(examples)), None

    def pieces() -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        nonlocal loaded
        for batch, rows, kept in missing_batches(examples, found, BATCH):
            loaded = _kept(examples, batch)
            yield rows, [value.numpy()[kept] for value in tf.nest.flatten(loaded)]

    def create(values: Sequence[np.ndarray]) -> FeatureCache:
        leaves = [Leaf(value.shape[1:], value.dtype.name) for value in values]
        return store.create(key, len(examples), leaves, loaded, describe=describe)

    return write_stream(found, pieces(), create, progress)


def _kept(examples: Examples, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a batch: the inputs, and the targets where these are not in memory."""
    return {"inputs": batch["inputs"]} | ({} if examples.targets is not None else {"targets": batch["targets"]})


def _reading(examples: Examples, cache: FeatureCache) -> Examples:
    """The same examples, loaded from the memory map."""
    names = tf.nest.flatten(cache.template)
    targets = {}
    if examples.targets is not None:
        targets = {name: tf.constant(value) for name, value in gather_targets(examples).items()}

    def read(rows: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(cache.arrays[name][rows]) for name in names]

    types = [tf.as_dtype(cache.arrays[name].dtype) for name in names]

    # Plain TensorFlow: converting it would only slow the tracing.
    @tf.autograph.experimental.do_not_convert
    def load(index: tf.Tensor) -> Any:
        flat = tf.nest.flatten(tf.numpy_function(read, [index], types, stateful=False))
        for value, name in zip(flat, names, strict=True):
            value.set_shape([*index.shape, *cache.arrays[name].shape[1:]])
        found = tf.nest.pack_sequence_as(cache.template, flat)
        if examples.targets is None:
            return found["inputs"], found["targets"]
        return found["inputs"], {name: tf.gather(values, index) for name, values in targets.items()}

    @tf.autograph.experimental.do_not_convert
    def load_batch(index: tf.Tensor, length: tf.Tensor) -> Any:
        return load(index)

    return replace(examples, load=load, load_batch=load_batch)
