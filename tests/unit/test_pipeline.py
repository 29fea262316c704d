"""Pipeline: full batches, every example once, order and randomness from seed, epoch and id alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.data.pipeline import evaluation_batches, plan_epoch, training_batches


@dataclass
class Numbers:
    """Example i is the number i; augmented, a number drawn from its seed is added."""

    count: int
    lengths: Any = None
    bucket_lengths: tuple[int, ...] = ()
    augment: Any = None
    augment_batch: Any = None

    @property
    def ids(self):
        return [f"example {number}" for number in range(self.count)]

    def __len__(self):
        return self.count

    def load(self, index):
        if self.lengths is None:
            return {"x": tf.cast(index, tf.float32)}, {"y": index}
        length = tf.gather(tf.constant(self.lengths), index)
        return {"x": tf.fill([length], index)}, {"y": index}


def add_noise(inputs, targets, seed):
    return {"x": inputs["x"] + tf.random.stateless_uniform([], seed)}, targets


def one_epoch(batches):
    return [{k: v for k, v in batch.items()} for batch in batches.dataset.take(batches.steps)]


@pytest.mark.parametrize("count, size", [(10, 4), (8, 4), (3, 4), (1, 1)])
def test_every_example_comes_once_and_padding_weighs_nothing(count, size):
    seen = []
    for batch in one_epoch(training_batches(Numbers(count), size, seed=1)):
        assert batch["index"].shape == (size,)
        assert float(tf.reduce_sum(batch["weight"])) == pytest.approx(1.0)
        seen += batch["index"].numpy()[batch["real"].numpy() > 0].tolist()
    assert sorted(seen) == list(range(count))


def test_order_changes_with_the_epoch_and_resuming_gives_the_same():
    batches = training_batches(Numbers(20), 4, seed=1, first_epoch=0)
    order = [batch["index"].numpy().tolist() for batch in batches.dataset.take(10)]
    assert order[:5] != order[5:]
    resumed = training_batches(Numbers(20), 4, seed=1, first_epoch=1)
    assert [batch["index"].numpy().tolist() for batch in resumed.dataset.take(5)] == order[5:]


def test_augmentation_depends_on_id_epoch_and_seed_not_on_order():
    def values(size, seed):
        batches = training_batches(Numbers(12, augment=add_noise), size, seed=seed)
        epochs = []
        iterator = iter(batches.dataset)
        for _ in range(2):
            found = {}
            for _ in range(batches.steps):
                batch = next(iterator)
                found |= dict(zip(batch["index"].numpy().tolist(), batch["inputs"]["x"].numpy().tolist(), strict=True))
            epochs.append(found)
        return epochs

    first, second = values(4, seed=1)
    assert values(3, seed=1) == [first, second]
    assert first != second
    assert values(4, seed=2)[0] != first
    assert all(abs(value - index) < 1 for index, value in first.items())


def test_batches_of_similar_length_use_few_lengths_and_drop_nothing():
    lengths = np.random.default_rng(0).integers(1, 30, 50).astype(np.int32)
    examples = Numbers(50, lengths=lengths, bucket_lengths=(8, 16, 32))
    batches = training_batches(examples, 8, seed=0)
    assert batches.steps == 7
    seen, widths = [], set()
    for batch in one_epoch(batches):
        x = batch["inputs"]["x"].numpy()
        widths.add(x.shape[1])
        for row, index, real in zip(x, batch["index"].numpy(), batch["real"].numpy(), strict=True):
            assert (row != 0).sum() == (lengths[index] if index else 0)
            seen += [index] if real else []
    assert sorted(seen) == list(range(50))
    assert widths <= {8, 16, 32}


def test_nothing_sleeps_behind_an_iterator_that_would_be_waited_for_at_its_end():
    for batches in (training_batches(Numbers(9), 4, 0), evaluation_batches(Numbers(9), 4)):
        assert batches.dataset.options().autotune.enabled is False


@pytest.mark.parametrize("buckets", [(8, 16, 32), (8, 20), (32,)])
def test_a_pass_pads_each_batch_to_its_longest_example(buckets):
    lengths = np.random.default_rng(0).integers(1, 30, 50).astype(np.int32)
    plans = list(plan_epoch(50, 8, lengths=lengths, bucket_lengths=buckets))
    assert sorted(index for plan in plans for index in plan.index[plan.real > 0]) == list(range(50))
    assert len(plans) == 7 and [plan.length for plan in plans] == sorted(plan.length for plan in plans)
    for plan in plans:
        longest = min(lengths[plan.index].max(), buckets[-1])
        if len(buckets) == 1:
            assert plan.length == 32, "a backbone that reads padding wants one length"
        else:
            assert longest <= plan.length < longest + 4 and plan.length <= buckets[-1]
    assert [plan.length for plan in plan_epoch(2, 4, lengths=np.zeros(2, np.int32), bucket_lengths=(4, 8))] == [4]


def test_evaluation_keeps_the_order_and_adds_no_noise():
    found = [batch["inputs"]["x"].numpy() for batch in evaluation_batches(Numbers(5, augment=add_noise), 2).dataset]
    np.testing.assert_array_equal(np.concatenate(found)[:5], np.arange(5))
