"""Formats of image files: their usual endings, and which one a file has by its first bytes."""

from __future__ import annotations

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
}
"""The usual endings of the formats that are decoded."""
REFUSED_ENDINGS = (
    *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".ico", ".svg", ".tga", ".pcx"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".dcm", ".raw", ".dng", ".cr2", ".nef", ".arw"),
)
"""Endings of images that TensorFlow has no decoder for: they count as images, so that they are refused by name."""
EXTENSIONS = frozenset(REFUSED_ENDINGS).union(*ENDINGS.values())
"""All endings, in lower case with the dot, by which a file in a folder counts as an image."""

CONVERT = "Convert it to PNG or JPEG, for example with Pillow: Image.open(path).convert('RGB').save('copy.png')"
FETCH = "Fetch or copy the file again, or remove it"
"""Mends that messages end in."""

_DECODED = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
)
"""(position, bytes, format) of files that TensorFlow decodes."""
_FOREIGN = (
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftypavi", "AVIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\1\0", "ICO"),
    (128, b"DICM", "DICOM"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\3\4", "ZIP"),
    *((0, b"P%d" % number + blank, "PNM") for number in range(1, 8) for blank in (b"\n", b" ", b"\r", b"\t")),
)
"""(position, bytes, format) of files that TensorFlow does not decode."""


def recognise(start: bytes) -> str:
    """The format of a file.

    Args:
        start: its first 132 bytes, or all where it is shorter.

    Returns:
        A key of `ENDINGS`, the name of a format that TensorFlow does not decode, or "" for neither.
    """
    for position, magic, name in (*_DECODED, *_FOREIGN):
        if start[position : position + len(magic)] == magic and not _misleads(name, start):
            return name
    return ""


def _misleads(name: str, start: bytes) -> bool:
    """Whether these bytes only begin like this format: words begin with BM, and other RIFF files exist."""
    return (name == "BMP" and _is_text(start)) or (name == "WEBP" and not start.startswith(b"RIFF"))


def refusal(name: str, start: bytes) -> str:
    """The problem with a file of no format that is decoded."""
    if name in ("PDF", "ZIP"):
        return f"the file is a {name} file and not an image. Take the images out of it, or remove it"
    if name:
        return f"TensorFlow cannot decode {name} images. {CONVERT}"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:5].lower() in (b"<?xml", b"<svg ", b"<svg>") and b"<svg" in start.lower():
        return f"the file is an SVG drawing; expected pixels. {CONVERT.split(', for')[0]}"
    if text[:1] == b"<":
        return f"the file is an HTML or XML page and not an image (often a failed download). {FETCH}"
    if _is_text(start):
        return "the file is text and not an image. Remove it, or correct the path"
    known = ", ".join(ENDINGS)
    return f"the file is no image that is known: expected {known}. Received the first bytes {start[:8]!r}. {FETCH}"


def _is_text(start: bytes) -> bool:
    """Whether these bytes are text in UTF-8."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return False
        text = start[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter.isspace() for letter in text)
