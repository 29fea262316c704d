"""Mask drawing: a picture with its classes in colours and a legend, for a person to look at."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_transfer.vision.masks import IGNORE

SMALLEST_SIDE = 512
"""The longer side of the drawing in pixels at least: a small picture is enlarged by a whole number."""
LARGEST_SIDE = 4096
"""The longer side at most, in pixels; a larger picture is shrunk."""
TINT = 0.45
"""How much of the colour lies over the picture; the outline of a class is full."""
BACKGROUNDS = frozenset({"background", "bg", "none", "0"})
"""Names of a first class that stays as it is, so that what lies on it stands out."""
_COLOURS = ((230, 60, 60), (60, 130, 240), (250, 190, 40), (60, 190, 100), (180, 90, 230), (40, 200, 210))
_GOLDEN = 0.618034


def colour(number: int) -> tuple[int, int, int]:
    """RGB, 0-255, of a class: the first ones by hand, further ones spread over the hues."""
    if number < len(_COLOURS):
        return _COLOURS[number]
    hue, value = number * _GOLDEN % 1.0, (0.95, 0.7)[number % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(pixels: np.ndarray, mask: np.ndarray, shares: Mapping[str, float]) -> Image.Image:
    """The picture under its mask.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        mask: uint8 [H, W], class indices.
        shares: by class name, in the order of the indices: the share of the picture, 0 to 1; the legend names those
            that are there.

    Returns:
        An RGB picture with the legend below it.

    Raises:
        ValueError: for a mask of another size than its picture.
    """
    if pixels.shape[:2] != mask.shape:
        raise ValueError(f"mask: expected the picture's size {pixels.shape[:2]}. Received: {mask.shape}.")
    image, classes = _sized(pixels, mask)
    names = list(shares)
    plain = names[:1] and names[0].lower() in BACKGROUNDS
    palette = np.zeros((IGNORE + 1, 3), np.float32)
    for number in range(len(names)):
        palette[number] = colour(number - bool(plain))
    tint = np.full(IGNORE + 1, TINT, np.float32)
    tint[len(names) :] = 0.0
    if plain:
        tint[0] = 0.0
    strength = np.where(_outlines(classes) & (tint[classes] > 0), 1.0, tint[classes])[..., None]
    over = image * (1 - strength) + palette[classes] * strength
    return _with_legend(Image.fromarray(np.rint(over).astype(np.uint8)), shares, palette, bool(plain))


def _sized(pixels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Picture (float32) and mask at a size to look at."""
    longest = max(mask.shape)
    factor = -(-SMALLEST_SIDE // longest) if longest < SMALLEST_SIDE else min(1.0, LARGEST_SIDE / longest)
    size = tuple(max(1, round(side * factor)) for side in mask.shape[::-1])
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _outlines(mask: np.ndarray) -> np.ndarray:
    """Bool [H, W]: the pixels of a class beside another one; two pixels wide, counting both sides."""
    edge = np.zeros(mask.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = mask[one] != mask[other]
        edge[one] |= differs
        edge[other] |= differs
    return edge


def _with_legend(image: Image.Image, shares: Mapping[str, float], palette: np.ndarray, plain: bool) -> Image.Image:
    """The picture with a strip below: a square of each class's colour, its name and its share."""
    height = max(16, min(40, image.width // 30))
    font = ImageFont.load_default(size=height * 0.8)
    entries = [(number, f"{name} {share:.1%}") for number, (name, share) in enumerate(shares.items()) if share > 0]
    gap, x, y = height // 2, height // 2, height // 2
    places = []
    for number, text in entries:
        wide = round(1.4 * height + font.getlength(text)) + gap
        if x > gap and x + wide > image.width:
            x, y = gap, y + height + gap
        places.append((x, y, number, text))
        x += wide + gap
    sheet = Image.new("RGB", (image.width, image.height + y + height + gap), "white")
    sheet.paste(image)
    pen = ImageDraw.Draw(sheet)
    for x, y, number, text in places:
        top = image.height + y
        square = (x, top, x + height - 1, top + height - 1)
        fill = None if plain and number == 0 else tuple(int(value) for value in palette[number])
        pen.rectangle(square, fill=fill, outline="black")
        pen.text((x + 1.4 * height, top + height / 2), text, "black", font, "lm")
    return sheet
