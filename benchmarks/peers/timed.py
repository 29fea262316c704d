"""Timed: one command as a process of its own, with its time from start to end and how busy the machine was besides."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHOWN = 2_000
"""Characters at the end of a failed command's log that its error shows."""


class Failed(RuntimeError):
    """A command ended badly; the message says how, with the end of its log."""


@dataclass(frozen=True)
class Timed:
    """One finished command."""

    seconds: float
    """Wall-clock, from start to end: imports, data, training, scores, saving."""
    cpu_seconds: float
    """Of all its processes."""
    peak_megabytes: float
    """Of its largest process, resident."""
    others: float
    """Processors that other work on the machine took meanwhile, on average; 0 where the system does not tell."""
    answer: dict[str, Any]
    """The JSON object on its last line of standard output."""


def run(words: Sequence[str], folder: Path, log: Path, variables: Mapping[str, str], limit: float) -> Timed:
    """Runs one command.

    Args:
        words: the command.
        folder: in which it runs.
        log: takes its standard error.
        variables: of the environment, beside those that are set.
        limit: seconds after which it is stopped.

    Raises:
        Failed: it ended with another status than 0, took too long, or printed no JSON object.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    busy, started = _busy_seconds(), time.monotonic()
    with log.open("wb") as errors:
        # A group of its own, so that its workers are stopped with it.
        process = subprocess.Popen(
            list(words),
            cwd=folder,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        assert process.stdout is not None
        late = _Stopper(process.pid, limit)
        try:
            # Read to its end first: a full pipe would stop the command.
            printed = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            late.stop()
            raise
        finally:
            late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    cpu = used.ru_utime + used.ru_stime
    if process.returncode:
        why = f"stopped after {limit:.0f} s" if late.stopped else f"status {process.returncode}"
        end = log.read_text(encoding="utf-8", errors="replace")[-SHOWN:]
        raise Failed(f"{' '.join(words)}\n{why}; {log} ends with:\n{end}")
    return Timed(
        seconds=seconds,
        cpu_seconds=cpu,
        peak_megabytes=used.ru_maxrss / 1e3,
        others=max(0.0, (_busy_seconds() - busy - cpu) / seconds),
        answer=_last_line(printed, words, log),
    )


class _Stopper:
    """Stops a process and its group after some seconds."""

    def __init__(self, group: int, limit: float):
        self.stopped = False
        self._group = group
        self._timer = threading.Timer(limit, self.stop)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Now."""
        self.stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)

    def cancel(self) -> None:
        """The process has ended."""
        self._timer.cancel()


def _last_line(printed: bytes, words: Sequence[str], log: Path) -> dict[str, Any]:
    lines = printed.decode("utf-8", "replace").strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        assert isinstance(answer, dict)
    except (IndexError, ValueError, AssertionError):
        raise Failed(f"{' '.join(words)}\nexpected a JSON object last. Received: {lines[-1:]}; see {log}") from None
    return answer


def _busy_seconds() -> float:
    """Seconds that all processors worked since the system started; 0 where it does not tell."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, first)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
