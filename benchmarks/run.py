"""All benchmarks, side by side with plain Keras; writes docs/benchmarks.md and, beside it, all samples as JSON.

    python benchmarks/run.py                              all of them: about 40 minutes on two idle cores
    python benchmarks/run.py --quick                      little data, one repeat: minutes, and no figures to rely on
    python benchmarks/run.py --only head_phase,texts      only these; the page keeps the others
    python benchmarks/run.py --only head_phase.digits     one part of a benchmark
    python benchmarks/run.py --missing                    only what has no figures to rely on yet: goes on after a cut

Each part runs in a process of its own, and a row is written when it is measured. Figures measured while the machine is
busy, or with --quick, are marked as provisional.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
sys.path.insert(0, str(Path(__file__).parent))

from measuring import HEADER, OtherWork, Row, load, table  # noqa: E402 - TensorFlow reads the variables once, at import

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BENCHMARKS = {
    "head_phase": ("The head phase", ("digits", "reviews")),
    "fine_tuning": ("Fine-tuning at the frozen boundary", ("digits", "reviews")),
    "whole_run": ("The whole run", ()),
    "views": ("Augmented views", ()),
    "texts": ("Texts batched by length", ()),
    "decoding": ("Decoded images", ()),
    "exported": ("Exported versions", ()),
    "starting": ("Starting", ()),
    "growing": ("Growth with the data", ()),
}
BUSY = 0.1
"""Above this share of the machine for other processes, figures are provisional."""

TOP = """# Benchmarks

`make bench` measures these and writes this page. Every ratio is ours against the plain way in the same process, in
turn, by the median of neighbouring runs with their range. Above 1 is faster. "MB more" is by how much anonymous memory
grew at most during the run. Plain Keras is written as in the Keras transfer-learning guide, on the same weights and
examples, images decoded and in memory before its clock starts; ours reads the files. All samples are in
`benchmarks.json`.
"""


def main(chosen: Sequence[str] = ()) -> int:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description="Measure against plain Keras; write docs/benchmarks.md.")
    parser.add_argument("--only", default=",".join(chosen), help="names, separated by commas; default: all")
    parser.add_argument("--missing", action="store_true", help="only what has no figures to rely on yet")
    parser.add_argument("--quick", action="store_true", help="little data and one repeat: to see that it runs")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write")
    options = parser.parse_args()
    parts = _parts(parser, options.only)
    if options.missing:
        known = _read(options.page)
        parts = [part for part in parts if not _is_done(known.get(part, []))]
    if len(parts) == 1:
        _measure(parts[0], options.quick, options.page)
        return 0
    failed = []
    for part in parts:
        print(f"{part} …", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--only", part, "--page", str(options.page)]
        if subprocess.run([*command, *(["--quick"] if options.quick else [])], check=False).returncode:
            failed.append(part)
    if failed:
        print(f"failed: {', '.join(failed)}; what they had measured before is kept", file=sys.stderr)
    return 1 if failed else 0


def _parts(parser: argparse.ArgumentParser, only: str) -> list[str]:
    """Each chosen benchmark, or its parts."""
    every = [f"{name}.{part}" if part else name for name, (_, parts) in BENCHMARKS.items() for part in parts or ("",)]
    if not only:
        return every
    found = []
    for word in only.split(","):
        fitting = [part for part in every if word in (part, part.split(".")[0])]
        if not fitting:
            parser.error(f"--only: expected some of {', '.join([*BENCHMARKS, *every])}. Received: {word}")
        found += fitting
    return list(dict.fromkeys(found))


def _measure(part: str, quick: bool, page: Path) -> None:
    """One part, row by row."""
    started, before, other = time.time(), load(), OtherWork()
    name, _, inner = part.partition(".")
    module = importlib.import_module(name)
    if hasattr(module, "report"):
        bodies = ({"report": module.report(quick)} for _ in range(1))
    else:
        bodies = ({"row": row.to_json()} for row in module.measure(quick, inner))
    rows: list[dict[str, Any]] = []
    for body in bodies:
        share = other.share()
        about = {
            "provisional": ["busy"] * (share > BUSY) + ["quick"] * quick,
            "others": round(share, 3),
            "machine": f"{platform.machine()}, {before}",
            "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime(started)),
            "seconds": round(time.time() - started),
            "complete": False,
        }
        rows.append({**body, **about})
        known = _read(page)
        names = {_name(row) for row in rows}
        # Rows of an earlier time stay until this part is through.
        _write(page, known | {part: rows + [row for row in known.get(part, []) if _name(row) not in names]})
        print(_body(rows[-1:]), flush=True)
    _write(page, _read(page) | {part: [{**row, "complete": True} for row in rows]})


def _name(row: dict[str, Any]) -> str:
    return row["row"]["what"] if "row" in row else ""


def _is_done(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether a part was measured to its end, on a machine that did nothing else."""
    return bool(rows) and all(row["complete"] and not row["provisional"] for row in rows)


def _read(page: Path) -> dict[str, list[dict[str, Any]]]:
    """What is known, by part."""
    file = page.with_suffix(".json")
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _write(page: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    """The samples, and the page made of them."""
    sections = []
    for name, (title, _) in BENCHMARKS.items():
        rows = [row for part, rows in found.items() if part.split(".")[0] == name for row in rows]
        if rows:
            sections.append(f"## {title}\n{_body(rows)}")
    text = json.dumps(found, indent=1)
    for path, content in ((page.with_suffix(".json"), text), (page, f"{TOP}\n" + "\n\n".join(sections))):
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_text(f"{content}\n", encoding="utf-8")
        os.replace(beside, path)


def _body(rows: Sequence[dict[str, Any]]) -> str:
    """A section: what is provisional in it, its table or tables, its notes."""
    measured = [Row.from_json(row["row"]) for row in rows if "row" in row]
    pieces = []
    doubtful = [row for row in rows if row["provisional"]]
    if doubtful:
        why = {"busy": "the machine was busy with other work", "quick": "little data and few repeats (--quick)"}
        reasons = " and ".join(
            why[word] for word in dict.fromkeys(word for row in doubtful for word in row["provisional"])
        )
        whose = "all rows" if len(doubtful) == len(rows) else ", ".join(row["row"]["what"] for row in doubtful)
        pieces.append(f"**Provisional** ({whose}): {reasons}. Measure again before relying on it.")
    if measured:
        pieces.append(table(HEADER, [row.cells() for row in measured]))
    pieces += [row["report"] for row in rows if "report" in row]
    last: dict[str, dict[str, Any]] = {f"{row['when']} UTC, {row['machine']}": row for row in rows}
    where = "; ".join(
        f"{what} (other processes took {row['others']:.0%} of the machine), in {row['seconds']} s"
        for what, row in last.items()
    )
    notes = " ".join(f"{row.what}: {row.note}." for row in measured if row.note)
    pieces.append(f"Measured {where}. {notes}".strip())
    return "\n\n".join(pieces)


if __name__ == "__main__":
    raise SystemExit(main())
