"""Our trainings beside those of other tools, on the same rows, weights and machine; writes docs/benchmarks-peers.md.

    python benchmarks/peers/run.py                            all of them
    python benchmarks/peers/run.py --only trees --seeds 0     one, with one seed
    python benchmarks/peers/run.py --resume                   go on after an interruption
    python benchmarks/peers/run.py --limit 60 --seeds 0       little data: to see that it runs

Run in the project's environment; the peers get one of their own beside this file. Each training is a process of its
own, and a line of `results/results.jsonl` as soon as it ends; its log is in `results/logs`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import environment  # noqa: E402 - beside this file
import timed  # noqa: E402
from comparisons import COMPARISONS, Comparison  # noqa: E402
from outcome import OURS, Row, choose, write_page  # noqa: E402

from keras_transfer.samples import cache_folder  # noqa: E402

HERE = Path(__file__).parent
WORK = HERE / "results"
RESULTS = WORK / "results.jsonl"
PAGE = HERE.parents[1] / "docs" / "benchmarks-peers.md"
LONGEST = 3_600.0
"""Seconds after which one training is stopped."""
TRAINING = ("cache", "head", "fine_tune")
"""Of our seconds, those that train."""


def main() -> int:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description="Measure against other tools; write docs/benchmarks-peers.md.")
    parser.add_argument("--only", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=0, help="at most so many training rows: to see that it runs")
    parser.add_argument("--resume", action="store_true", help="keep what results/results.jsonl already has")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write")
    options = parser.parse_args()
    python = environment.python()
    WORK.mkdir(exist_ok=True)
    # So that git ignores what is measured wherever this is run.
    (WORK / ".gitignore").write_text("*\n")
    known = [row for row in _read() if row.comparison not in options.only or (options.resume and not row.error)]
    _write(known)
    errors = 0
    for name in options.only:
        bench = Bench(name, COMPARISONS[name], python, options.limit, {row.key: row for row in known})
        try:
            chosen = bench.measure(options.seeds)
        except timed.Failed as error:  # no rows: the other comparisons may do
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            errors += 1
            continue
        errors += sum(bool(row.error) for row in bench.rows)
        if chosen is not None:
            print(write_page(options.page, name, bench.rows, chosen), flush=True)
    if errors:
        print(f"{errors} trainings failed; see {RESULTS}", file=sys.stderr)
    return 1 if errors else 0


class Bench:
    """One comparison."""

    def __init__(self, name: str, comparison: Comparison, python: Path, limit: int, known: dict[Any, Row]):
        self.rows: list[Row] = []
        self._name, self._comparison, self._python, self._known = name, comparison, python, known
        self._words = comparison.words(limit)
        self._limit = limit if self._words != comparison.words(0) else 0
        self._folder = WORK / "rows" / name
        self._data: dict[str, Any] = {}

    def measure(self, seeds: Sequence[int]) -> str | None:
        """All settings of the peer and ours with the first seed, then the chosen setting and ours with the others.

        Returns:
            The chosen setting; None where every one failed.
        """
        self._data = self._write_rows()
        tried = [self._once(self._comparison.peer, setting, seeds[0]) for setting in self._comparison.settings]
        ways = ("", *self._comparison.also)
        for way in ways:
            self._once(OURS, way, seeds[0])
        if all(row.error for row in tried):
            return None
        chosen = choose(tried)
        for seed in seeds[1:]:
            self._once(self._comparison.peer, chosen, seed)
            for way in ways:
                self._once(OURS, way, seed)
        return chosen

    def _write_rows(self) -> dict[str, Any]:
        """The rows as plain files; examples by split, fingerprint, weights."""
        words = [sys.executable, str(HERE / "rows.py"), str(self._folder), *self._words]
        return timed.run(words, WORK, WORK / "logs" / f"{self._name}-rows.txt", {}, LONGEST).answer

    def _once(self, way: str, setting: str, seed: int) -> Row:
        """One training, kept as a row; a failure is a row as well."""
        row = Row(self._name, way, setting, seed, limit=self._limit)
        if row.key in self._known:
            row = self._known[row.key]
            self.rows.append(row)
            return row
        print(f"{self._name}: {way}{setting and f', {setting}'}, seed {seed} …", file=sys.stderr, flush=True)
        folder = WORK / "training"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        log = WORK / "logs" / f"{self._name}-{_plain(way)}-{_plain(setting)}-{seed}.txt"
        try:
            found = (self._ours if way == OURS else self._theirs)(folder, log, setting, seed)
            row = dataclasses.replace(row, **found)
        except timed.Failed as error:
            print(error, file=sys.stderr, flush=True)
            row = dataclasses.replace(row, error=str(error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        row = dataclasses.replace(row, written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
        self.rows.append(row)
        _write([row], append=True)
        if not row.error:
            shown = ", ".join(f"{split} {value:.4f}" for split, value in row.accuracy.items())
            print(f"  {shown}; {row.seconds:.1f} s, training {row.training_seconds:.1f} s", file=sys.stderr, flush=True)
        return row

    def _theirs(self, folder: Path, log: Path, setting: str, seed: int) -> dict[str, Any]:
        """The peer's script in its own environment."""
        words = [str(self._python), str(HERE / self._comparison.script), str(self._folder), self._data["weights"]]
        words += [str(folder), *self._comparison.settings[setting], "--seed", str(seed)]
        run = timed.run(words, folder, log, {"PYTHONPATH": ""}, LONGEST)
        if run.answer["examples"] != self._data["examples"]:
            raise timed.Failed(f"{log}: expected {self._data['examples']} rows. Received: {run.answer['examples']}.")
        return _measured(run, run.answer["accuracy"], run.answer["training_seconds"], self._data["examples"])

    def _ours(self, folder: Path, log: Path, way: str, seed: int) -> dict[str, Any]:
        """The command, with samples at hand and every cache empty."""
        for part in ("packages", "data", "weights"):
            if (cache_folder() / part).is_dir():
                shutil.copytree(cache_folder() / part, folder / "cache" / part, copy_function=_link)
        words = [sys.executable, "-m", "keras_transfer", "fit", "--json"]
        words += [*self._comparison.words(self._limit, way), "--seed", str(seed)]
        run = timed.run(words, folder, log, {"KERAS_TRANSFER_CACHE": str(folder / "cache")}, LONGEST)
        record = json.loads((folder / run.answer["run"] / "run.json").read_text(encoding="utf-8"))
        if record["data"]["fingerprint"] != self._data["fingerprint"]:
            raise timed.Failed(f"{log}: expected the rows that the peer got. Received: other data in {run.answer}.")
        accuracy = {split: scores["accuracy"] for split, scores in run.answer["metrics_by_split"].items()}
        training = sum(run.answer["seconds"].get(part, 0.0) for part in TRAINING)
        return _measured(run, accuracy, training, self._data["examples"])


def _measured(
    run: timed.Timed, accuracy: dict[str, float], training: float, examples: dict[str, int]
) -> dict[str, Any]:
    """The fields of a row."""
    return {
        "seconds": round(run.seconds, 2),
        "training_seconds": round(training, 2),
        "cpu_seconds": round(run.cpu_seconds, 1),
        "peak_megabytes": round(run.peak_megabytes),
        "others": round(run.others, 2),
        "accuracy": {split: round(value, 4) for split, value in accuracy.items()},
        "examples": examples,
    }


def _link(source: str, target: str) -> None:
    """One copy on the disk, where it can be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _plain(text: str) -> str:
    """For the name of a file."""
    return "".join(letter if letter.isalnum() or letter == "." else "_" for letter in text) or "default"


def _read() -> list[Row]:
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def _write(rows: Sequence[Row], append: bool = False) -> None:
    with RESULTS.open("a" if append else "w", encoding="utf-8") as file:
        file.writelines(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())
