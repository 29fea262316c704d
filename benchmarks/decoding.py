"""Decoded images kept on disk, against decoding in each epoch: JPEG photos of realistic size, to 224 px.

    python benchmarks/decoding.py [--quick]

A pass over the training examples, augmented, by the pipeline that a training reads; no network. The photos are windows
of the aerial photo of the `trees_boxes` sample, which has the detail of photos, written as JPEG of quality 90.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measuring import Row, Sample, in_turn
from PIL import Image
from subjects import subject

from keras_transfer import decoded_images
from keras_transfer.data.pipeline import training_batches
from keras_transfer.samples import data_folder

SIZES = ((640, 480), (1280, 960), (2240, 1400))
PHOTOS, SIDE = 128, 224


def measure(quick: bool, chosen: str = "") -> Iterator[Row]:
    """One row a size of photo."""
    for width, height in SIZES[: 1 if quick else None]:
        with TemporaryDirectory() as folder:
            count = 32 if quick else PHOTOS
            megabytes = _write_photos(Path(folder) / "photos", count, width, height)
            yield _row(Path(folder), count, f"{width} x {height}", megabytes, 1 if quick else 5)


def _row(folder: Path, count: int, what: str, megabytes: float, repeats: int) -> Row:
    fields = {
        "data.source": str(folder / "photos"),
        "task": "image_classification",
        "data.augment": "light",
        "data.validation_share": 0.0,
        "data.test_share": 0.0,
        "backbone.name": "mobilenet",
        "backbone.weights": "none",
        "backbone.image_size": SIDE,
    }
    live = subject(fields).examples["train"]
    kept = decoded_images.keep(live, directory=folder / "features")

    def way(examples):  # type: ignore[no-untyped-def]
        def one_epoch(sample: Sample, repeat: int) -> None:
            batches = training_batches(examples, 32, repeat)
            for _ in batches.dataset.take(batches.steps):
                pass

        return one_epoch

    pair = [next(iter(training_batches(examples, 32, 0).dataset))["inputs"]["pixels"] for examples in (live, kept)]
    assert np.array_equal(*pair)
    found = in_turn({"theirs": way(live), "ours": way(kept)}, repeats)
    note = f"{count} photos of {megabytes / count:.2f} MB, kept as {4e-6 * 3 * SIDE**2:.2f} MB each; equal bit by bit"
    return Row(
        f"an epoch of reading, {what} JPEG to {SIDE} px, augmented",
        "decoding",
        "",
        found["ours"],
        found["theirs"],
        note,
    )


def _write_photos(folder: Path, count: int, width: int, height: int) -> float:
    """Two classes of JPEG photos; their size in megabytes."""
    largest = max(data_folder("trees_boxes").rglob("*.png"), key=lambda path: path.stat().st_size)
    photo = Image.open(largest).convert("RGB")
    random, total = np.random.default_rng(0), 0.0
    for number in range(count):
        left, top = (
            int(random.integers(0, side - wanted + 1)) for side, wanted in zip(photo.size, (width, height), strict=True)
        )
        place = folder / ("left" if left + width / 2 < photo.size[0] / 2 else "right")
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{number}.jpg"
        photo.crop((left, top, left + width, top + height)).save(file, quality=90)
        total += file.stat().st_size / 1e6
    return total


if __name__ == "__main__":
    from run import main

    raise SystemExit(main(["decoding"]))
