"""Texts batched by length, against all padded to 128 tokens: movie reviews, MiniLM, the same traced function.

    python benchmarks/texts.py [--quick]

Cold: a new function, which traces each length that comes. Warm: the same function again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from measuring import Row, Sample, in_turn
from subjects import BATCH, reviews

from keras_transfer.data.pipeline import evaluation_batches, unwrap
from keras_transfer.feature_cache import Encode
from keras_transfer.tasks.base import Examples

PADDED = 128


def measure(quick: bool, chosen: str = "") -> Iterator[Row]:
    """Cold and warm."""
    subject = reviews(quick, **{"backbone.sequence_length": PADDED})
    by_length = subject.examples["train"]
    padded = replace(by_length, bucket_lengths=(PADDED,))
    features: dict[str, np.ndarray] = {}

    def both(name: str, examples: Examples):  # type: ignore[no-untyped-def]
        held: list[Encode] = []

        def cold(sample: Sample, repeat: int) -> None:
            held[:] = [Encode(subject.joined.encoder)]
            warm(sample, repeat)

        def warm(sample: Sample, repeat: int) -> None:
            features[name] = _features(held[0], examples)

        return cold, warm

    cold_ours, warm_ours = both("ours", by_length)
    cold_theirs, warm_theirs = both("theirs", padded)
    ways = {"cold theirs": cold_theirs, "warm theirs": warm_theirs, "cold ours": cold_ours, "warm ours": warm_ours}
    found = in_turn(ways, 1 if quick else 2)
    difference = np.abs(features["ours"] - features["theirs"]).max()
    lengths = np.asarray(by_length.lengths)
    note = (
        f"{len(by_length):,} texts of {lengths.mean():.0f} tokens on average; largest difference of features "
        f"{difference:.1e}"
    )
    against = f"padded to {PADDED}"
    yield Row("a pass over texts batched by length, warm", against, "4", found["warm ours"], found["warm theirs"], note)
    yield Row("the same from cold", against, "2.5", found["cold ours"], found["cold theirs"])


def _features(encode: Encode, examples: Examples) -> np.ndarray:
    """float32 [n, F], in the order of the examples."""
    function, found = encode(fold=False), None
    for batch in evaluation_batches(examples, BATCH).dataset:
        values = function(unwrap(batch["inputs"])).numpy()
        found = np.empty((len(examples), values.shape[1]), np.float32) if found is None else found
        found[batch["index"].numpy()] = values
    assert found is not None
    return found


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["texts"]))
