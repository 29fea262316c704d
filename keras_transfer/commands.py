"""What each working command does; every function returns its exit status and what `--json` prints."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_transfer import silence

DONE, FAILED = 0, 1

Result = tuple[int, Any]


class UsageError(ValueError):
    """The words of the command are wrong."""


def fit(options: argparse.Namespace) -> Result:
    """Train, measure and publish."""
    from keras_transfer import recipe as recipes
    from keras_transfer import recipe_faults
    from keras_transfer.progress import Log
    from keras_transfer.recipe_file import load_recipe

    if options.resume and (options.source or options.overrides or options.dry_run):
        raise UsageError("--resume goes on with the run's own recipe; leave SOURCE, fields and --dry-run out")
    if not options.source and not options.resume:
        raise UsageError("expected SOURCE: a recipe file, a folder, a file, tfds:NAME or sample:NAME")
    recipe: Any = ""
    if not options.resume:
        if options.source.endswith(".py"):
            recipe = load_recipe(options.source, options.overrides)
            recipe = recipe if recipe.name else recipes.override(recipe, {"name": Path(options.source).stem})
        else:
            recipe = recipes.override(recipes.Recipe(), {"data.source": options.source, **options.overrides})
        recipe_faults.check(recipe)
    silence.import_tensorflow()
    from keras_transfer import transfer

    if options.dry_run:
        plan = transfer.plan(recipe, log=Log())
        return DONE, plan.to_json()
    run = transfer.fit(recipe, resume=options.resume, log=Log())
    if not options.json:
        _print_run(run)
    return DONE, run.to_json()


def _print_run(run: Any) -> None:
    """The outcome, for a person."""
    for split, scores in run.metrics_by_split.items():
        print(f"{split}: " + "  ".join(_shown(scores)))
    if run.saved_model:
        print(f"exported {run.saved_model}")
        print(f"next: keras-transfer predict {run.saved_model} FILE")
    print(f"run {run.path} ({run.seconds['total']:.0f} s)")


def _shown(scores: dict[str, Any]) -> Iterator[str]:
    """The scores that are plain numbers, with the intervals of those that have one."""
    intervals = scores.get("intervals") or {}
    for name, value in scores.items():
        if isinstance(value, float | int) and not isinstance(value, bool):
            interval = intervals.get(name)
            yield f"{name} {value:.4g}" + (f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else "")


def evaluate(options: argparse.Namespace) -> Result:
    """Score a run or an export on labelled data."""
    silence.import_tensorflow()
    from keras_transfer import evaluation, prediction
    from keras_transfer.data import checks, sources
    from keras_transfer.progress import Log
    from keras_transfer.recipe import override

    log = Log()
    servable = prediction.open_model(options.model)
    recipe = override(servable.recipe, {**options.overrides, "data.source": options.data})
    raw, findings = checks.clean(sources.load(recipe.data, recipe.task), recipe.data, recipe.task)
    checks.refuse(findings)
    split = options.split or ("test" if raw.get("test") else "all")
    if split == "all" and "all" not in raw:
        records = [record for part in raw.values() for record in part]
    elif split in raw:
        records = list(raw[split])
    else:
        known = dict.fromkeys([*raw, "all"])
        raise ValueError(f"--split: expected one of {', '.join(known)}. Received: {split!r}.")
    references = servable.task.references(records, servable.labels)
    with log.bar(f"scoring {split}", len(records)) as update:
        outputs = prediction.outputs_of(servable, records, update)
    predictions = servable.task.from_outputs(outputs, servable.labels)
    metrics = evaluation.scores_with_intervals(servable.task, predictions, references, servable.labels)
    if not options.json:
        print(f"{split}: {len(records):,} examples  " + "  ".join(_shown(metrics)))
    return DONE, {
        "model": str(servable.path),
        "data": options.data,
        "split": split,
        "examples": len(records),
        "metrics": metrics,
    }


def predict(options: argparse.Namespace) -> Result:
    """Answer for files, folders or lines; one JSON line an input."""
    if options.output and Path(options.output).suffix not in (".csv", ".jsonl"):
        raise UsageError(f"--output: expected a file that ends in .csv or .jsonl. Received: {options.output!r}")
    if "-" in options.inputs and sys.stdin is None:
        raise UsageError("-: expected lines on standard input. Received: standard input is closed")
    silence.import_tensorflow()
    from keras_transfer import prediction

    servable = prediction.open_model(options.model)
    inputs = servable.task.read_inputs(options.inputs)
    if not inputs:
        raise ValueError(f"INPUT: expected at least one input. Received: nothing to answer for in {options.inputs}.")
    errors = 0
    answers = []
    for row in prediction.predict(servable, inputs, Path(options.draw) if options.draw else None):
        errors += "error" in row
        answers.append(row)
        if not options.output:
            print(_line(row, sys.stdout.encoding), flush=True)
    if options.output:
        _write_rows(Path(options.output), answers)
    if errors:
        print(f"{errors} of {len(answers)} inputs could not be answered", file=sys.stderr)
    result: dict[str, Any] = {"inputs": len(answers), "errors": errors, "output": options.output}
    if not options.output:
        result["predictions"] = answers
    return FAILED if errors else DONE, result


def _line(row: dict[str, Any], encoding: str | None) -> str:
    """One answer as JSON, in ASCII where the reader's encoding lacks a letter."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows to a file, beside and renamed."""
    beside = path.with_name(f".{path.name}.tmp")
    # A file's name may be no text in UTF-8; it is then written as the bytes that it is.
    with beside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(_line(row, "utf-8") + "\n" for row in rows)
        else:
            flat = [_flat(row) for row in rows]
            columns = sorted(dict.fromkeys(name for row in flat for name in row), key=lambda name: name == "error")
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(flat)
    os.replace(beside, path)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """One answer as columns: `probabilities` by label get a column each."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": part for key, part in value.items()}
        else:
            flat[name] = json.dumps(value) if isinstance(value, list) else value
    return flat


def export(options: argparse.Namespace) -> Result:
    """Publish a run as a new version."""
    silence.import_tensorflow()
    from keras_transfer import run_export, run_record

    run = run_record.load(options.run)
    version = run_export.publish_again(run, options.to)
    if not options.json:
        print(f"exported {version}")
    return DONE, {"run": str(run.path), "saved_model": str(version)}


def check(options: argparse.Namespace) -> Result:
    """Say what is wrong with the data."""
    silence.import_tensorflow()
    from keras_transfer.data import checks
    from keras_transfer.recipe import Recipe, override

    recipe = override(Recipe(), {"data.source": options.data, **options.overrides})
    findings = checks.inspect(recipe.data, recipe.task)
    if not options.json:
        for finding in findings:
            print(f"{finding.severity}  {finding}")
        if not findings:
            print("nothing is wrong")
    stops = sum(finding.severity == "stop" for finding in findings)
    result = {"data": options.data, "findings": [finding.to_json() for finding in findings]}
    return FAILED if stops else DONE, result
