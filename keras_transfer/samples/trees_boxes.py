"""The `trees_boxes` sample: aerial photos with a box around every tree, as Pascal VOC.

The largest photo is cut into the same horizontal bands as for the `trees` sample; the second band validates and all
the others train. The second photo is the test, and a third, small one a further test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from keras_transfer.samples.trees import BANDS, SHIFTED_PHOTO, TRAIN_PHOTO
from keras_transfer.samples.voc import Boxes, read_boxes, write_boxes

SMALL_PHOTO = "OSBS_029"

# A tree cut by a band's edge is kept where at least so much of its box remains: less is rarely recognisable.
KEPT_SHARE = 0.5


def write(files: Path, folder: Path) -> None:
    """Writes `train/`, `validation/`, `test/` and `test_small/`, each with PNG and XML files of the same stems.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    photos = files / "deepforest" / "data"
    with Image.open(photos / f"{TRAIN_PHOTO}.png") as image:
        height = image.height
    edges = np.linspace(0, height, len(BANDS) + 1).round().astype(int)
    second = BANDS.index("validation")
    parts = {"validation": [(int(edges[second]), int(edges[second + 1]))]}
    parts["train"] = [(0, int(edges[second])), (int(edges[second + 1]), height)]
    for split, bands in parts.items():
        for top, bottom in bands:
            _write_part(photos, TRAIN_PHOTO, folder / split, top, bottom)
    _write_part(photos, SHIFTED_PHOTO, folder / "test")
    _write_part(photos, SMALL_PHOTO, folder / "test_small")


def _write_part(photos: Path, photo: str, folder: Path, top: int = 0, bottom: int | None = None) -> None:
    """One horizontal part of a photo (all of it by default) with the boxes in it."""
    with Image.open(photos / f"{photo}.png") as image:
        whole = image.convert("RGB")
    bottom = whole.height if bottom is None else bottom
    part = whole.crop((0, top, whole.width, bottom))
    boxes, names = read_boxes(photos / f"{photo}.xml")
    cut, inside, truncated = cut_boxes(boxes, top, bottom)
    stem = photo if part.size == whole.size else f"{photo}_y{top:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    part.save(folder / f"{stem}.png")
    kept = [names[i] for i in inside]
    write_boxes(folder / f"{stem}.xml", f"{stem}.png", part.size, cut, kept, truncated)


def cut_boxes(boxes: Boxes, top: int, bottom: int) -> tuple[Boxes, list[int], list[bool]]:
    """The boxes in a horizontal part of a photo, in the part's coordinates.

    Args:
        boxes: float64 [n, 4] x_min, y_min, x_max, y_max as edges in the photo's pixels.
        top: first row of the part.
        bottom: row after its last.

    Returns:
        The boxes of which at least half remains, their indices in `boxes`, and whether each was cut.
    """
    moved = boxes - np.array([0, top, 0, top])
    cut = moved.copy()
    cut[:, [1, 3]] = moved[:, [1, 3]].clip(0, bottom - top)
    share = (cut[:, 3] - cut[:, 1]) / (moved[:, 3] - moved[:, 1])
    inside = np.flatnonzero(share >= KEPT_SHARE)
    return cut[inside], inside.tolist(), (share[inside] < 1).tolist()
