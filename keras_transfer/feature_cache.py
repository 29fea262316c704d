"""FeatureCache: outputs of frozen layers, computed once, on disk; `cached_examples` is what trains on them.

What is frozen gives the same output each epoch, so that one inference pass serves all epochs, and all later runs on the
same data. The form on disk is that of `feature_store`.

Source of the idea: keras.io's transfer-learning guide ("a lighter, faster workflow": run the data through the frozen
base once, and train a new model on the output).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_transfer import devices
from keras_transfer.cached_examples import CachedExamples, gather_targets
from keras_transfer.data.pipeline import evaluation_batches, training_batches, unwrap
from keras_transfer.feature_arrays import FeatureCache, Leaf, write_stream
from keras_transfer.feature_key import View, identity
from keras_transfer.feature_store import CacheTooLarge, Store, hold, release
from keras_transfer.folding import input_structure, numeric_part, weight_bytes
from keras_transfer.tasks.base import Examples

__all__ = ["CacheTooLarge", "CachedExamples", "FeatureCache", "View", "bytes_of_example", "compute", "gather_targets"]

FOLD_FROM = 1 / 15_000
"""Examples, by bytes of weights, from which constants are folded: copying takes seconds (EfficientNet-Lite0, 14 MB:
1.5 s; MiniLM, 90 MB: 5 s), which a long pass gains back (a fifth and a twelfth of it)."""
AT_ONCE = 2
"""Batches side by side on a CPU at most: each holds its activations in memory."""


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
    precision: str = "float32",
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
        precision: `float32` keeps the features exactly; `float16` takes half the space.

    Raises:
        CacheTooLarge: the features do not fit into the budget.
        ValueError: the examples have no key, or a feature is too large for float16.
    """
    encode = encode or Encode(encoder)
    key = identity(encoder, examples, view, precision, encode.in_bfloat16)
    store, count = Store(directory), len(examples)
    used = store.use(key)
    try:
        found = store.open(key, count)
        if found is None or not found.complete:
            filled = store.fill(key)
            try:
                size = batch_size or best_batch_size()
                found = _fill(encoder, encode, examples, store, key, size, progress, describe, view, precision)
            finally:
                release(filled)
    except BaseException:
        release(used)
        raise
    if progress:
        progress(count)
    return hold(found, used)


def bytes_of_example(encoder: keras.Model, examples: Examples, precision: str = "float32") -> float:
    """Bytes that one example's features take, on average."""
    total = 0.0
    for tensor in tf.nest.flatten(encoder.output):
        leaf = _leaf(tensor, None, examples.lengths is not None, precision)
        tokens = float(np.mean(examples.lengths)) if leaf.ragged and examples.lengths is not None else 1.0
        total += leaf.row_bytes() * tokens
    return total


def best_batch_size() -> int:
    """Of an inference pass. A CPU is fastest while activations fit its caches; a GPU wants to be filled."""
    return 128 if tf.config.list_logical_devices("GPU") else 32


class Encode:
    """The functions of one encoder, whose weights stay as they are: traced once for all passes, which takes seconds."""

    def __init__(self, encoder: keras.Model, in_bfloat16: bool = False):
        self.encoder, self.in_bfloat16 = encoder, in_bfloat16
        self._functions: dict[bool, Callable[[Any], Any]] = {}

    def __call__(self, fold: bool) -> Callable[[Any], Any]:
        """A traced function of a batch's inputs; a folded one where that is asked for, or is there already."""
        fold = fold or True in self._functions
        if fold not in self._functions:
            layers = self.encoder._flatten_layers() if self.in_bfloat16 else ()
            self._functions[fold] = encode_function(self.encoder, fold, tuple(layers))
        return self._functions[fold]

    def live(self) -> Callable[[Any], Any] | None:
        """A traced function of the weights as they are when it is called; None where none is traced yet."""
        return self._functions.get(False)


def encode_function(encoder: keras.Model, fold: bool, in_bfloat16: Sequence[keras.Layer] = ()) -> Callable[[Any], Any]:
    """The encoder as a traced function of a batch's inputs; some of its layers may compute in bfloat16."""
    if fold and tf.distribute.get_strategy().num_replicas_in_sync == 1:
        with devices.in_bfloat16(in_bfloat16):
            # Not traced once more: that would copy the constants into another graph, and again for another length.
            return numeric_part(encoder).call

    @tf.function(reduce_retracing=True, autograph=False)
    def encode(inputs: Any) -> Any:
        with devices.in_bfloat16(in_bfloat16):
            return encoder(inputs, training=False)

    # One trace for batches of any length; what comes in another form is traced when it comes.
    encode.get_concrete_function(
        tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), input_structure(encoder))
    )
    return encode


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
    precision: str,
) -> FeatureCache:
    """Writes the rows that are missing."""
    cache = store.open(key, len(examples))
    if cache is not None and cache.complete:
        return cache
    done = int(cache.done.sum()) if cache is not None else 0
    encode = traced(fold=len(examples) - done >= FOLD_FROM * weight_bytes(encoder))
    names: list[str] = []

    def values_of(batch: dict[str, Any], rows: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        targets = batch["targets"] if view else {}
        names[:] = targets
        values = [*tf.nest.flatten(encode(unwrap(batch["inputs"]))), *targets.values()]
        return rows, [_plain(value)[kept] for value in values]

    batches = missing_batches(examples, cache, batch_size, view)

    def create(values: Sequence[np.ndarray]) -> FeatureCache:
        symbolic = tf.nest.flatten(encoder.output)
        features, targets = values[: len(symbolic)], values[len(symbolic) :]
        pairs = zip(symbolic, features, strict=True)
        return store.create(
            key,
            len(examples),
            [_leaf(*pair, examples.lengths is not None, precision) for pair in pairs],
            encoder.output,
            targets={name: Leaf(value.shape[1:], value.dtype.name) for name, value in zip(names, targets, strict=True)},
            lengths=examples.lengths,
            describe=describe,
        )

    return write_stream(cache, _side_by_side(values_of, batches, _batches_at_once()), create, progress)


def _batches_at_once() -> int:
    """Batches that a pass computes side by side: one alone has much work for a single core between its products."""
    if tf.config.list_logical_devices("GPU") or tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return 1
    return min(os.cpu_count() or 1, AT_ONCE)


def _side_by_side(function: Callable[..., Any], items: Iterator[tuple[Any, ...]], at_once: int) -> Iterator[Any]:
    """The function of each item, in their order, by so many threads; few items are held at a time."""
    if at_once == 1:
        yield from (function(*item) for item in items)
        return
    pool, begun = ThreadPoolExecutor(at_once, "features"), deque[Future[Any]]()
    try:
        for item in items:
            begun.append(pool.submit(function, *item))
            if len(begun) > at_once:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def missing_batches(
    examples: Examples, cache: FeatureCache | None, batch_size: int, view: View | None = None
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


def _leaf(symbolic: Any, value: np.ndarray | None, lengths: bool, precision: str) -> Leaf:
    """How one tensor of an encoder is kept; an axis of open length is that of the examples, if they have lengths."""
    shape = tuple(symbolic.shape[1:])
    kind = value.dtype.name if value is not None else "float32"
    kind = precision if kind == "float32" else kind
    if lengths and shape and shape[0] is None and None not in shape[1:]:
        return Leaf(shape[1:], kind, ragged=True)
    if value is not None:
        return Leaf(value.shape[1:], kind)
    return Leaf(tuple(side or 1 for side in shape), kind)


def _plain(value: Any) -> np.ndarray:
    """As NumPy: floats of any width as float32, which holds each of them exactly."""
    array = value if value.dtype not in (tf.bfloat16, tf.float16) else tf.cast(value, tf.float32)
    return np.asarray(array)
