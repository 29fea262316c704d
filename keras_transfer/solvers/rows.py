"""Rows: passes over standardised features, in memory or on disk, by threads that cannot oversubscribe a machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
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

SCALE_FLOOR = 0.01
"""Least standard deviation, as a share of the median feature's: a feature that fired once is not blown up."""


class Workers:
    """Threads over spans of rows, each with one BLAS thread."""

    def __init__(self, threads: int | None):
        if threads is None:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(min(max(1, threads), SPANS))

    def __enter__(self) -> Workers:
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(1, user_api="blas")
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._limits.restore_original_limits()

    def each(self, function: Callable[[slice], Any], rows: int, width: int) -> Iterator[Any]:
        """The function's results for spans of the rows, in order; it gets slices of at most a chunk, one by one."""
        step = max(16, CHUNK_VALUES // max(1, width))
        chunks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
        share = -(-len(chunks) // SPANS)
        spans = [chunks[first : first + share] for first in range(0, len(chunks), share)]

        def over(span: list[slice]) -> Any:
            total = function(span[0])
            for chunk in span[1:]:
                total = tuple(a + b for a, b in zip(total, function(chunk), strict=True))
            return total

        return self._pool.map(over, spans)

    def total(self, function: Callable[[slice], tuple[Any, ...]], rows: int, width: int) -> tuple[Any, ...]:
        """The sum over all rows of what the function gives for a chunk."""
        results = self.each(function, rows, width)
        total = next(results)
        for result in results:
            total = tuple(a + b for a, b in zip(total, result, strict=True))
        return total


@dataclass
class Rows:
    """Standardised features, in memory where they are small, else read anew in each pass."""

    table: Any
    mean: np.ndarray
    scale: np.ndarray
    kept: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.table.shape[0])

    @classmethod
    def standardised(cls, table: Any, name: str, workers: Workers) -> Rows:
        """The rows with their own mean and standard deviation, each moment from its own pass: no cancellation."""
        count, width = table.shape
        _refuse_not_finite(table, name, workers)
        (mean,) = workers.total(lambda s: (_read(table, s).sum(0, dtype=np.float64),), count, width)
        mean = (mean / count).astype(np.float32)

        def squares(s: slice) -> tuple[np.ndarray]:
            centred = _read(table, s) - mean
            return (np.einsum("ij,ij->j", centred, centred, dtype=np.float64),)

        deviation = np.sqrt(workers.total(squares, count, width)[0] / count)
        varies = deviation > 1e-6 * np.abs(mean)
        floor = SCALE_FLOOR * np.median(deviation[varies]) if varies.any() else 1.0
        # A constant feature is all zero once centred, so that its weights stay exactly zero.
        scale = np.where(varies, np.maximum(deviation, floor), np.inf).astype(np.float32)
        return cls._kept(cls(table, mean, scale), workers)

    @classmethod
    def like(cls, rows: Rows, table: Any, name: str, workers: Workers) -> Rows:
        """Other rows with the moments of the training rows."""
        _refuse_not_finite(table, name, workers)
        return cls._kept(cls(table, rows.mean, rows.scale), workers)

    @staticmethod
    def _kept(rows: Rows, workers: Workers) -> Rows:
        count, width = rows.table.shape
        if count * width * 4 <= KEPT_BYTES:
            kept = np.empty((count, width), np.float32)

            def fill(s: slice) -> tuple[()]:
                kept[s] = rows.chunk(s)
                return ()

            workers.total(fill, count, width)
            rows.kept = kept
        return rows

    def chunk(self, s: slice) -> np.ndarray:
        """float32 [b, F]."""
        if self.kept is not None:
            return self.kept[s]
        values = _read(self.table, s) - self.mean
        values /= self.scale
        return values

    def unfold(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias for raw features from those [F + 1, C] for standardised ones."""
        kernel = weights[:-1] / self.scale[:, None].astype(np.float64)
        bias = weights[-1] - self.mean.astype(np.float64) @ kernel
        return kernel.astype(np.float32), bias.astype(np.float32)


def _read(table: Any, s: slice) -> np.ndarray:
    """float32 [b, F]."""
    return np.asarray(table[s], np.float32)


def _refuse_not_finite(table: Any, name: str, workers: Workers) -> None:
    """Raises for rows with NaN or infinity."""

    def count(s: slice) -> tuple[int]:
        return (int((~np.isfinite(_read(table, s)).all(1)).sum()),)

    (bad,) = workers.total(count, *table.shape)
    if bad:
        raise ValueError(
            f"{name}: expected finite numbers. Received: NaN or infinity in {bad} of {table.shape[0]} rows. "
            "Check the backbone's weights and its input range, or compute the features in float32: "
            "float16 ends at 65,504."
        )
