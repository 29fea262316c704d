"""How long it takes to start: `import keras_transfer`, and the command's help.

    python benchmarks/starting.py [--quick]

An empty Python process is measured beside and taken off.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from measuring import table

GOALS = {
    "import keras_transfer": (["-c", "import keras_transfer"], 0.2),
    "keras-transfer --help": (["-m", "keras_transfer", "--help"], 0.5),
}


def report(quick: bool) -> str:
    """Seconds beyond those of an empty Python process, measured in turn."""
    rows = []
    for name, (words, goal) in GOALS.items():
        empty, ours = [], []
        for _ in range(3 if quick else 10):
            empty.append(_seconds(["-c", "pass"]))
            ours.append(_seconds(words))
        extra = statistics.median(ours) - statistics.median(empty)
        rows.append([name, f"< {goal} s", f"{extra:.3f} s", f"{min(ours):.3f} to {max(ours):.3f} s", len(ours)])
    return table(["what", "goal", "beyond an empty Python process", "whole process, range", "repeats"], rows)


def _seconds(words: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["starting"]))
