"""What each command does; every function returns its exit status and what `--json` prints."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
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
        recipes.check(recipe)
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
    for row in prediction.predict(servable, inputs):
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


def runs(options: argparse.Namespace) -> Result:
    """List the runs, side by side."""
    from keras_transfer.run_record import list_runs

    found = list_runs(options.directory)
    if not options.json:
        _print_table([_run_row(run) for run in found])
        if not found:
            print(f"no runs in {options.directory}")
    return DONE, {"runs": [{**run.to_json(), "status": run.status, "error": run.error} for run in found]}


def _run_row(run: Any) -> dict[str, Any]:
    """What tells one run from another, and its first scores."""
    scores = [(name, value) for name, value in run.metrics.items() if isinstance(value, float)][:3]
    return {
        "run": run.path,
        "status": run.status,
        "task": run.task,
        "backbone": run.backbone,
        "examples": run.data.get("examples", {}).get("train", ""),
        "head": run.recipe.head.epochs if run.recipe.head.solver == "gradient" else run.recipe.head.solver,
        "fine_tune": f"{run.recipe.fine_tune.trainable} x {run.recipe.fine_tune.epochs}",
        "scores": "  ".join(f"{name} {value:.4f}" for name, value in scores) or run.error,
        "seconds": f"{run.seconds.get('total', 0):.0f}",
    }


def cache(options: argparse.Namespace) -> Result:
    """List, size and clear caches."""
    from keras_transfer.feature_store import Store
    from keras_transfer.samples import cache_folder

    base = cache_folder()
    kinds = sorted(path.name for path in base.iterdir() if path.is_dir()) if base.exists() else []
    if options.clear:
        chosen = kinds if options.clear == "all" else [options.clear]
        unknown = [kind for kind in chosen if kind not in kinds]
        if unknown:
            raise ValueError(f"--clear: expected one of {', '.join([*kinds, 'all'])}. Received: {unknown[0]!r}.")
        for kind in chosen:
            shutil.rmtree(base / kind)
        kinds = [kind for kind in kinds if kind not in chosen]
    rows = [{"kind": kind, "megabytes": round(_bytes(base / kind) / 1e6, 1)} for kind in kinds]
    store = Store()
    features, budget = store.rows(), round(store.budget() / 1e6)
    if not options.json:
        print(base)
        for row in rows:
            print(f"  {row['kind']:<12} {row['megabytes']:>10,.1f} MB")
        if features:
            print(f"features, last used first; at most {budget:,} MB (KERAS_TRANSFER_CACHE_GB), then the oldest go:")
        for row in features:
            unfinished = "" if row["complete"] else ", unfinished"
            print(f"  {row['megabytes']:>10,.1f} MB  {row['describe']} ({row['examples']:,} examples{unfinished})")
    return DONE, {"folder": str(base), "caches": rows, "features": features, "features_budget_megabytes": budget}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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


def layers(options: argparse.Namespace) -> Result:
    """Blocks and layers of a backbone, and what `trainable` accepts."""
    silence.import_tensorflow()
    from keras_transfer import backbones as loading
    from keras_transfer import freezing
    from keras_transfer.recipe import BackboneSpec

    backbone = loading.load(BackboneSpec(name=options.backbone, weights="none"))
    rows = [dataclasses.asdict(row) for row in freezing.describe(backbone)]
    result = {"backbone": backbone.name, "image_size": backbone.image_size, "blocks": rows}
    if options.trainable:
        paths = freezing.apply(backbone, options.trainable)
        sizes = {variable.path: math.prod(variable.shape) for variable in backbone.model.variables}
        result["trainable"] = {"toggle": options.trainable, "parameters": sum(sizes[path] for path in paths)}
    if not options.json:
        _print_layers(result, rows)
    return DONE, result


def _print_layers(result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Blocks with their layers, and what each toggle would train."""
    from keras_transfer.freeze_policy import FORMS

    for row in rows:
        toggles = f"last:{row['last']} or from:{row['name']} trains {row['trains']:,}"
        print(f"{row['name']}  ({row['parameters']:,} parameters; {toggles})")
        for layer in row["layers"]:
            print(f"    {layer['name']:<40} {layer['kind']:<24} {layer['parameters']:>12,}")
    print(f"trainable takes: {FORMS}")
    if "trainable" in result:
        print(f"{result['trainable']['toggle']}: {result['trainable']['parameters']:,} parameters of the backbone")


def backbones(options: argparse.Namespace) -> Result:
    """List the backbones."""
    from keras_transfer.text import families as texts
    from keras_transfer.vision import families

    columns = ("name", "family", "parameters", "image_size", "sequence_length")
    images = [(*row[:4], None) for row in families.names()]
    rows = [
        dict(zip(columns, row, strict=True))
        for row in (*images, *((name, family, size, None, length) for name, family, size, length in texts.names()))
    ]
    if not options.json:
        _print_table(rows)
    return DONE, {"backbones": rows}


def tasks(options: argparse.Namespace) -> Result:
    """List the tasks."""
    from keras_transfer.tasks import TASKS

    rows = [{"task": name, "title": title} for name, (_, _, title) in TASKS.items()]
    if not options.json:
        _print_table(rows)
    return DONE, {"tasks": rows}


def samples(options: argparse.Namespace) -> Result:
    """List the samples."""
    from keras_transfer.samples import SAMPLES

    rows = [
        {
            "sample": sample.name,
            "kind": sample.kind,
            "task": sample.task,
            "title": sample.title,
            "licence": sample.licence,
            "megabytes": sample.megabytes,
        }
        for sample in SAMPLES.values()
    ]
    if not options.json:
        _print_table(rows)
    return DONE, {"samples": rows}


def _print_table(rows: Iterable[dict[str, Any]]) -> None:
    """Rows of equal keys, for a person: columns that no width cuts, so that a name can be copied from them."""
    rows = list(rows)
    if not rows:
        return
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
