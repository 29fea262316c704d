"""Pipeline: the one order of shuffle, load, augment, batch, mix and prefetch.

Order and randomness derive from seed, epoch and example id alone, so that caching, devices and resuming do not change
them. Every batch is full: the last one is padded with examples of weight zero, so that each device has equal work and
no example is dropped.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

PREFETCHED = 2
"""Batches that wait for the model: more would only take memory."""
LENGTH_STEP = 4
"""Batches in the order of their lengths are padded to multiples of this: few shapes, and little padding."""


class RandomAccess(Protocol):
    """What the pipeline needs of examples (see `tasks.base.Examples`)."""

    @property
    def ids(self) -> Sequence[str]:
        """Examples of one record share its id."""
        ...

    @property
    def load(self) -> Callable[..., Any]:
        """(index) -> one example."""
        ...

    @property
    def lengths(self) -> np.ndarray | None:
        """int32 [n], where lengths differ."""
        ...

    @property
    def bucket_lengths(self) -> tuple[int, ...]:
        """The lengths to which batches are padded."""
        ...

    @property
    def augment(self) -> Callable[..., Any] | None:
        """(inputs, targets, seed) -> one augmented example."""
        ...

    @property
    def augment_batch(self) -> Callable[..., Any] | None:
        """(inputs, targets, seeds) -> a mixed batch."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Batches:
    """Batches of equal size.

    An element has `inputs`, `targets`, `weight` [B] (sums to 1 over the batch), `real` [B] (1.0, or 0.0 for padding)
    and `index` [B] (the example's number).
    """

    dataset: tf.data.Dataset
    steps: int
    """Batches in one epoch."""
    batch_size: int
    endless: bool
    """Training batches go on epoch after epoch in one iterator; evaluation batches end after one pass."""


@dataclass(frozen=True)
class BatchPlan:
    """One batch before loading."""

    index: np.ndarray
    real: np.ndarray
    length: int


def plan_epoch(
    count: int,
    batch_size: int,
    *,
    shuffle_seed: tuple[int, int] | None = None,
    lengths: np.ndarray | None = None,
    bucket_lengths: tuple[int, ...] = (),
) -> Iterator[BatchPlan]:
    """The batches of one epoch; with `lengths`, each of examples of similar length.

    Shuffled, they pad to a bucket length, and what does not fill a batch of its bucket moves up to the next longer one,
    so that there are never more than ceil(count / batch_size) batches. Else they come in the order of their lengths,
    each padded to its own longest example, which wastes least.
    """
    if lengths is not None and shuffle_seed is None and len(bucket_lengths) > 1:
        return _by_length(lengths, batch_size, max(bucket_lengths))
    order = np.arange(count)
    random = np.random.default_rng(shuffle_seed) if shuffle_seed is not None else None
    if random is not None:
        random.shuffle(order)
    plans: list[BatchPlan] = []
    if lengths is None:
        buckets = [(0, order)]
    else:
        tops = np.asarray(sorted(bucket_lengths))
        which = np.searchsorted(tops, np.minimum(lengths[order], tops[-1]))
        buckets = [(int(top), order[which == number]) for number, top in enumerate(tops)]
    carried = np.empty(0, order.dtype)
    for number, (length, members) in enumerate(buckets):
        members = np.concatenate([carried, members])
        full = len(members) // batch_size * batch_size
        if number == len(buckets) - 1:
            full = len(members)
        plans += [
            _filled(members[start : start + batch_size], batch_size, length) for start in range(0, full, batch_size)
        ]
        carried = members[full:]
    if random is not None and lengths is not None:
        random.shuffle(plans)
    return iter(plans)


def _by_length(lengths: np.ndarray, batch_size: int, most: int) -> Iterator[BatchPlan]:
    """Batches of neighbours in the order of their lengths."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        needed = max(int(lengths[chosen[-1]]), 1)
        yield _filled(chosen, batch_size, min(-(-needed // LENGTH_STEP) * LENGTH_STEP, most))


def _filled(chosen: np.ndarray, batch_size: int, length: int) -> BatchPlan:
    """A full batch; what is missing repeats the first example, with no weight."""
    real = np.ones(batch_size, np.float32)
    if len(chosen) < batch_size:
        real[len(chosen) :] = 0.0
        chosen = np.concatenate([chosen, np.full(batch_size - len(chosen), chosen[0])])
    return BatchPlan(chosen.astype(np.int64), real, length)


def training_batches(
    examples: RandomAccess, batch_size: int, seed: int, *, first_epoch: int = 0, augment: bool = True
) -> Batches:
    """Endless shuffled and augmented batches, from the given epoch on."""

    def plans() -> Iterator[tuple[Any, ...]]:
        epoch = first_epoch
        while True:
            for plan in _plan(examples, batch_size, (seed, epoch)):
                yield plan.index, plan.real, epoch, plan.length
            epoch += 1

    dataset = _load(plans, examples, batch_size, seed, augment)
    return Batches(untuned(dataset.prefetch(PREFETCHED)), math.ceil(len(examples) / batch_size), batch_size, True)


def evaluation_batches(examples: RandomAccess, batch_size: int) -> Batches:
    """One pass over all examples, unaugmented."""

    def plans() -> Iterator[tuple[Any, ...]]:
        for plan in _plan(examples, batch_size, None):
            yield plan.index, plan.real, 0, plan.length

    dataset = _load(plans, examples, batch_size, 0, augment=False)
    return Batches(untuned(dataset.prefetch(PREFETCHED)), math.ceil(len(examples) / batch_size), batch_size, False)


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The data set as read by as many threads as there are processors, not by a number that TensorFlow tunes.

    Its tuner sleeps ever longer, up to a minute, and an iterator that goes away waits for it to wake: the end of a
    phase, of a validation or of a pass took up to 55 s more, at random (TensorFlow 2.21 wakes the tuner just before it
    says that all is over).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def unwrap(inputs: Any) -> Any:
    """The sole tensor of a dictionary of one: a model of one input takes a tensor."""
    return next(iter(inputs.values())) if isinstance(inputs, dict) and len(inputs) == 1 else inputs


def _plan(examples: RandomAccess, batch_size: int, shuffle_seed: tuple[int, int] | None) -> Iterator[BatchPlan]:
    return plan_epoch(
        len(examples),
        batch_size,
        shuffle_seed=shuffle_seed,
        lengths=examples.lengths,
        bucket_lengths=examples.bucket_lengths,
    )


def _load(
    plans: Callable[[], Iterator[tuple[Any, ...]]],
    examples: RandomAccess,
    batch_size: int,
    seed: int,
    augment: bool,
) -> tf.data.Dataset:
    """Plans to loaded batches: examples load and augment in parallel, in a fixed order."""
    signature = (
        tf.TensorSpec((batch_size,), tf.int64),
        tf.TensorSpec((batch_size,), tf.float32),
        tf.TensorSpec((), tf.int32),
        tf.TensorSpec((), tf.int32),
    )
    dataset = tf.data.Dataset.from_generator(plans, output_signature=signature)
    # What tasks load and augment with is plain TensorFlow; converting it recursively would only slow the tracing.
    plain = tf.autograph.experimental.do_not_convert
    load_batch = getattr(examples, "load_batch", None)
    load_view = getattr(examples, "load_view", None)  # of cached features, which may hold a view an epoch
    one = examples.augment if augment else None
    mix = examples.augment_batch if augment else None
    seeds = tf.constant(id_seeds(examples.ids, seed)) if one is not None or mix is not None else None

    def seeds_of(index: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        chosen = tf.gather(seeds, index)
        return tf.stack([chosen, tf.broadcast_to(epoch, tf.shape(chosen))], axis=-1)

    def element(inputs: Any, targets: Any, index: tf.Tensor, real: tf.Tensor) -> dict[str, Any]:
        return {
            "inputs": inputs,
            "targets": targets,
            "weight": real / tf.maximum(tf.reduce_sum(real), 1.0),
            "real": real,
            "index": index,
        }

    if (load_batch is not None or load_view is not None) and one is None and mix is None:

        @plain
        def load_at_once(index: tf.Tensor, real: tf.Tensor, epoch: tf.Tensor, length: tf.Tensor) -> dict[str, Any]:
            if load_view is not None:
                inputs, targets = load_view(index, length, epoch)
            else:
                assert load_batch is not None
                inputs, targets = load_batch(index, length)
            return element(inputs, targets, index, real)

        return dataset.map(load_at_once, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    @plain
    def load_one(index: tf.Tensor, real: tf.Tensor, epoch: tf.Tensor, length: tf.Tensor) -> dict[str, Any]:
        inputs, targets = examples.load(index)
        if examples.lengths is not None:
            inputs = {name: _pad(value, length) for name, value in inputs.items()}
        if one is not None:
            inputs, targets = one(inputs, targets, seeds_of(index, epoch))
        return {"inputs": inputs, "targets": targets, "index": index, "real": real, "epoch": epoch}

    @plain
    def rows(index: tf.Tensor, real: tf.Tensor, epoch: tf.Tensor, length: tf.Tensor) -> tf.data.Dataset:
        fill = [tf.fill((batch_size,), value) for value in (epoch, length)]
        return tf.data.Dataset.from_tensor_slices((index, real, *fill))

    @plain
    def finish(batch: dict[str, Any]) -> dict[str, Any]:
        inputs, targets, index = batch["inputs"], batch["targets"], batch["index"]
        if mix is not None:
            inputs, targets = mix(inputs, targets, seeds_of(index, batch["epoch"]))
        return element(inputs, targets, index, batch["real"])

    dataset = dataset.flat_map(rows).map(load_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).map(finish)


def _pad(value: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Pads (or cuts) the first axis with zeros up to a batch's length, where that axis is dynamic."""
    if value.shape.rank == 0 or value.shape[0] is not None:
        return value
    shape = value.shape
    value = value[:length]
    missing = length - tf.shape(value)[0]
    padded = tf.pad(value, [[0, missing]] + [[0, 0]] * (shape.rank - 1))
    padded.set_shape([None, *shape[1:]])
    return padded


def id_seeds(ids: Sequence[str], seed: int) -> np.ndarray:
    """int32 [n]: one number an example, from its id (and its place among the examples of that id) and the seed."""
    key = str(seed).encode()
    seen: dict[str, int] = {}
    digests = []
    for name in ids:
        place = seen[name] = seen.get(name, -1) + 1
        digests.append(hashlib.blake2b(f"{name}\0{place}".encode(), digest_size=4, key=key).digest())
    return np.frombuffer(b"".join(digests), np.int32).copy()
