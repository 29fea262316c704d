"""FeatureArrays: the features of all examples of one split, as memory-mapped arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SECONDS_BETWEEN_MARKS = 5.0
HALF_LIMIT = int(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Leaf:
    """One tensor of the cached structure, without the axis of examples."""

    shape: tuple[int, ...]
    """Of one example; where `ragged`, of one token."""
    dtype: str
    ragged: bool = False
    """The first axis of each example has its own length; the tokens of all examples lie one after another."""

    def row_bytes(self) -> int:
        """Of one example, or of one token."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """Features of all examples of one split, in the order of the examples."""

    folder: Path
    arrays: Mapping[str, np.ndarray]
    """Memory-mapped, by flat name, features first: [n, …], or [all tokens, …] where the examples differ in length."""
    template: Any
    """The nested structure of the features, with flat names as leaves."""
    targets: Mapping[str, str] = field(default_factory=dict)
    """Flat names of targets that were stored beside the features, by the target's name."""
    starts: np.ndarray | None = None
    """int64 [n + 1]: where each example's tokens begin; None where all examples are of equal size."""
    ragged: frozenset[str] = frozenset()
    """The flat names to which `starts` applies."""
    done: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    """bool [n], memory-mapped: which rows are written."""

    def __len__(self) -> int:
        return len(self.done)

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def complete(self) -> bool:
        """Whether every row is written."""
        return bool(self.done.all())

    def read(self, name: str, index: np.ndarray, length: int = 0) -> np.ndarray:
        """[B, …] of some examples; [B, length, …] padded with zeros where they differ in length.

        What is kept in float16 comes as float32.
        """
        array = self.arrays[name]
        if name not in self.ragged:
            return _wide(np.asarray(array[index]))
        assert self.starts is not None
        sizes = (self.starts[1:] - self.starts[:-1])[index]
        places = np.arange(length)[None]
        real = places < sizes[:, None]
        values = array[np.where(real, self.starts[index][:, None] + places, 0)]
        values[~real] = 0
        return _wide(values)

    def rows(self, index: Any, length: int = 0) -> Any:
        """The features of some examples, in the encoder's own structure."""
        import tensorflow as tf  # not at the top: the list of caches needs none

        index = np.asarray(index)
        return tf.nest.map_structure(lambda name: self.read(name, index, length), self.template)

    def write(self, name: str, index: np.ndarray, values: np.ndarray) -> None:
        """Rows of one tensor, [B, …]; of those that differ in length, the padding is left out.

        Raises:
            ValueError: a value that float16, where that is kept, cannot hold.
        """
        array = self.arrays[name]
        if array.dtype == np.float16:
            values = _narrow(values)
        if name not in self.ragged:
            array[index] = values
            return
        assert self.starts is not None
        for row, value in zip(index, values, strict=True):
            start, end = self.starts[row], self.starts[row + 1]
            array[start:end] = value[: end - start]

    def mark(self, index: np.ndarray) -> None:
        """Flushes what was written, then says that these rows are done."""
        for array in self.arrays.values():
            array.flush()  # type: ignore[attr-defined]
        self.done[index] = True
        self.done.flush()  # type: ignore[attr-defined]


def write_stream(
    cache: FeatureCache | None,
    pieces: Iterable[tuple[np.ndarray, Sequence[np.ndarray]]],
    create: Callable[[Sequence[np.ndarray]], FeatureCache],
    progress: Callable[[int], None] | None = None,
) -> FeatureCache:
    """Writes rows as they come, and marks them every few seconds and at the end, also where that is an error.

    Args:
        cache: what is there already; None: `create` makes it from the first values.
        pieces: numbers of examples, and the values of every array for them, [B, …] in the order of the arrays.
        create: called at most once.
        progress: called with the number of examples done.
    """
    waiting: list[np.ndarray] = []
    done, marked = int(cache.done.sum()) if cache is not None else 0, time.monotonic()
    try:
        for rows, values in pieces:
            if cache is None:
                cache = create(values)
            for name, value in zip(cache.arrays, values, strict=True):
                cache.write(name, rows, value)
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


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _narrow(values: np.ndarray) -> np.ndarray:
    """float16, to nearest."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if np.isinf(halves).any() and np.isfinite(values).all():
        raise ValueError(
            f"cache_precision: float16 holds features up to {HALF_LIMIT:,}. Received: {np.abs(values).max():,.0f}. "
            "Use cache_precision float32."
        )
    return halves
