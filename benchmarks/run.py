"""All benchmarks, side by side with plain Keras; writes docs/benchmarks.md.

    python benchmarks/run.py                 all of them, in full: about an hour on two cores
    python benchmarks/run.py --quick         little data, one repeat: minutes, and no figures to rely on
    python benchmarks/run.py head_phase      only these; the page keeps the others

Figures measured while the machine is busy, or with --quick, are marked as provisional.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
sys.path.insert(0, str(Path(__file__).parent))

from measuring import HEADER, load, table  # noqa: E402 - TensorFlow reads the variables once, at import

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BENCHMARKS = {
    "head_phase": "The head phase",
    "fine_tuning": "Fine-tuning at the frozen boundary",
    "exported": "Exported versions",
    "starting": "Starting",
    "growing": "Growth with the data",
}
BUSY = 1.5
"""A load above this many times the processors, before a benchmark starts, makes its figures provisional."""

TOP = """# Benchmarks

`make bench` measures these and writes this page. Every ratio is ours against the plain way in the same process, in
turn (theirs, ours, theirs, ours …), by the median of neighbouring runs with their range. Above 1 is faster. "MB more"
is by how much anonymous memory grew at most during the run. Plain Keras is written as in the Keras transfer-learning
guide, on the same weights and images, the images decoded and in memory before its clock starts; ours reads the files.
"""


def main(chosen: Sequence[str] = ()) -> int:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description="Measure against plain Keras; write docs/benchmarks.md.")
    if not chosen:
        parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], default=[], help="which; default: all")
    parser.add_argument("--quick", action="store_true", help="little data and one repeat: to see that it runs")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write")
    options = parser.parse_args()
    sections = _sections(options.page)
    for name in chosen or options.names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        sections[BENCHMARKS[name]] = _section(name, options.quick)
        print(sections[BENCHMARKS[name]], flush=True)
        _write(options.page, sections)
    return 0


def _section(name: str, quick: bool) -> str:
    """What one benchmark found, with where and how it was measured."""
    busy = os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)
    started, before = time.time(), load()
    module = importlib.import_module(name)
    if hasattr(module, "report"):
        body, notes = module.report(quick), []
    else:
        rows = module.measure(quick)
        body = table(HEADER, [row.cells() for row in rows])
        notes = [f"{row.what}: {row.note}." for row in rows if row.note]
    provisional = []
    if busy:
        provisional.append("the machine was busy with other work")
    if quick:
        provisional.append("little data and few repeats (--quick)")
    warning = ""
    if provisional:
        warning = f"**Provisional**: {' and '.join(provisional)}. Measure again before relying on it.\n\n"
    where = (
        f"Measured {time.strftime('%Y-%m-%d %H:%M', time.gmtime(started))} UTC in {time.time() - started:.0f} s, "
        f"{platform.machine()}, {before} when it started. {' '.join(notes)}"
    )
    return f"{warning}{body}\n\n{where}".strip()


def _sections(page: Path) -> dict[str, str]:
    """The sections that the page has, by title."""
    if not page.exists():
        return {}
    parts = page.read_text(encoding="utf-8").split("\n## ")[1:]
    return {title.strip(): body.strip() for title, _, body in (part.partition("\n") for part in parts)}


def _write(page: Path, sections: dict[str, str]) -> None:
    """The page in the order of the benchmarks; what is not one of them stays at its end."""
    titles = [*BENCHMARKS.values(), *(title for title in sections if title not in BENCHMARKS.values())]
    body = "\n\n".join(f"## {title}\n{sections[title]}" for title in titles if title in sections)
    beside = page.with_name(f".{page.name}.tmp")
    beside.write_text(f"{TOP}\n{body}\n", encoding="utf-8")
    os.replace(beside, page)


if __name__ == "__main__":
    raise SystemExit(main())
