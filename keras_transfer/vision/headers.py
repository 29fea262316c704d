"""What an image file is, from its header alone: format, size, frames, and whether the decoder will read it rightly.

The format is told by the first bytes, never by the file's ending. No pixel is decoded, so that a file that would
unpack to gigabytes is found before it does; and neither TensorFlow nor Pillow is imported.

Layouts: JPEG ITU T.81 annex B; PNG W3C 2003; GIF89a; BMP [MS-WMF] 2.2.2.9 and later headers; WebP RFC 9649.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from keras_transfer.vision import formats

EXTENSIONS = formats.EXTENSIONS
"""All endings, in lower case with the dot, by which a file in a folder counts as an image."""

MAX_PIXELS = 200_000_000
"""An image above this is refused: decoded, it takes more than 600 MB. The largest camera sensors have 150 million."""


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says."""

    format: str
    """`JPEG`, `PNG`, `GIF`, `BMP`, `WEBP`; the name of a format that is refused; "" where none is recognised."""
    width: int = 0
    """In pixels as stored, before the Exif orientation; 0 where the header does not say."""
    height: int = 0
    frames: int = 1
    """Frames of an animation; only the first is used."""
    mode: str = ""
    """Colours as stored: `L`, `LA`, `P`, `RGB`, `RGBA`, `CMYK`, with `;16` for 16-bit values."""
    problem: str | None = None
    """What keeps the decoder from reading the file rightly, and the mend; None where nothing does."""


class _Damaged(Exception):
    """The header ends early or contradicts itself."""


def describe(path: str | os.PathLike[str]) -> ImageHeader:
    """Reads the header of an image file.

    Args:
        path: the file; its ending does not matter.

    Returns:
        The header. `problem` is a text for people, without the path, for a file that TensorFlow's decoder would fail
        on or would read wrongly, and for one above `MAX_PIXELS`. A file can still be damaged behind its header.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _describe(file)
    except FileNotFoundError:
        return ImageHeader("", problem=f"there is no such file. Correct the path. Received: {str(path)!r}")
    except IsADirectoryError:
        return ImageHeader("", problem=f"expected a file. Received the folder {str(path)!r}")
    except OSError as error:
        return ImageHeader("", problem=f"the file cannot be read: {error.strerror}. Check its permissions and its disk")


def _describe(file: BinaryIO) -> ImageHeader:
    """The header of an open file."""
    start = file.read(132)
    if not start:
        return ImageHeader("", problem=f"the file is empty. {formats.FETCH}")
    name = formats.recognise(start)
    readers = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "BMP": _bmp, "WEBP": _webp}
    if name not in readers:
        return ImageHeader(name, problem=formats.refusal(name, start))
    try:
        header = readers[name](file)
    except _Damaged as error:
        return ImageHeader(name, problem=f"the {name} file is damaged: {error}. {formats.FETCH}")
    if header.problem is None and header.width * header.height > MAX_PIXELS:
        size = f"{header.width}×{header.height} pixels, {header.width * header.height / 1e6:.0f} million"
        mend = "Shrink it or cut it into tiles"
        problem = f"the image is too large: {size}; expected at most {MAX_PIXELS / 1e6:.0f} million. {mend}"
        return ImageHeader(header.format, header.width, header.height, header.frames, header.mode, problem)
    return header


def _take(file: BinaryIO, count: int, what: str = "its header ends early") -> bytes:
    """Exactly so many bytes."""
    piece = file.read(count)
    if len(piece) < count:
        raise _Damaged(what)
    return piece


def _length(file: BinaryIO) -> int:
    """The size of the file in bytes."""
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(here)
    return end


def _sized(width: int, height: int) -> tuple[int, int]:
    """The size, if there can be such an image."""
    if width < 1 or height < 1:
        raise _Damaged(f"its header says {width}×{height} pixels")
    return width, height


def _jpeg(file: BinaryIO) -> ImageHeader:
    """Walks the segments to the frame header and, unless the file is cut off, the scan."""
    file.seek(2)
    header = None
    while True:
        if _take(file, 1) != b"\xff":
            raise _Damaged("its segments do not follow each other")
        marker = _take(file, 1)[0]
        while marker == 0xFF:
            marker = _take(file, 1)[0]
        if marker == 0xD9:
            raise _Damaged("it ends before its pixels")
        length = struct.unpack(">H", _take(file, 2))[0]
        if length < 2:
            raise _Damaged("a segment has no length")
        if marker == 0xDA:
            break
        payload = _take(file, length - 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            header = _jpeg_frame(marker, payload)
    if header is None:
        raise _Damaged("it has no frame header")
    if header.problem is None and not _has_end(file, b"\xff\xd9"):
        raise _Damaged("it is cut off")
    return header


def _jpeg_frame(marker: int, payload: bytes) -> ImageHeader:
    """The header from a JPEG frame header (SOF)."""
    if len(payload) < 6:
        raise _Damaged("its frame header is too short")
    bits, height, width, channels = struct.unpack(">BHHB", payload[:6])
    _sized(width, height)
    problem = None
    if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        problem = f"TensorFlow cannot decode lossless or hierarchical JPEG. {formats.CONVERT}"
    elif bits != 8:
        problem = f"TensorFlow cannot decode JPEG of {bits} bits a colour; expected 8. {formats.CONVERT}"
    elif channels not in (1, 3, 4):
        problem = f"TensorFlow cannot decode JPEG of {channels} colour channels; expected 1, 3 or 4. {formats.CONVERT}"
    return ImageHeader("JPEG", width, height, mode={1: "L", 3: "RGB", 4: "CMYK"}.get(channels, ""), problem=problem)


def _has_end(file: BinaryIO, mark: bytes) -> bool:
    """Whether an end mark stands behind the current position; looks at the file's tail first, where it usually is."""
    start, end = file.tell(), _length(file)
    file.seek(max(start, end - 4096))
    if mark in file.read():
        return True
    file.seek(start)
    return mark in file.read()


def _png(file: BinaryIO) -> ImageHeader:
    """Reads IHDR, then the chunks before the pixels for the number of frames."""
    file.seek(8)
    kind = _take(file, 8)[4:]
    if kind == b"CgBI":
        problem = f"this is Apple's variant of PNG (CgBI), which TensorFlow cannot decode. {formats.CONVERT}"
        return ImageHeader("PNG", problem=problem)
    if kind != b"IHDR":
        raise _Damaged("it does not begin with its header chunk")
    width, height, bits, colour = struct.unpack(">IIBB", _take(file, 10))
    _sized(width, height)
    modes = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
    if colour not in modes:
        raise _Damaged(f"its header names colour type {colour}")
    file.seek(8 + 25)
    frames = 1
    while True:
        length, kind = struct.unpack(">I4s", _take(file, 8, "it ends before its pixels"))
        if kind == b"acTL":
            frames = struct.unpack(">I", _take(file, 4))[0]
            file.seek(-4, os.SEEK_CUR)
        if kind in (b"IDAT", b"IEND"):
            break
        file.seek(length + 4, os.SEEK_CUR)
    if kind == b"IEND":
        raise _Damaged("it has no pixels")
    if not _has_end(file, b"IEND\xaeB`\x82"):
        raise _Damaged("it is cut off")
    return ImageHeader("PNG", width, height, max(1, frames), modes[colour] + (";16" if bits == 16 else ""))


def _gif(file: BinaryIO) -> ImageHeader:
    """Walks the blocks: counts the frames and looks where the first one lies on the canvas."""
    file.seek(6)
    width, height, flags = struct.unpack("<HHB", _take(file, 7)[:5])
    _sized(width, height)
    file.seek(_colours(flags), os.SEEK_CUR)
    frames, problem = 0, None
    while (block := file.read(1)) not in (b"", b"\x3b"):
        try:
            if block == b"\x2c":
                left, top, wide, high, flags = struct.unpack("<HHHHB", _take(file, 9))
                if frames == 0 and (left, top, wide, high) != (0, 0, width, height):
                    problem = (
                        "the first frame of the GIF does not fill its canvas, which TensorFlow ignores. "
                        + formats.CONVERT
                    )
                file.seek(_colours(flags) + 1, os.SEEK_CUR)
            elif block == b"\x21":
                file.seek(1, os.SEEK_CUR)
            else:
                break
            while size := _take(file, 1, "it is cut off")[0]:
                file.seek(size, os.SEEK_CUR)
        except _Damaged:
            if frames == 0:
                raise
            break
        frames += block == b"\x2c"
    if frames == 0:
        raise _Damaged("it has no pixels")
    return ImageHeader("GIF", width, height, frames, "P", problem)


def _colours(flags: int) -> int:
    """Bytes of the colour table that these flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(file: BinaryIO) -> ImageHeader:
    """Reads the size from the first chunk, and counts the frames of an animation."""
    file.seek(4)
    declared = struct.unpack("<I", _take(file, 4))[0] + 8
    if _length(file) < declared:
        raise _Damaged("it is cut off")
    file.seek(12)
    kind = _take(file, 8)[:4]
    body = _take(file, 10)
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        alpha, animated = bool(body[0] & 0x10), bool(body[0] & 0x02)
    elif kind == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        alpha, animated = bool(packed >> 28 & 1), False
    elif kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", body[6:]))
        alpha, animated = False, False
    else:
        raise _Damaged("it does not begin with an image chunk")
    _sized(width, height)
    mode = "RGBA" if alpha else "RGB"
    if not animated:
        return ImageHeader("WEBP", width, height, 1, mode)
    frames, position = 0, 12
    while position + 8 <= declared:
        file.seek(position)
        kind, length = struct.unpack("<4sI", _take(file, 8))
        frames += kind == b"ANMF"
        position += 8 + length + length % 2
    return ImageHeader(
        "WEBP", width, height, frames, mode, f"TensorFlow cannot decode animated WebP. {formats.CONVERT}"
    )


def _bmp(file: BinaryIO) -> ImageHeader:
    """Reads the header and, of an 8-bit BMP, the palette."""
    file.seek(10)
    offset, header_size = struct.unpack("<II", _take(file, 8))
    if header_size == 12:
        width, height, _, bits = struct.unpack("<HHHH", _take(file, 8))
        _sized(width, height)
        return ImageHeader("BMP", width, height, problem=f"TensorFlow cannot decode BMP of OS/2. {formats.CONVERT}")
    width, height, _, bits, compression = struct.unpack("<iiHHI", _take(file, 16))
    file.seek(12, os.SEEK_CUR)
    colours = struct.unpack("<II", _take(file, 8))[0] or 256
    _sized(width, abs(height))
    masks = _take(file, 12) if compression in (3, 6) else b""
    mode, problem = {8: "L", 24: "RGB", 32: "RGBA"}.get(bits, "P" if bits < 8 else "RGB"), None
    if bits not in (8, 24, 32):
        problem = f"TensorFlow cannot decode BMP of {bits} bits a pixel; expected 24 or 32"
    elif compression not in (0, 3, 6) or (masks and masks != struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)):
        problem = "TensorFlow cannot decode BMP that is compressed or has its colours in another order"
    elif bits == 8:
        file.seek(14 + header_size)
        palette = _take(file, 4 * min(colours, 256))
        if any(palette[4 * index : 4 * index + 3] != bytes((index,) * 3) for index in range(min(colours, 256))):
            mode, problem = "P", "TensorFlow reads the colours of a BMP with a palette wrongly"
    rows = (width * bits + 31) // 32 * 4 * abs(height)
    if problem is None and _length(file) < offset + rows:
        raise _Damaged("it is cut off")
    if problem is None and _length(file) > offset + rows:
        problem = "TensorFlow cannot decode BMP with further bytes behind its pixels"
    return ImageHeader("BMP", width, abs(height), 1, mode, problem and f"{problem}. {formats.CONVERT}")
