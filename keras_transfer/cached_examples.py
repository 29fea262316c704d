"""CachedExamples: what a head, or the upper part of a network, trains on: examples whose inputs are cached features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_transfer.data.pipeline import evaluation_batches, id_seeds
from keras_transfer.feature_arrays import FeatureCache
from keras_transfer.tasks.base import Examples

IN_MEMORY_BYTES = 64 * 2**20
"""Features up to this size are read into memory once; above it memory does not grow with the data."""
SCORING_BYTES = 4 * 2**20
"""Of the features in one batch of scoring: what a head costs is the calls, where a batch is small."""
CHUNK_BYTES = 16 * 2**20
"""Of features that are in memory at once while their deviation is computed."""


class CachedExamples:
    """Examples whose inputs are cached features.

    All else is as in the examples that the features were made of: ids, order, meta, lengths, targets.

    Args:
        cache: the features; or one cache a view, of which each epoch takes the next.
        examples: those that it was made of.
        name: gives the features this name among the inputs; "" hands them over as they are.
        extras: names of inputs of the examples to hand over as well, such as a padding mask.
        noise: standard deviation of what is added to each feature, as a share of the feature's own over all examples.
        seed: of the noise, which derives from it, the example's id and the epoch.
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
        noise: float = 0.0,
        seed: int = 0,
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
        self.scoring_batch = 0
        """A batch size for scoring a head, where a larger one than in training is as good and faster; 0: none."""
        if not ragged:
            self.scoring_batch = int(np.clip(SCORING_BYTES // max(1, first.bytes // max(1, len(first))), 1, len(self)))
        self._noise: dict[str, tf.Tensor] = {}
        if noise:
            self._noise = {
                name: tf.constant(noise * _deviation(first.arrays[name]))
                for name in self._names
                if np.issubdtype(first.arrays[name].dtype, np.floating)
            }
            self._seeds = tf.constant(id_seeds(examples.ids, seed))

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: tf.Tensor) -> Any:
        """One example; the pipeline prefers `load_view`."""
        length = tf.constant(0) if self.lengths is None else tf.gather(tf.constant(self.lengths), index)
        loaded = self.load_view(index[None], length, tf.constant(0))
        return tf.nest.map_structure(lambda x: x[0], loaded)

    # Plain TensorFlow: converting it would only slow the tracing.
    @tf.autograph.experimental.do_not_convert
    def load_view(self, index: tf.Tensor, length: tf.Tensor, epoch: tf.Tensor) -> Any:
        """int64 [B], the length to pad to (0: none), the epoch -> (features, targets) of those examples."""
        view = tf.cast(epoch, tf.int64) % len(self._views)
        wanted = [*self._names, *self._views[0].targets.values()]
        if self._held is not None:
            rows = view * len(self) + index
            flat = [_widened(tf.gather(self._held[name], rows)) for name in wanted]
        else:
            flat = self._read(wanted, index, length, view)
        for number, name in enumerate(self._names):
            if name in self._noise:
                flat[number] += self._drawn(name, number, index, epoch, tf.shape(flat[number])[1:])
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

        types = [_wide(first.arrays[name].dtype) for name in names]
        # Called eagerly, TensorFlow unpacks a list of one.
        flat = tf.nest.flatten(tf.numpy_function(read, [index, length, view], types, stateful=False))
        for value, name in zip(flat, names, strict=True):
            middle = (None,) if name in first.ragged else ()
            value.set_shape([index.shape[0], *middle, *first.arrays[name].shape[1:]])
        return flat

    def _drawn(self, name: str, number: int, index: tf.Tensor, epoch: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """Noise for one tensor of some examples, from their own seeds: order and batches do not change it."""
        first, chosen = self._views[0], tf.gather(self._seeds, index)
        seeds = tf.stack([chosen, tf.broadcast_to(epoch, tf.shape(chosen))], axis=-1)

        def normal(seed: tf.Tensor) -> tf.Tensor:
            return tf.random.stateless_normal(shape, tf.random.experimental.stateless_fold_in(seed, number))

        drawn = tf.map_fn(normal, seeds, fn_output_signature=tf.float32) * self._noise[name]
        if name in first.ragged:
            assert first.starts is not None
            sizes = tf.gather(tf.constant(np.diff(first.starts)), index)
            real = tf.range(tf.cast(shape[0], tf.int64))[None] < sizes[:, None]
            drawn *= tf.cast(tf.reshape(real, [-1, shape[0], *[1] * (first.arrays[name].ndim - 1)]), tf.float32)
            drawn.set_shape([index.shape[0], None, *first.arrays[name].shape[1:]])
            return drawn
        return tf.ensure_shape(drawn, [index.shape[0], *first.arrays[name].shape[1:]])


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


def _deviation(array: np.ndarray) -> np.ndarray:
    """float32 [F]: the standard deviation of each feature (the last axis) over all else, read in chunks."""
    axes = tuple(range(array.ndim - 1)) if array.ndim > 1 else (0,)
    step = max(1, CHUNK_BYTES // max(1, array.nbytes // max(1, len(array))))

    def mean_of(function: Any) -> np.ndarray:
        sums = sum(
            function(np.asarray(array[start : start + step], np.float32)).sum(axes, dtype=np.float64)
            for start in range(0, len(array), step)
        )
        return np.asarray(sums) / (array.size / (array.shape[-1] if array.ndim > 1 else 1))

    mean = mean_of(lambda values: values).astype(np.float32)
    return np.sqrt(mean_of(lambda values: np.square(values - mean))).astype(np.float32)


def _wide(dtype: np.dtype) -> tf.DType:
    """As `FeatureCache.read` gives it."""
    return tf.float32 if dtype == np.float16 else tf.as_dtype(dtype)


def _widened(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float32) if value.dtype == tf.float16 else value
