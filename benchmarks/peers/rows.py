"""Rows: the very examples that `keras-transfer fit` would use, written as plain files for another tool.

    python benchmarks/peers/rows.py FOLDER sample:digits --data.limit 1000

Run in the project's environment. Images become FOLDER/SPLIT/CLASS/*.png, texts FOLDER/SPLIT.csv with the columns text
and label. Prints one JSON object: examples by split, the fingerprint that the run of `fit` states as well, and the
folder of the pretrained weights.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_transfer import silence
from keras_transfer.recipe import Recipe, override
from keras_transfer.recipe_file import load_recipe, parse_overrides


def main() -> int:
    """Writes them."""
    if len(sys.argv) < 3:
        print("usage: rows.py FOLDER SOURCE [--field value …]", file=sys.stderr)
        return 2
    folder, source, *words = sys.argv[1:]
    print(json.dumps(write(Path(folder), source, words)))
    return 0


def write(folder: Path, source: str, words: Sequence[str]) -> dict[str, Any]:
    """The rows of one recipe.

    Args:
        folder: made, or emptied first.
        source: a recipe file or a source of data, as `fit` takes it.
        words: fields of the recipe with their values, as `fit` takes them.

    Returns:
        `examples` by split, `fingerprint`, `weights` (a folder), `labels`.
    """
    overrides = parse_overrides(words)
    if source.endswith(".py"):
        recipe = load_recipe(source, overrides)
    else:
        recipe = override(Recipe(), {"data.source": source, **overrides})
    silence.import_tensorflow()
    from keras_transfer.prepared import prepare, recipe_of
    from keras_transfer.progress import Log
    from keras_transfer.samples import weights_folder

    found = prepare(recipe_of(recipe, {})[0], Log(quiet=True))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for split, records in found.splits.named():
        (_write_images if "image" in records[0].fields else _write_texts)(folder / split, records)
    return {
        "examples": {name: len(records) for name, records in found.splits.named()},
        "fingerprint": found.splits.fingerprint,
        "weights": str(weights_folder(found.recipe.backbone.name)),
        "labels": list(found.labels.names),
    }


def _write_images(folder: Path, records: Sequence[Any]) -> None:
    """A copy of each file, named by its number, in the folder of its class."""
    for number, record in enumerate(records):
        source = Path(record.fields["image"])
        target = folder / record.fields["label"] / f"{number:06d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _write_texts(folder: Path, records: Sequence[Any]) -> None:
    """One table a split."""
    with folder.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((record.fields["text"], record.fields["label"]) for record in records)


if __name__ == "__main__":
    raise SystemExit(main())
