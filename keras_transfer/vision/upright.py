"""The size of an image turned upright, from its header alone; boxes and masks are in pixels of the upright image.

As `orientation` reads it in the graph, but from a file and without TensorFlow.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from keras_transfer.vision import formats, headers

_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4
_EXIF = b"Exif\0\0"
_MAX_EXIF_BYTES = 65536
_MAX_SEGMENTS = 512


def size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Width and height in pixels of the upright image; None for a file that `headers.describe` finds a problem in."""
    header = headers.describe(path)
    if header.problem is not None:
        return None
    turned = orientation(path) >= 5
    return (header.height, header.width) if turned else (header.width, header.height)


def orientation(path: str | os.PathLike[str]) -> int:
    """What the Exif block of an image file asks for, from 1 (upright) to 8; 1 where there is none or it is damaged."""
    try:
        with open(path, "rb") as file:
            name = formats.recognise(file.read(132))
            find = {"JPEG": _in_jpeg, "PNG": _in_png, "WEBP": _in_webp}.get(name)
            start = find(file) if find else -1
            if start < 0:
                return 1
            file.seek(start)
            return _first_directory(file.read(_MAX_EXIF_BYTES))
    except OSError:
        return 1


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    """Bytes at a position, filled up with zeros."""
    file.seek(position)
    return file.read(count).ljust(count, b"\0")


def _in_jpeg(file: BinaryIO) -> int:
    """Where the Exif block of a JPEG starts; -1 for none."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        head = _at(file, position, 4 + len(_EXIF))
        marker = head[1]
        if head[0] != 0xFF or 0xC0 <= marker <= 0xCF or 0xD9 <= marker <= 0xDF:
            return -1
        if marker == 0xE1 and head[4:] == _EXIF:
            return position + 4 + len(_EXIF)
        position += 1 if marker == 0xFF else 2 + int.from_bytes(head[2:4], "big")
    return -1


def _in_png(file: BinaryIO) -> int:
    """Where the payload of the chunk eXIf starts; -1 where the pixels come first."""
    position = 8
    for _ in range(_MAX_SEGMENTS):
        head = _at(file, position, 8)
        if head[4:] == b"eXIf":
            return position + 8
        if head[4:] in (b"IDAT", b"IEND", bytes(4)):
            return -1
        position += 12 + int.from_bytes(head[:4], "big")
    return -1


def _in_webp(file: BinaryIO) -> int:
    """Where the payload of the chunk EXIF starts; -1 for none."""
    position = 12
    for _ in range(_MAX_SEGMENTS):
        head = _at(file, position, 8 + len(_EXIF))
        if head[:4] == b"EXIF":
            return position + 8 + (len(_EXIF) if head[8:] == _EXIF else 0)
        if head[:4] == bytes(4):
            return -1
        length = int.from_bytes(head[4:8], "little")
        position += 8 + length + length % 2
    return -1


def _first_directory(block: bytes) -> int:
    """The orientation in the first TIFF directory of an Exif block."""
    order = "little" if block[:1] == b"I" else "big"

    def number(position: int, count: int) -> int:
        return int.from_bytes(block[position : position + count].ljust(count, b"\0"), order)  # type: ignore[arg-type]

    directory = number(4, 4)
    for entry in range(min(number(directory, 2), _MAX_EXIF_BYTES // 12)):
        position = directory + 2 + 12 * entry
        kind = number(position + 2, 2)
        if number(position, 2) == _ORIENTATION_TAG and kind in (_SHORT, _LONG):
            value = number(position + 8, 4 if kind == _LONG else 2)
            return value if 1 <= value <= 8 else 1
    return 1
