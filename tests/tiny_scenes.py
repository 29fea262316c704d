"""Tiny made scenes for detection and segmentation: coloured squares and discs on grey, boxes and masks known."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("disc", "square")
COLOURS = ((220, 60, 40), (40, 90, 220))


@dataclass(frozen=True)
class Scene:
    """One picture with all that is known of it."""

    image: Image.Image
    boxes: tuple[tuple[float, float, float, float], ...]
    """x_min, y_min, x_max, y_max as edges in pixels."""
    labels: tuple[str, ...]
    mask: Image.Image
    """Grey: 0 background, 1 disc, 2 square."""


def draw_scene(width: int, height: int, seed: int | Sequence[int], count: int = 2) -> Scene:
    """A picture with so many objects, of both classes in turn, that do not overlap.

    Args:
        width: in pixels, at least 32.
        height: in pixels, at least 32.
        seed: of places, sizes and noise.
        count: how many objects; fewer where there is no room left.
    """
    random = np.random.default_rng(seed)
    pixels = 128 + random.normal(0, 6, (height, width, 3))
    mask = np.zeros((height, width), np.uint8)
    boxes, labels = [], []
    down, across = np.mgrid[0:height, 0:width] + 0.5
    for number in range(count):
        for _ in range(50):
            side = int(random.integers(min(width, height) // 4, min(width, height) // 2))
            left, top = int(random.integers(0, width - side + 1)), int(random.integers(0, height - side + 1))
            if not mask[top : top + side, left : left + side].any():
                break
        else:
            continue
        kind = number % 2
        inside = (across > left) & (across < left + side) & (down > top) & (down < top + side)
        if kind == 0:
            inside &= (across - left - side / 2) ** 2 + (down - top - side / 2) ** 2 < (side / 2) ** 2
        pixels[inside] = np.array(COLOURS[kind]) + random.normal(0, 6, (int(inside.sum()), 3))
        mask[inside] = kind + 1
        boxes.append((float(left), float(top), float(left + side), float(top + side)))
        labels.append(CLASSES[kind])
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return Scene(image, tuple(boxes), tuple(labels), Image.fromarray(mask))


def write_voc(folder: Path, count: int, seed: int = 0, width: int = 72, height: int = 64) -> Path:
    """PNG files with Pascal VOC's XML beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        scene = draw_scene(width, height, [seed, number])
        name = f"{number:03d}"
        scene.image.save(folder / f"{name}.png")
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = f"{name}.png"
        for (left, top, right, bottom), label in zip(scene.boxes, scene.labels, strict=True):
            one = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(one, "name").text = label
            box = ElementTree.SubElement(one, "bndbox")
            # VOC counts from 1 and includes the last pixel.
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, top + 1, right, bottom), strict=True):
                ElementTree.SubElement(box, side).text = str(int(value))
        ElementTree.ElementTree(root).write(folder / f"{name}.xml")
    return folder


def write_masks(folder: Path, count: int, seed: int = 0, width: int = 72, height: int = 64) -> Path:
    """`images/` and `masks/` of the same stems, and the names of the classes."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        scene = draw_scene(width, height, [seed, number])
        scene.image.save(folder / "images" / f"{number:03d}.png")
        scene.mask.save(folder / "masks" / f"{number:03d}.png")
    (folder / "classes.txt").write_text("\n".join(("background", *CLASSES)) + "\n", encoding="utf-8")
    return folder
