"""Drawing: boxes with their classes on a picture that a person looks at."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

GOLDEN = 0.618033988749895  # spreads numbers evenly over the circle of hues
TEXT_SHARE = 0.022  # height of the letters as a share of the picture's shorter side
SMALLEST_TEXT, LARGEST_TEXT = 10, 28
FEW = 60  # with more boxes their names would hide the picture


def draw_boxes(
    image: Path,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[str],
    scores: Sequence[float],
    path: Path,
) -> None:
    """Writes the upright picture with the boxes on it, as PNG.

    Args:
        image: the picture.
        boxes: x_min, y_min, x_max, y_max of each box in pixels of the upright picture.
        labels: class of each box.
        scores: 0 to 1, of each box.
        path: the file to write.
    """
    with Image.open(image) as opened:
        canvas = ImageOps.exif_transpose(opened).convert("RGB")
    pen = ImageDraw.Draw(canvas)
    short = min(canvas.size)
    font = ImageFont.load_default(min(max(short * TEXT_SHARE, SMALLEST_TEXT), LARGEST_TEXT))
    width = max(1, round(short / 400))
    # The best last, so that it lies on top.
    for box, label, score in sorted(zip(boxes, labels, scores, strict=True), key=lambda one: one[2]):
        colour = colour_of(label)
        left, top, right, bottom = (round(edge) for edge in box)
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=width)
        if len(boxes) <= FEW:
            _write(pen, f"{label} {score:.2f}", (left, top), font, colour)
    canvas.save(path, format="PNG")


def colour_of(label: str) -> tuple[int, int, int]:
    """RGB, 0-255: a bright colour, the same for a class in every picture."""
    red, green, blue = colorsys.hsv_to_rgb(zlib.crc32(label.encode()) * GOLDEN % 1.0, 0.9, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _write(pen: ImageDraw.ImageDraw, text: str, at: tuple[int, int], font: ImageFont.ImageFont, colour: tuple) -> None:
    """The text on a plate of the box's colour, above the corner where there is room."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    high = bottom - top + 4
    x, y = at[0], at[1] - high if at[1] >= high else at[1]
    pen.rectangle((x, y, x + right - left + 4, y + high), fill=colour)
    pen.text((x + 2 - left, y + 2 - top), text, fill=(0, 0, 0), font=font)
