"""Rows: passes over standardised features, in memory or on disk, by threads that cannot oversubscribe a machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

KEPT_BYTES = 128 * 2**20
"""Standardised features up to this size are kept in memory; beyond it memory stays that of some chunks."""

CHUNK_VALUES = 2**20
"""Values of a chunk, 4 MB in float32: large enough for BLAS, small enough for a cache."""

SPANS = 16
"""Pieces into which a pass is cut, whatever the number of threads: the order of summation never changes."""

SCALE_FLOOR = 1e-3
"""Least standard deviation, as a share of the median feature's: a feature that hardly ever stirs is not blown up."""

CONSTANT = 1e-6
"""A standard deviation below this share of the mean is rounding: the feature is constant."""

HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""Each float16 as float32. A look-up is exact, and up to 15 times faster than NumPy's cast (on zeros)."""


class Workers:
    """A context: Python threads over spans of rows, each with one BLAS thread.

    Threads that wait for a chunk sleep, where BLAS threads would spin, and the partial sums are added in a fixed order.
    """

    def __init__(self, threads: int | None = None):
        if threads is None:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = min(max(1, threads), SPANS)

    def __enter__(self) -> Workers:
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(1, user_api="blas")
        self._pool = ThreadPoolExecutor(self._threads)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._limits.restore_original_limits()

    def total(self, function: Callable[[slice], tuple[Any, ...]], rows: int, width: int) -> tuple[Any, ...]:
        """The sums, over chunks of all rows, of what the function gives for a chunk.

        Args:
            function: takes a slice of rows.
            rows: number of rows.
            width: values of a row that are in memory at once; decides the rows of a chunk.
        """
        step = max(16, CHUNK_VALUES // max(1, width))
        chunks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
        if len(chunks) < self._threads:
            step = -(-rows // self._threads)
            chunks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
        share = -(-len(chunks) // SPANS)
        spans = [chunks[first : first + share] for first in range(0, len(chunks), share)]

        def over(span: list[slice]) -> tuple[Any, ...]:
            parts = function(span[0])
            for chunk in span[1:]:
                parts = tuple(a + b for a, b in zip(parts, function(chunk), strict=True))
            return parts

        results = self._pool.map(over, spans)
        sums = next(results)
        for result in results:
            sums = tuple(a + b for a, b in zip(sums, result, strict=True))
        return sums


@dataclass
class Rows:
    """Standardised features, kept in memory where they are small, else read anew in each pass."""

    table: Any
    """float [n, F], any array that slices to NumPy."""
    mean: np.ndarray
    """float32 [F]."""
    scale: np.ndarray
    """float32 [F]; infinite for a constant feature, which is then all zero and keeps weights of exactly zero."""
    kept: np.ndarray | None = None

    @classmethod
    def standardised(cls, features: Any, name: str, workers: Workers) -> Rows:
        """The rows by their own mean and standard deviation; each moment takes its own pass: no cancellation.

        Raises:
            ValueError: not two-dimensional, empty, or not finite (with the number of such rows).
        """
        table = _table(features, name)
        count, width = table.shape
        mean = _finite_sum(table, name, workers)
        mean = (mean / count).astype(np.float32)

        def squares(s: slice) -> tuple[np.ndarray]:
            centred = _read(table, s) - mean
            np.square(centred, out=centred)
            return (centred.sum(0, dtype=np.float64),)

        deviation = np.sqrt(workers.total(squares, count, width)[0] / count)
        varies = deviation > CONSTANT * np.abs(mean)
        floor = SCALE_FLOOR * np.median(deviation[varies]) if varies.any() else 1.0
        scale = np.where(varies, np.maximum(deviation, floor), np.inf).astype(np.float32)
        return cls(table, mean, scale)._keep(workers)

    def like(self, features: Any, name: str, workers: Workers) -> Rows:
        """Other rows by the moments of these.

        Raises:
            ValueError: of another width, or as `standardised`.
        """
        table = _table(features, name)
        if table.shape[1] != len(self.mean):
            raise ValueError(
                f"{name}: expected {len(self.mean)} features, as in training. Received: {table.shape[1]}. "
                "Compute both with the same backbone."
            )
        _finite_sum(table, name, workers)
        return Rows(table, self.mean, self.scale)._keep(workers)

    def __len__(self) -> int:
        return int(self.table.shape[0])

    @property
    def width(self) -> int:
        """F."""
        return len(self.mean)

    def chunk(self, s: slice) -> np.ndarray:
        """float32 [b, F], standardised."""
        if self.kept is not None:
            return self.kept[s]
        values = _read(self.table, s) - self.mean
        values /= self.scale
        return values

    def unfold(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kernel float32 [F, C] and bias float32 [C] for raw features, from [F + 1, C] for standardised ones."""
        kernel = weights[:-1].astype(np.float64) / self.scale[:, None]
        bias = weights[-1] - self.mean.astype(np.float64) @ kernel
        return kernel.astype(np.float32), bias.astype(np.float32)

    def _keep(self, workers: Workers) -> Rows:
        if len(self) * self.width * 4 > KEPT_BYTES:
            return self
        kept = np.empty((len(self), self.width), np.float32)

        def fill(s: slice) -> tuple[()]:
            kept[s] = self.chunk(s)
            return ()

        workers.total(fill, len(self), self.width)
        self.kept = kept
        return self


def _table(features: Any, name: str) -> Any:
    """A two-dimensional array, not yet read."""
    table = features if hasattr(features, "shape") else np.asarray(features)
    if len(table.shape) != 2 or not table.shape[0] or not table.shape[1]:
        raise ValueError(
            f"{name}: expected [examples, features], at least one of each. Received: shape {tuple(table.shape)}. "
            "Give the pooled features of at least one example."
        )
    return table


def _read(table: Any, s: slice) -> np.ndarray:
    """float32 [b, F]."""
    values = np.asarray(table[s])
    if values.dtype == np.float16 and values.dtype.isnative:
        # Every index is in range; without the mode NumPy would check, and buffer the result.
        return HALVES.take(values.view(np.uint16), mode="clip")
    return np.asarray(values, np.float32)


def _finite_sum(table: Any, name: str, workers: Workers) -> np.ndarray:
    """float64 [F], the sum of the rows; raises for rows with NaN or infinity."""

    def add(s: slice) -> tuple[int, np.ndarray]:
        values = _read(table, s)
        with np.errstate(invalid="ignore"):
            return int((~np.isfinite(values).all(1)).sum()), values.sum(0, dtype=np.float64)

    bad, total = workers.total(add, *table.shape)
    if bad:
        raise ValueError(
            f"{name}: expected finite numbers. Received: NaN or infinity in {bad} of {table.shape[0]} rows. "
            "Check the backbone's weights and input range, or keep the features in float32: float16 ends at 65,504."
        )
    return np.asarray(total)
