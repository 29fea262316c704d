"""The `nuclei` sample: a microscope image of cell nuclei as tiles with masks; the right half is the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

TILE = 128
"""Side of a tile in pixels."""


def write(files: Path, folder: Path) -> None:
    """Writes `train/`, `validation/` and `test/`, each with `images/` and `masks/` of PNG files with the same stems.

    The names of the classes are in `classes.txt`.

    A mask is grey: 1 for a nucleus, 0 for the background. The left half trains, but for its lowest row of tiles, which
    validates.

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
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            split = "test" if x >= width // 2 else "validation" if y + TILE >= height else "train"
            place = np.s_[y : y + TILE, x : x + TILE]
            tiles = {"images": pixels[place].astype(np.uint8), "masks": (instances[place] > 0).astype(np.uint8)}
            for kind, tile in tiles.items():
                target = folder / split / kind
                target.mkdir(parents=True, exist_ok=True)
                Image.fromarray(tile).save(target / f"nuclei_x{x:03d}_y{y:03d}.png")
