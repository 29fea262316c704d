"""Measuring: ways side by side in one process, repeated in turn, with their time, processor time and memory."""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
    parts: dict[str, float] = field(default_factory=dict)
    """What else the way measured, such as the seconds of an epoch."""


@dataclass
class Row:
    """One line of docs/benchmarks.md."""

    what: str
    against: str
    goal: str
    ours: list[Sample] = field(default_factory=list)
    theirs: list[Sample] = field(default_factory=list)
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Row:
        """What `to_json` gave."""
        ways = {name: [Sample(**sample) for sample in plain[name]] for name in ("ours", "theirs")}
        return cls(**{**plain, **ways})

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
            _repeats(self.ours, self.theirs),
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


def in_turn(ways: Mapping[str, Callable[[Sample, int], None]], repeats: int) -> dict[str, list[Sample]]:
    """Each way once, then each again …: what else the machine does falls on all.

    Args:
        ways: by name; called with the sample to fill in, and the number of the repeat, which is also its seed.
        repeats: how often.
    """
    found: dict[str, list[Sample]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, way in ways.items():
            found[name].append(measured(way, repeat))
    return found


def measured(way: Callable[[Sample, int], None], repeat: int = 0) -> Sample:
    """One run. A way that sets `seconds` or `cpu_seconds` itself keeps what it set."""
    gc.collect()
    sample = Sample()
    with _watched_memory(sample):
        wall, cpu = time.perf_counter(), time.process_time()
        way(sample, repeat)
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


class OtherWork:
    """How much of the machine other processes took since this was made."""

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.perf_counter(), _machine_seconds(), _own_seconds()

    def share(self) -> float:
        """Of all processors, 0 to 1; that of the load average where the system does not tell."""
        busy, processors = _machine_seconds(), os.cpu_count() or 1
        if busy is None or self._busy is None:
            return min(1.0, os.getloadavg()[0] / processors)
        elapsed = max(time.perf_counter() - self._started, 1e-3) * processors
        others = (busy - self._busy - (_own_seconds() - self._own)) / elapsed
        # The system counts in ticks of 10 ms: one that ends within a short time can seem longer than all of it.
        return min(1.0, max(0.0, others))


def _machine_seconds() -> float | None:
    """Processor seconds of all processes since the start of the machine, idle and waiting ones left out."""
    try:
        words = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, *rest = (int(word) for word in words)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _middle(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)


def _accuracy(samples: Sequence[Sample]) -> str:
    values = [sample.accuracy for sample in samples if sample.accuracy is not None]
    return f"{statistics.mean(values):.3f}" if values else "–"


def _ratio(theirs: Sequence[Sample], ours: Sequence[Sample], name: str) -> str:
    """The median of the ratios of neighbouring runs and their range; where one way ran more often, of the medians."""
    if len(theirs) == len(ours):
        ratios = [getattr(a, name) / max(getattr(b, name), 1e-9) for a, b in zip(theirs, ours, strict=True)]
        middle = statistics.median(ratios)
    else:
        ratios = [getattr(a, name) / max(getattr(b, name), 1e-9) for a in theirs for b in ours]
        middle = _middle(theirs, name) / max(_middle(ours, name), 1e-9)
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{middle:.2f}{spread}"


def _repeats(ours: Sequence[Sample], theirs: Sequence[Sample]) -> str:
    return str(len(ours)) if len(ours) == len(theirs) else f"{len(ours)} / {len(theirs)}"
