"""Box plan: how a detector looks at images, whole or in tiles and at which stride, decided from the training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_transfer.vision.tiles import Tiling

SMALLEST = 16.0
"""Pixels of the input that three quarters of the objects should take; else larger images are looked at in tiles."""
COMFORTABLE = 80.0
"""Pixels of a tile that the middle object should take. On the sample `trees_boxes`, after three epochs, 82 scored 0.36
on validation, 58 scored 0.32, in half the time."""
LARGEST_SCALE = 2.0
"""Enlarging further shows nothing new."""
LARGEST_SHARE = 0.5
"""Of a tile's side that nearly all objects fit into, or tiles are no way to look at them."""
FINE_BELOW = 24.0
"""Pixels of the input: where the middle object takes less, three cells of the coarser map, the finer one is taken. On
the sample `trees_boxes`, at 58 pixels, it scored 0.275 against 0.322 on validation, at half again the time."""
SCALE_JITTER = 0.25

# By training examples (photos or tiles): epochs of the head phase and of fine-tuning.
EPOCHS = ((100, 5, 30), (300, 3, 16), (1_000, 1, 8), (10_000, 2, 12))
EPOCHS_MANY = (1, 6)


@dataclass(frozen=True)
class BoxPlan:
    """How a detector looks at images; the options of the task."""

    tile_scale: float = 0.0
    """Pixels of a tile for one of the image; 0: images are fitted to the input whole."""
    tile_overlap: int = 0
    """What neighbouring tiles share, in pixels of a tile."""
    stride: int = 8
    """Of the map that answers, in pixels of the input."""
    typical_side: float = 40.0
    """Of an object, in pixels of the input."""
    typical_objects: float = 1.0
    """In an input, on average: what the loss is divided by, so that each object weighs the same."""
    scale_jitter: float = SCALE_JITTER
    """The largest random change of scale in training, as a share."""

    def options(self) -> dict[str, Any]:
        """As a recipe keeps them."""
        return asdict(self)

    def tiling(self, side: int) -> Tiling | None:
        """How images are cut for inputs of that side; None where they are taken whole."""
        return Tiling(side, self.tile_scale, min(self.tile_overlap, side // 2)) if self.tile_scale else None

    def examples(self, sizes: Sequence[tuple[int, int]], side: int) -> int:
        """How many training examples images of those sizes (height, width) make."""
        tiling = self.tiling(side)
        return len(sizes) if tiling is None else sum(tiling.count(*size) for size in sizes)

    def describe(self, side: int) -> str:
        """One line for a person."""
        tiling = self.tiling(side)
        look = f"images are fitted whole into {side}×{side} pixels"
        if tiling is not None:
            look = (
                f"images are looked at in tiles of {side}×{side} pixels at {self.tile_scale:g} times their size, "
                f"{tiling.overlap} pixels shared by neighbours"
            )
        return (
            f"{look}; the middle object takes {self.typical_side:.0f} pixels there; answers every {self.stride} pixels"
        )


def from_options(options: Mapping[str, Any]) -> BoxPlan:
    """The plan that the options describe, defaults where they say nothing.

    Raises:
        ValueError: for values out of range.
    """
    defaults = BoxPlan()
    return BoxPlan(
        tile_scale=_number(options, "tile_scale", defaults.tile_scale, 0, 16),
        tile_overlap=int(_number(options, "tile_overlap", defaults.tile_overlap, 0, 1 << 14)),
        stride=int(_number(options, "stride", defaults.stride, 4, 32)),
        typical_side=_number(options, "typical_side", defaults.typical_side, 1, 1 << 14),
        typical_objects=_number(options, "typical_objects", defaults.typical_objects, 1e-3, 1 << 14),
        scale_jitter=_number(options, "scale_jitter", defaults.scale_jitter, 0, 3),
    )


def plan(
    sizes: Sequence[tuple[int, int]], boxes: Sequence[np.ndarray], side: int, options: Mapping[str, Any]
) -> BoxPlan:
    """Decides what the options leave open.

    Args:
        sizes: height and width in pixels of each training image.
        boxes: float32 [n, 4] of each of them, in its pixels.
        side: of the input in pixels.
        options: of the recipe.
    """
    given = from_options(options)
    objects = [np.maximum(part[:, 2:] - part[:, :2], 0.0) for part in boxes]
    shrink = np.concatenate([np.full(len(part), side / max(size)) for part, size in zip(objects, sizes, strict=True)])
    extents = np.concatenate([np.zeros((0, 2)), *objects])
    typical, longest = np.sqrt(extents.prod(1)), extents.max(1, initial=0.0)
    if not len(typical):
        return given
    scale = given.tile_scale
    if "tile_scale" not in options:
        scale = _tile_scale(typical, longest, shrink, side, max(max(size) for size in sizes))
    overlap = 0
    if scale:
        # An object no larger than the overlap is whole in the tile that answers for it.
        overlap = int(np.clip(np.quantile(longest, 0.95) * scale, side / 8, side * LARGEST_SHARE))
    seen = float(np.median(typical * (scale or shrink)))
    return BoxPlan(
        tile_scale=scale,
        tile_overlap=given.tile_overlap if "tile_overlap" in options else overlap,
        stride=given.stride if "stride" in options else 4 if seen < FINE_BELOW else 8,
        typical_side=given.typical_side if "typical_side" in options else round(max(seen, 1.0), 1),
        typical_objects=given.typical_objects
        if "typical_objects" in options
        else _objects(sizes, len(typical), side, scale),
        scale_jitter=given.scale_jitter,
    )


def epochs(examples: int) -> tuple[int, int]:
    """Of the head phase and of fine-tuning, for so many training examples."""
    return next(((head, tune) for most, head, tune in EPOCHS if examples < most), EPOCHS_MANY)


def _tile_scale(typical: np.ndarray, longest: np.ndarray, shrink: np.ndarray, side: int, largest_image: int) -> float:
    """Pixels of a tile for one of the image; 0 where whole images do."""
    if np.quantile(typical * shrink, 0.25) >= SMALLEST:
        return 0.0
    scale = min(COMFORTABLE / float(np.median(typical)), LARGEST_SCALE)
    scale = min(scale, LARGEST_SHARE * side / float(np.quantile(longest, 0.98)))
    # Tiles pay where they show objects at least twice as large as the whole image would.
    if scale * largest_image < 2 * side:
        return 0.0
    return float(f"{scale:.2g}")


def _objects(sizes: Sequence[tuple[int, int]], objects: int, side: int, scale: float) -> float:
    """How many objects an input shows on average."""
    reach = side / scale if scale else float("inf")
    shown = float(np.mean([min(height, reach) * min(width, reach) for height, width in sizes]))
    area = sum(height * width for height, width in sizes)
    return float(f"{max(objects * shown / area, 0.1):.3g}")


def _number(options: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    """A number among the options; a command line gives it as text."""
    value = options.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not least <= number <= most:
        raise ValueError(f"options.{name}: expected a number from {least:g} to {most:g}. Received: {value!r}.")
    return number
