"""FeatureCache: outputs of frozen layers, computed once, on disk; and what trains on them.

What is frozen gives the same output each epoch, so that one inference pass serves all epochs, and all later runs on the
same data. The form on disk is that of `feature_store`.

Source of the idea: keras.io's transfer-learning guide ("a lighter, faster workflow": run the data through the frozen
base once, and train a new model on the output).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.data.pipeline import evaluation_batches, training_batches, unwrap
from keras_transfer.feature_key import View, identity
from keras_transfer.feature_store import CacheTooLarge, FeatureCache, Leaf, Store, hold, release
from keras_transfer.folding import numeric_part
from keras_transfer.tasks.base import Examples

__all__ = ["CacheTooLarge", "CachedExamples", "FeatureCache", "View", "bytes_of_example", "compute", "gather_targets"]

SECONDS_BETWEEN_MARKS = 5.0
FOLD_FROM = 1_000
"""Examples from which constants are folded: that takes some 1.5 s, and then saves about a fifth of the pass."""
IN_MEMORY_BYTES = 64 * 2**20
"""Features up to this size are read into memory once; above it memory does not grow with the data."""


class CachedExamples:
    """Examples whose inputs are cached features: what a head, or the upper part of a network, trains on.

    All else is as in the examples that the features were made of: ids, order, meta, lengths, targets.

    Args:
        cache: the features; or one cache a view, of which each epoch takes the next.
        examples: those that it was made of.
        name: gives the features this name among the inputs; "" hands them over as they are.
        extras: names of inputs of the examples to hand over as well, such as a padding mask.
    """

    augment = None
    augment_batch = None

    def __init__(
        self,
        cache: FeatureCache | Sequence[FeatureCache],
        examples: Examples,
        *,
        name: str = "",
        extras: Sequence[str] = (),
    ):
        self._views = [cache] if isinstance(cache, FeatureCache) else list(cache)
        first = self._views[0]
        self.ids, self.meta, self.key = examples.ids, examples.meta, examples.key
        ragged = bool(first.ragged or extras)
        self.lengths = examples.lengths if ragged else None
        self.bucket_lengths = examples.bucket_lengths if ragged else ()
        self._name, self._extras, self._examples = name, tuple(extras), examples
        self._template = first.template
        self._names = tf.nest.flatten(first.template)
        own = {} if first.targets else {key: tf.constant(value) for key, value in gather_targets(examples).items()}
        self._targets: dict[str, tf.Tensor] = own
        total = sum(view.bytes for view in self._views)
        # One view after another, so that a row of view v is row v * n + i.
        self._held = None
        if total <= IN_MEMORY_BYTES and not first.ragged:
            self._held = {
                name: tf.concat([tf.constant(np.asarray(view.arrays[name])) for view in self._views], 0)
                for name in first.arrays
            }

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: tf.Tensor) -> Any:
        """One example; the pipeline prefers `load_view`."""
        length = tf.constant(0) if self.lengths is None else tf.gather(tf.constant(self.lengths), index)
        loaded = self.load_view(index[None], length, tf.constant(0))
        return tf.nest.map_structure(lambda x: x[0], loaded)

    def load_view(self, index: tf.Tensor, length: tf.Tensor, epoch: tf.Tensor) -> Any:
        """int64 [B], the length to pad to (0: none), the epoch -> (features, targets) of those examples."""
        view = tf.cast(epoch, tf.int64) % len(self._views)
        wanted = [*self._names, *self._views[0].targets.values()]
        if self._held is not None:
            rows = view * len(self) + index
            flat = [tf.gather(self._held[name], rows) for name in wanted]
        else:
            flat = self._read(wanted, index, length, view)
        features = tf.nest.pack_sequence_as(self._template, flat[: len(self._names)])
        inputs = {self._name: features} if self._name else features
        if self._extras:
            loader = self._examples.load_batch
            assert loader is not None
            raw, _ = loader(index, length)
            inputs |= {name: raw[name] for name in self._extras}
        if self._views[0].targets:
            return inputs, dict(zip(self._views[0].targets, flat[len(self._names) :], strict=True))
        return inputs, {name: tf.gather(values, index) for name, values in self._targets.items()}

    def _read(self, names: list[str], index: tf.Tensor, length: tf.Tensor, view: tf.Tensor) -> list[tf.Tensor]:
        """Rows from the memory map."""
        first = self._views[0]

        def read(rows: np.ndarray, size: np.ndarray, number: np.ndarray) -> list[np.ndarray]:
            return [self._views[int(number)].read(name, rows, int(size)) for name in names]

        types = [tf.as_dtype(first.arrays[name].dtype) for name in names]
        # Called eagerly, TensorFlow unpacks a list of one.
        flat = tf.nest.flatten(tf.numpy_function(read, [index, length, view], types, stateful=False))
        for value, name in zip(flat, names, strict=True):
            middle = (None,) if name in first.ragged else ()
            value.set_shape([index.shape[0], *middle, *first.arrays[name].shape[1:]])
        return flat


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
    batch_size: int = 0,
    directory: Path | None = None,
    progress: Callable[[int], None] | None = None,
    describe: str = "",
    view: View | None = None,
    encode: Encode | None = None,
) -> FeatureCache:
    """The features of all examples: read where they are cached, else computed in one pass and written as it streams.

    Two processes that want the same features do not both compute them: the second one waits for the first, and goes on
    where the first one stopped if that was killed.

    Args:
        encoder: from raw inputs to features; called in inference mode, its weights folded into constants where the
            pass is long enough.
        examples: with a `key`.
        batch_size: of the pass; 0 chooses by the device.
        directory: default `<cache folder>/features`.
        progress: called with the number of examples done.
        describe: one line for people, for the list of caches.
        view: an augmented view, whose targets are stored with it; None: the examples as they are.
        encode: the encoder's functions, where several passes with the same weights share them.

    Raises:
        CacheTooLarge: the features do not fit into the budget.
        ValueError: the examples have no key.
    """
    store, key, count = Store(directory), identity(encoder, examples, view), len(examples)
    used = store.use(key)
    try:
        found = store.open(key, count)
        if found is None or not found.complete:
            filled = store.fill(key)
            try:
                size = batch_size or best_batch_size()
                encode = encode or Encode(encoder)
                found = _fill(encoder, encode, examples, store, key, size, progress, describe, view)
            finally:
                release(filled)
    except BaseException:
        release(used)
        raise
    if progress:
        progress(count)
    return hold(found, used)


def bytes_of_example(encoder: keras.Model, examples: Examples) -> float:
    """Bytes that one example's features take, on average."""
    total = 0.0
    for tensor in tf.nest.flatten(encoder.output):
        leaf = _leaf(tensor, None, examples.lengths is not None)
        tokens = float(np.mean(examples.lengths)) if leaf.ragged and examples.lengths is not None else 1.0
        total += leaf.row_bytes() * tokens
    return total


def best_batch_size() -> int:
    """Of an inference pass. A CPU is fastest while activations fit its caches; a GPU wants to be filled."""
    return 128 if tf.config.list_logical_devices("GPU") else 32


class Encode:
    """The functions of one encoder, whose weights stay as they are: traced once for all passes, which takes seconds."""

    def __init__(self, encoder: keras.Model):
        self._encoder = encoder
        self._functions: dict[bool, Callable[[Any], Any]] = {}

    def __call__(self, fold: bool) -> Callable[[Any], Any]:
        """A traced function of a batch's inputs; a folded one where that is asked for, or is there already."""
        fold = fold or True in self._functions
        if fold not in self._functions:
            self._functions[fold] = encode_function(self._encoder, fold)
        return self._functions[fold]


def encode_function(encoder: keras.Model, fold: bool) -> Callable[[Any], Any]:
    """The encoder as a traced function of a batch's inputs."""
    if fold and tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return tf.function(numeric_part(encoder).call, reduce_retracing=True, autograph=False)
    return tf.function(lambda inputs: encoder(inputs, training=False), reduce_retracing=True, autograph=False)


class _Rest:
    """The examples that a pass has still to do."""

    augment = None
    augment_batch = None

    def __init__(self, examples: Examples, rows: np.ndarray):
        self._rows = tf.constant(rows)
        self.ids = [examples.ids[row] for row in rows]
        self.lengths = None if examples.lengths is None else examples.lengths[rows]
        self.bucket_lengths = examples.bucket_lengths
        self._examples = examples
        if getattr(examples, "load_batch", None) is not None:
            self.load_batch = self._load_batch

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: tf.Tensor) -> Any:
        """One example."""
        return self._examples.load(tf.gather(self._rows, index))

    def _load_batch(self, index: tf.Tensor, length: tf.Tensor) -> Any:
        assert self._examples.load_batch is not None
        return self._examples.load_batch(tf.gather(self._rows, index), length)


def _fill(
    encoder: keras.Model,
    traced: Encode,
    examples: Examples,
    store: Store,
    key: str,
    batch_size: int,
    progress: Callable[[int], None] | None,
    describe: str,
    view: View | None,
) -> FeatureCache:
    """Writes the rows that are missing."""
    cache = store.open(key, len(examples))
    if cache is not None and cache.complete:
        return cache
    done = int(cache.done.sum()) if cache is not None else 0
    encode = traced(fold=len(examples) - done >= FOLD_FROM)
    waiting: list[np.ndarray] = []
    marked = time.monotonic()
    try:
        for batch, rows, kept in _batches(examples, cache, batch_size, view):
            features = encode(unwrap(batch["inputs"]))
            values = [_plain(value) for value in tf.nest.flatten(features)]
            targets = {name: _plain(value) for name, value in batch["targets"].items()} if view else {}
            if cache is None:
                symbolic = tf.nest.flatten(encoder.output)
                leaves = [_leaf(*pair, examples.lengths is not None) for pair in zip(symbolic, values, strict=True)]
                cache = store.create(
                    key,
                    len(examples),
                    leaves,
                    features,
                    targets={name: Leaf(value.shape[1:], value.dtype.name) for name, value in targets.items()},
                    lengths=examples.lengths,
                    describe=describe,
                )
            names = [*tf.nest.flatten(cache.template), *(cache.targets[name] for name in targets)]
            for name, value in zip(names, [*values, *targets.values()], strict=True):
                cache.write(name, rows, value[kept])
            waiting.append(rows)
            done += len(rows)
            if progress:
                progress(done)
            if time.monotonic() - marked > SECONDS_BETWEEN_MARKS:
                cache.mark(np.concatenate(waiting))
                waiting, marked = [], time.monotonic()
    finally:
        if cache is not None and waiting:
            cache.mark(np.concatenate(waiting))
    assert cache is not None
    return cache


def _batches(
    examples: Examples, cache: FeatureCache | None, batch_size: int, view: View | None
) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """What is missing, in batches: (batch, numbers of its examples to write, their places in the batch)."""
    done = np.zeros(len(examples), np.bool_) if cache is None else np.array(cache.done)
    if view is not None:
        size = view.batch_size if examples.augment_batch is not None else batch_size
        batches = training_batches(examples, min(size, len(examples)), view.seed, first_epoch=view.epoch)
        for batch in batches.dataset.take(batches.steps):
            index = batch["index"].numpy()
            kept = np.flatnonzero((batch["real"].numpy() > 0) & ~done[index])
            if len(kept):
                yield batch, index[kept], kept
        return
    missing = np.flatnonzero(~done)
    rest = examples if len(missing) == len(examples) else _Rest(examples, missing)
    for batch in evaluation_batches(rest, min(batch_size, len(missing))).dataset:
        kept = np.flatnonzero(batch["real"].numpy() > 0)
        yield batch, missing[batch["index"].numpy()[kept]], kept


def _leaf(symbolic: Any, value: np.ndarray | None, lengths: bool) -> Leaf:
    """How one tensor of an encoder is kept; an axis of open length is that of the examples, if they have lengths."""
    shape = tuple(symbolic.shape[1:])
    kind = value.dtype.name if value is not None else "float32"
    if lengths and shape and shape[0] is None and None not in shape[1:]:
        return Leaf(shape[1:], kind, ragged=True)
    if value is not None:
        return Leaf(value.shape[1:], kind)
    return Leaf(tuple(side or 1 for side in shape), kind)


def _plain(value: Any) -> np.ndarray:
    """As NumPy: floats of any width as float32, which holds each of them exactly."""
    array = value if value.dtype not in (tf.bfloat16, tf.float16) else tf.cast(value, tf.float32)
    return np.asarray(array)
