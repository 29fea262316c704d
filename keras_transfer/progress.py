"""Progress: what a person sees while long work goes on; all of it on standard error, and in the run's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0  # without a terminal


class Log:
    """Says lines to standard error and, once it is known, to a file."""

    def __init__(self, quiet: bool = False):
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self._quiet = quiet
        self._held: list[str] = []
        self._path: Path | None = None

    def write_to(self, path: Path) -> None:
        """From now on lines go to this file too; those said before are written first."""
        self._path = path
        held, self._held = self._held, []
        for line in held:
            self._write(line)

    def begin(self) -> None:
        """Another run begins: what is said is held until its file is known, and not added to that of the last run."""
        self._path, self._held = None, []

    def say(self, line: str = "", style: str = "") -> None:
        """One line."""
        self._console.print(line, style=style or None, markup=False)
        self._write(line)

    def warn(self, line: str) -> None:
        """One line that should not be missed."""
        self.say(f"warning: {line}", "yellow")

    def _write(self, line: str) -> None:
        if self._path is None:
            self._held.append(line)
            return
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """A bar with elapsed and remaining time; yields `update(done, text)`."""
        if self._quiet:
            yield lambda done, text="": None
        elif sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
            )
            with Progress(*columns, console=self._console, transient=True) as progress:
                task = progress.add_task(what, total=total, text="")
                yield lambda done, text="": progress.update(task, completed=done, text=text)
        else:
            yield self._lines(what, total)

    def _lines(self, what: str, total: int) -> Callable[..., None]:
        """Without a terminal: a line now and then."""
        started = spoken = time.monotonic()

        def update(done: int, text: str = "") -> None:
            nonlocal spoken
            now = time.monotonic()
            if now - spoken < SECONDS_BETWEEN_LINES or not done:
                return
            spoken = now
            left = (now - started) / done * (total - done)
            self._console.print(f"{what}: {done:,} of {total:,}, {left:.0f} s left {text}".rstrip(), markup=False)

        return update


class Clock:
    """Seconds by part of the work."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = dict.fromkeys(
            ("data", "cache", "head", "fine_tune", "evaluate", "export"), 0.0
        )

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a part."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def rounded(self) -> dict[str, float]:
        """All parts and `total`, to milliseconds."""
        total = time.monotonic() - self.started
        return {**{name: round(value, 3) for name, value in self.seconds.items()}, "total": round(total, 3)}
