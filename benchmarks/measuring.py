"""Measuring: two ways side by side in one process, repeated in turn, with their time, processor time and memory."""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_SAMPLES = 0.05


@dataclass
class Sample:
    """One run of one way."""

    seconds: float = 0.0
    """Wall-clock time, or what the way itself measured (an epoch)."""
    cpu_seconds: float = 0.0
    """Of all threads: less disturbed by what else the machine does."""
    megabytes: float = 0.0
    """By which anonymous memory (RssAnon) grew at most."""
    accuracy: float | None = None


@dataclass
class Row:
    """One line of docs/benchmarks.md."""

    what: str
    against: str
    goal: str
    ours: list[Sample] = field(default_factory=list)
    theirs: list[Sample] = field(default_factory=list)
    note: str = ""

    def cells(self) -> list[str]:
        """As the table shows them."""
        return [
            self.what,
            self.against,
            self.goal,
            _ratio(self.theirs, self.ours, "seconds"),
            _ratio(self.theirs, self.ours, "cpu_seconds"),
            f"{_middle(self.ours, 'seconds'):.3g} / {_middle(self.theirs, 'seconds'):.3g}",
            f"{_accuracy(self.ours)} / {_accuracy(self.theirs)}",
            f"{_middle(self.ours, 'megabytes'):.0f} / {_middle(self.theirs, 'megabytes'):.0f}",
            str(len(self.ours)),
        ]


HEADER = (
    "what",
    "against",
    "goal",
    "times faster (range)",
    "in processor time",
    "seconds, ours / theirs",
    "accuracy, ours / theirs",
    "MB more, ours / theirs",
    "repeats",
)


def in_turn(row: Row, ours: Callable[[Sample], None], theirs: Callable[[Sample], None], repeats: int) -> Row:
    """Theirs, ours, theirs, ours …: what else the machine does falls on both."""
    for _ in range(repeats):
        for way, samples in ((theirs, row.theirs), (ours, row.ours)):
            samples.append(measured(way))
    return row


def measured(way: Callable[[Sample], None]) -> Sample:
    """One run. A way that sets `seconds` or `cpu_seconds` itself keeps what it set."""
    gc.collect()
    sample = Sample()
    with _watched_memory(sample):
        wall, cpu = time.perf_counter(), time.process_time()
        way(sample)
        sample.seconds = sample.seconds or time.perf_counter() - wall
        sample.cpu_seconds = sample.cpu_seconds or time.process_time() - cpu
    return sample


def anonymous_megabytes() -> float:
    """RssAnon of this process; mapped files (the caches) are not in it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1e3
    return float("nan")


@contextmanager
def _watched_memory(sample: Sample) -> Iterator[None]:
    before, stop = anonymous_megabytes(), threading.Event()

    def watch() -> None:
        while not stop.wait(SECONDS_BETWEEN_SAMPLES):
            sample.megabytes = max(sample.megabytes, anonymous_megabytes() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def load() -> str:
    """How busy the machine was in the last minute, beside its processors."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


def _middle(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)


def _accuracy(samples: Sequence[Sample]) -> str:
    values = [sample.accuracy for sample in samples if sample.accuracy is not None]
    return f"{statistics.mean(values):.3f}" if values else "–"


def _ratio(theirs: Sequence[Sample], ours: Sequence[Sample], name: str) -> str:
    """The median of the ratios of neighbouring runs, and their range."""
    ratios = [getattr(a, name) / max(getattr(b, name), 1e-9) for a, b in zip(theirs, ours, strict=True)]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}{spread}"
