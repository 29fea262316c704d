"""The `nuclei` sample: a microscope image of cell nuclei as tiles with masks; the right half is the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

TILE = 128
"""Side of a tile in pixels."""
TRAINING_STEP = 64
"""From one training tile to the next: half of each is in the next, so that nuclei on a border are whole in another."""


def write(files: Path, folder: Path) -> None:
    """Writes `train/`, `validation/` and `test/`, each with `images/` and `masks/` of PNG files with the same stems.

    The names of the classes are in `classes.txt`.

    A mask is grey: 1 for a nucleus, 0 for the background. The left half trains, in tiles that overlap, but for its
    lower left tile, which validates; no pixel is in two splits. The tiles for the test lie side by side.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    source = files / "stardist" / "data" / "images"
    with Image.open(source / "img2d.tif") as image, Image.open(source / "mask2d.tif") as mask:
        pixels, instances = np.asarray(image), np.asarray(mask)
    if pixels.max() > 255:
        raise ValueError(f"{source / 'img2d.tif'}: expected grey levels up to 255. Received: up to {pixels.max()}.")
    (folder / "classes.txt").write_text("background\nnucleus\n", encoding="utf-8")
    height, width = pixels.shape
    half, corner = width // 2, height - TILE
    training = [
        (x, y)
        for y in range(0, corner + 1, TRAINING_STEP)
        for x in range(0, half - TILE + 1, TRAINING_STEP)
        if x >= TILE or y + TILE <= corner
    ]
    test = [(x, y) for y in range(0, corner + 1, TILE) for x in range(half, width - TILE + 1, TILE)]
    for split, places in (("train", training), ("validation", [(0, corner)]), ("test", test)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for x, y in places:
            place = np.s_[y : y + TILE, x : x + TILE]
            tiles = {"images": pixels[place].astype(np.uint8), "masks": (instances[place] > 0).astype(np.uint8)}
            for kind, tile in tiles.items():
                Image.fromarray(tile).save(folder / split / kind / f"nuclei_x{x:03d}_y{y:03d}.png")
