"""The commands that only list: runs, caches, layers, backbones, tasks, samples; as `commands`, status and JSON."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_transfer import silence
from keras_transfer.commands import DONE, Result


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
