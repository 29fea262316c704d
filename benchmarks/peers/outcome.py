"""Outcome: what was measured, row by row; which setting of the peer was chosen; the page that says so."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comparisons import COMPARISONS, Comparison

OURS = "keras_transfer"
BUSY = 0.1
"""Other work that took more of one processor than this during a run makes the figures provisional."""
LEAST = 0.01
"""Seconds that count as none."""

TOP = """# Benchmarks against peers

`python benchmarks/peers/run.py` measures these and writes this page: the same pretrained weights, rows and machine,
each way in a process of its own, in turn. "Whole process" runs from its start to its end: imports, data, training,
scores and saving (ours also checks the data, and exports and verifies in a fresh process), with empty caches;
"training" is what trains alone (ours with the pass that fills the caches). The peer's settings are all run with the
first seed; of those whose validation accuracy is within one standard error of the best, the quickest is chosen, and is
run with the other seeds as well. No test row chooses anything.
"""


@dataclass(frozen=True)
class Row:
    """One training, as one line of the results."""

    comparison: str
    way: str
    """`keras_transfer`, or the peer's name."""
    setting: str
    """Of the peer; for ours "" or one of `Comparison.also`."""
    seed: int
    seconds: float = 0.0
    training_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_megabytes: float = 0.0
    others: float = 0.0
    accuracy: dict[str, float] = field(default_factory=dict)
    """By split."""
    examples: dict[str, int] = field(default_factory=dict)
    """By split."""
    limit: int = 0
    """Training rows where they were fewer than the comparison says, to try the benchmark itself."""
    error: str = ""
    written: str = ""

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """What tells it from other trainings."""
        return self.comparison, self.way, self.setting, self.seed, self.limit


def choose(rows: Sequence[Row]) -> str:
    """The peer's setting: the quickest within one standard error of the best validation accuracy.

    Args:
        rows: one of each setting, with the same seed; those with an error do not count.
    """
    good = [row for row in rows if not row.error]
    if not good:
        raise ValueError("expected a setting that works. Received: every one of them failed; see the logs.")
    best = max(row.accuracy["validation"] for row in good)
    error = math.sqrt(best * (1 - best) / good[0].examples["validation"])
    near = [row for row in good if row.accuracy["validation"] >= best - error]
    return min(near, key=lambda row: row.seconds).setting


def write_page(page: Path, name: str, rows: Sequence[Row], chosen: str) -> str:
    """Puts the section of one comparison into the page and keeps the others; the section."""
    sections = _sections(page)
    sections[_title(name)] = section(name, rows, chosen)
    titles = [_title(known) for known in COMPARISONS]
    ordered = [*titles, *(title for title in sections if title not in titles)]
    body = "\n\n".join(f"## {title}\n{sections[title]}" for title in ordered if title in sections)
    beside = page.with_name(f".{page.name}.tmp")
    beside.write_text(f"{TOP}\n{body}\n", encoding="utf-8")
    os.replace(beside, page)
    return sections[_title(name)]


def section(name: str, rows: Sequence[Row], chosen: str) -> str:
    """What one comparison found, as Markdown."""
    comparison, good = COMPARISONS[name], [row for row in rows if not row.error]
    ours = {
        f"{OURS}{way and f', {way}'}": [row for row in good if (row.way, row.setting) == (OURS, way)]
        for way in ("", *comparison.also)
    }
    peer = [row for row in good if row.way != OURS and row.setting == chosen]
    splits = list(dict.fromkeys(split for row in good for split in row.accuracy))
    ways = [*ours.items(), (f"**{comparison.peer}, {chosen}**", peer)]
    ways += [
        (f"{comparison.peer}, {setting}", [row for row in good if row.setting == setting])
        for setting in comparison.settings
        if setting != chosen
    ]
    header = ["way", "seeds", *splits, "whole process, s", "training, s", "processor, s", "peak, MB"]
    lines = [header, ["---"] * len(header)]
    for title, found in ways:
        if found:
            seeds = ", ".join(str(row.seed) for row in found)
            lines.append([title, seeds, *(_spread(found, _accuracy(split), 3) for split in splits), *_costs(found)])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    parts = [*_warnings(rows), table]
    for way, found in ours.items():
        parts += _verdict(comparison, way, found, peer, splits)
    parts += [comparison.note] if comparison.note else []
    failed = [f"{row.way}, {row.setting or 'as it is'}, seed {row.seed}" for row in rows if row.error]
    if failed:
        parts.append(f"Failed: {'; '.join(failed)}.")
    first = good[0] if good else rows[0]
    counts = ", ".join(f"{count:,} {split}" for split, count in first.examples.items())
    parts.append(f"Rows: {counts}. Measured up to {max(row.written for row in rows)} on {os.cpu_count()} processors.")
    return "\n\n".join(parts)


def _verdict(
    comparison: Comparison, way: str, ours: Sequence[Row], peer: Sequence[Row], splits: Iterable[str]
) -> list[str]:
    """One sentence: accuracies and how many times as fast, beside the goal."""
    by_seed = {row.seed: row for row in peer}
    pairs = [(row, by_seed[row.seed]) for row in ours if row.seed in by_seed]
    if not pairs:
        return []
    tests = [split for split in splits if split != "validation"]
    scores, better = [], True
    for split in tests:
        a, b = (statistics.mean(row.accuracy[split] for row in side) for side in zip(*pairs, strict=True))
        scores.append(f"{split} {a:.3f} against {b:.3f}")
        better = better and a >= b
    whole, training, cpu = (
        [getattr(b, name) / max(getattr(a, name), LEAST) for a, b in pairs]
        for name in ("seconds", "training_seconds", "cpu_seconds")
    )
    quick = statistics.median(whole) >= comparison.goal
    met = "met" if better and quick else "time met, accuracy not" if quick else "accuracy met, time not"
    return [
        f"{way} against {comparison.peer}: {', '.join(scores)}; **{_times(whole)} times as fast as a whole process**, "
        f"{_times(training)} in training alone, "
        f"{_times(cpu)} in processor time. "
        f"Goal: their accuracy or better, {comparison.goal:g} times as fast: "
        f"**{met if better or quick else 'not met'}**."
    ]


def _warnings(rows: Sequence[Row]) -> list[str]:
    """Why the figures are not to be relied on."""
    why = []
    busiest = max((row.others for row in rows), default=0.0)
    if busiest > BUSY:
        why.append(f"the machine was busy with other work (up to {busiest:.1f} processors)")
    if any(row.limit for row in rows):
        why.append("fewer training rows than the comparison asks for (--limit)")
    if not why:
        return []
    return [f"**Provisional**: {' and '.join(why)}. Measure again before relying on it."]


def _costs(rows: Sequence[Row]) -> list[str]:
    return [
        _spread(rows, lambda row: row.seconds, 1),
        _spread(rows, lambda row: row.training_seconds, 1),
        _spread(rows, lambda row: row.cpu_seconds, 0),
        f"{max(row.peak_megabytes for row in rows):,.0f}",
    ]


def _accuracy(split: str) -> Callable[[Row], float]:
    return lambda row: row.accuracy[split]


def _spread(rows: Sequence[Row], value: Callable[[Row], float], digits: int) -> str:
    """Mean and range."""
    values = [value(row) for row in rows]
    ends = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{ends}"


def _times(ratios: Sequence[float]) -> str:
    """Median and range."""
    ends = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}{ends}"


def _title(name: str) -> str:
    limit = COMPARISONS[name].limit
    data = name.removesuffix(f"_{limit}").replace("_", " ").capitalize()
    return f"{data}, {limit:,} training examples" if limit else data


def _sections(page: Path) -> dict[str, str]:
    """The sections that the page has, by title."""
    if not page.exists():
        return {}
    parts = page.read_text(encoding="utf-8").split("\n## ")[1:]
    return {title.strip(): body.strip() for title, _, body in (part.partition("\n") for part in parts)}
