"""Read and write the boxes of a Pascal VOC annotation."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_transfer.vision import voc_xml

Boxes = NDArray[np.float64]
"""float64 [n, 4]: x_min, y_min, x_max, y_max in pixels, as edges: a box of one pixel in the corner is 0, 0, 1, 1."""


def read_boxes(path: Path) -> tuple[Boxes, list[str]]:
    """The boxes and classes of a Pascal VOC file of a package, in its order.

    Args:
        path: the XML file; it is taken to be sound, since its hash was checked.

    Returns:
        float64 [n, 4] x_min, y_min, x_max, y_max as edges in pixels, and n class names.
    """
    objects = voc_xml.read(path).objects
    corners = [[float(text) for text in one.corners] for one in objects]
    # VOC counts pixels from 1 and includes the last: the first edges are one less than written.
    boxes = np.array(corners, np.float64).reshape(-1, 4) - np.array([1, 1, 0, 0])
    return boxes, [one.name for one in objects]


def write_boxes(
    path: Path, image: str, size: tuple[int, int], boxes: Boxes, names: Sequence[str], truncated: Sequence[bool]
) -> None:
    """Writes a Pascal VOC file.

    Args:
        path: the XML file.
        image: name of the image file.
        size: its width and height in pixels.
        boxes: float64 [n, 4] x_min, y_min, x_max, y_max as edges in pixels.
        names: n class names.
        truncated: for each box, whether the object goes on beyond the image.
    """
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = image
    sizes = ElementTree.SubElement(root, "size")
    for tag, number in zip(("width", "height", "depth"), (*size, 3), strict=True):
        ElementTree.SubElement(sizes, tag).text = str(number)
    written = (boxes + np.array([1, 1, 0, 0])).round().astype(int)
    for corners, name, cut in zip(written, names, truncated, strict=True):
        element = ElementTree.SubElement(root, "object")
        for tag, text in (("name", name), ("truncated", str(int(cut))), ("difficult", "0")):
            ElementTree.SubElement(element, tag).text = text
        box = ElementTree.SubElement(element, "bndbox")
        for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            ElementTree.SubElement(box, tag).text = str(number)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
