"""Mask files: masks of any encoding as grey PNGs of class indices, converted once into the cache.

What a pixel's value means is decided over all masks of a source together: a single mask may lack a class.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_transfer.data import files
from keras_transfer.data.findings import DataError, Finding, find
from keras_transfer.samples.cache import build_once, cache_folder

MASK_FORMAT = 1
"""Raised whenever the same masks could be converted to others."""
IGNORED = 255
"""The value of pixels that do not count, in every mask that is handed on."""
MOST_UNNAMED = 64
"""Different values that masks may have where no file names the classes; more are instance ids, or colours blurred by
resizing. A judgement: the data sets with more classes come with their names."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Listing:
    """The classes as a file beside the masks lists them."""

    names: tuple[str, ...] = ()
    """In the order of their indices; empty where nothing lists them."""
    colours: tuple[Colour, ...] = ()
    """The colour of each name, in the same order; empty where masks hold indices."""
    ignored: tuple[Colour, ...] = ()
    """Colours of pixels that do not count."""


@dataclass(frozen=True)
class MaskFile:
    """A mask as it is handed on."""

    path: Path
    size: tuple[int, int]
    """Width and height in pixels."""
    pixels: tuple[int, ...]
    """How many there are of each class, by index; those that do not count are left out."""
    unknown: tuple[tuple[str, int], ...] = ()
    """(value, pixels) of values of no class."""
    problem: str = ""
    """Why the mask cannot be read; "" where it can."""


@dataclass(frozen=True)
class Masks:
    """All masks of a source, with what their values mean."""

    classes: tuple[str, ...]
    by_content: Mapping[bytes, MaskFile]
    findings: Sequence[Finding] = ()


@dataclass
class _Seen:
    """One mask at the first look."""

    colour: bool = False
    values: Counter[int] = field(default_factory=Counter)
    """Pixels by value: an index, or red · 65536 + green · 256 + blue."""
    size: tuple[int, int] = (0, 0)
    plain: bool = False
    """The file is a grey PNG of 8 bits, so that its values are what any decoder gives."""
    problem: str = ""

    @property
    def is_colourful(self) -> bool:
        """Whether it is a colour map, and not grey stored as colour."""
        return self.colour and any(
            value >> 16 != value & 255 or (value >> 8) & 255 != value & 255 for value in self.values
        )

    def in_terms_of(self, colours: bool) -> Counter[int] | None:
        """Pixels by colour or by index; None for a mask of the other kind."""
        if colours or not self.colour:
            return self.values if colours == self.colour else None
        return None if self.is_colourful else Counter({value & 255: count for value, count in self.values.items()})


def pixels_of(indices: np.ndarray, classes: int) -> tuple[int, ...]:
    """How many pixels there are of each class, in an array of indices and `IGNORED`."""
    return tuple(np.bincount(indices.reshape(-1), minlength=256)[:classes].tolist())


def write(path: Path, indices: np.ndarray) -> None:
    """Writes uint8 [H, W] of class indices as a grey PNG."""
    Image.fromarray(indices).save(path, "PNG", compress_level=3)


def convert(masks: Mapping[bytes, Path], listing: Listing, ignore_index: int) -> Masks:
    """All masks of a source as grey PNGs of class indices; those that are so already stay where they are.

    Args:
        masks: file by content, all splits together.
        listing: the classes where a file lists them.
        ignore_index: the value of pixels that do not count, in masks of indices.

    Raises:
        DataError: their values cannot be classes.
    """
    digest = hashlib.blake2b(digest_size=12)
    for piece in (repr((MASK_FORMAT, listing, ignore_index)).encode(), *sorted(masks)):
        digest.update(piece)
    folder = cache_folder() / "masks" / digest.hexdigest()
    build_once(folder, lambda new: _build(new, masks, listing, ignore_index))
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    found = {}
    for key, (file, size, pixels, unknown, problem) in index["masks"].items():
        content = bytes.fromhex(key)
        path = folder / file if file else masks[content]
        found[content] = MaskFile(
            path, (size[0], size[1]), tuple(pixels), tuple((value, count) for value, count in unknown), problem
        )
    findings = [find(kind, "warn", message, mend=mend) for kind, message, mend in index["notes"]]
    return Masks(tuple(index["classes"]), found, findings)


def _build(folder: Path, masks: Mapping[bytes, Path], listing: Listing, ignore_index: int) -> None:
    """Writes the converted masks, and `index.json` beside them."""
    keys = sorted(masks)
    # Where colours are listed, a palette or grey levels are ways to store them.
    as_colours = bool(listing.colours)
    looks = files.in_threads(lambda key: _look(masks[key], as_colours), keys, "reading masks")
    seen = dict(zip(keys, looks, strict=True))
    meaning = _Meaning.of([one for one in seen.values() if not one.problem], listing, ignore_index)

    def row(key: bytes) -> list[Any]:
        one = seen[key]
        values = one.in_terms_of(meaning.colours)
        if one.problem or values is None:
            kinds = ("holds indices", "colour maps") if meaning.colours else ("is a colour map", "indices")
            return ["", one.size, [], [], one.problem or f"it {kinds[0]}, the other masks are {kinds[1]}"]
        unknown = [[meaning.shown(value), count] for value, count in values.most_common() if value not in meaning.index]
        if unknown:
            return ["", one.size, [], unknown[:5], ""]
        pixels = [0] * 256
        for value, count in values.items():
            pixels[meaning.index[value]] += count
        file = ""
        if not one.plain or any(meaning.index[value] != value for value in values):
            file = f"{key.hex()}.png"
            write(folder / file, meaning.apply(_decode(masks[key], as_colours)[0], grey=one.colour))
        return [file, one.size, pixels[: len(meaning.names)], [], ""]

    rows = dict(zip((key.hex() for key in keys), files.in_threads(row, keys, "converting masks"), strict=True))
    content = {"classes": meaning.names, "notes": meaning.notes, "masks": rows}
    (folder / "index.json").write_text(json.dumps(content), encoding="utf-8")


def _look(path: Path, as_colours: bool) -> _Seen:
    """The values of one mask."""
    try:
        values, colour, plain = _decode(path, as_colours)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return _Seen(problem=str(error) or type(error).__name__)
    unique, counts = np.unique(values, return_counts=True)
    size = (values.shape[1], values.shape[0])
    return _Seen(colour, Counter(dict(zip(unique.tolist(), counts.tolist(), strict=True))), size, plain)


def _decode(path: Path, as_colours: bool) -> tuple[np.ndarray, bool, bool]:
    """(integers [H, W], whether they are colours, whether the file is a plain grey PNG).

    Raises:
        ValueError, OSError: it is no image, or one of a form that changes values.
    """
    with Image.open(path) as image:
        if image.format in ("JPEG", "MPO", "JPEG2000"):
            raise ValueError(f"{image.format} changes values when it compresses; write masks as PNG")
        if as_colours or image.mode in ("RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr"):
            pixels = np.asarray(image.convert("RGB")).astype(np.int32)
            return (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2], True, False
        depth = _depth(path) if image.format == "PNG" else 8
        values = np.asarray(image)
        if image.mode in ("1", "P"):
            return values.astype(np.uint8), False, False
        if image.mode == "L" and depth < 8:
            # Pillow spreads grey of 2 and 4 bits over 0-255.
            return (values // (255 // (2**depth - 1))).astype(np.uint8), False, False
        if image.mode == "L":
            return values, False, image.format == "PNG"
        if image.mode.startswith("I") and values.ndim == 2:
            return values.astype(np.int64), False, False
        raise ValueError(f"its pixels are of the form {image.mode}; expected indices or colours of 8 bits")


def _depth(path: Path) -> int:
    """Bits of a PNG's sample: the 25th byte of the file, in the chunk IHDR."""
    with open(path, "rb") as file:
        return file.read(25)[24]


@dataclass(frozen=True)
class _Meaning:
    """What the values of a source's masks mean."""

    names: tuple[str, ...]
    colours: bool
    index: Mapping[int, int]
    """Class index, or `IGNORED`, by value."""
    notes: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def of(cls, seen: Sequence[_Seen], listing: Listing, ignore_index: int) -> _Meaning:
        """Decides it from all masks together."""
        # Grey stored as colour is grey, unless a list says what the colours are; a few of the other kind are faults.
        if listing.colours or 2 * sum(one.is_colourful for one in seen) > len(seen):
            return cls._of_colours(seen, listing)
        used = sorted({value for one in seen for value in one.in_terms_of(False) or ()})
        notes: list[tuple[str, str, str]] = []
        if set(used) <= {0, 255} and 255 in used and ignore_index == 255 and len(listing.names) in (0, 2):
            message = "all masks hold the values 0 and 255 only: 255 is read as class 1, and nothing is ignored"
            mend = "Nothing, if 255 is the object; if its pixels are not to count, write the classes as 0, 1, …"
            notes.append(("binary_masks", message, mend))
            return cls(listing.names or ("0", "1"), False, {0: 0, 255: 1}, tuple(notes))
        wanted = [value for value in used if value != ignore_index]
        if listing.names:
            index = {value: value for value in range(len(listing.names))}
            return cls(listing.names, False, {**index, ignore_index: IGNORED})
        _refuse_many(len(wanted), "values")
        index = {value: number for number, value in enumerate(wanted)}
        return cls(tuple(map(str, wanted)), False, {**index, ignore_index: IGNORED})

    @classmethod
    def _of_colours(cls, seen: Sequence[_Seen], listing: Listing) -> _Meaning:
        """Colours as a list says, or each its own class."""
        if listing.colours:
            index = {_packed(colour): number for number, colour in enumerate(listing.colours)}
            return cls(listing.names, True, {**index, **{_packed(colour): IGNORED for colour in listing.ignored}})
        used = sorted({value for one in seen if one.colour for value in one.values})
        _refuse_many(len(used), "colours")
        if listing.names:
            message = f"the masks are colour maps of {len(used)} colours, and the list of classes says no colours"
            mend = "Write class_dict.csv beside the folder of masks: name,r,g,b and a class a line"
            shown = ", ".join(map(_shown_colour, used[:8]))
            raise DataError(find("unknown_colours", "stop", f"{message}. Received: {shown}", mend=mend))
        message = f"no file lists the classes of the {len(used)} colours of the masks: they are named by their colour"
        mend = "Write class_dict.csv beside the folder of masks: name,r,g,b and a class a line"
        names = tuple(map(_shown_colour, used))
        notes = (("unnamed_colours", message, mend),)
        return cls(names, True, {value: number for number, value in enumerate(used)}, notes)

    def shown(self, value: int) -> str:
        """A value for a message."""
        return _shown_colour(value) if self.colours else str(value)

    def apply(self, values: np.ndarray, grey: bool) -> np.ndarray:
        """uint8 [H, W] of class indices of a mask, all of whose values are known.

        Args:
            values: integers [H, W].
            grey: where indices are meant, whether `values` are grey colours.
        """
        if grey and not self.colours:
            values = values & 255
        known = np.array(sorted(self.index), np.int64)
        indices = np.array([self.index[value] for value in known.tolist()], np.uint8)
        return indices[np.searchsorted(known, values)]


def _packed(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _shown_colour(value: int) -> str:
    return f"#{value:06x}"


def _refuse_many(count: int, what: str) -> None:
    if count > MOST_UNNAMED:
        message = f"the masks hold {count} different {what}, and no file names them"
        mend = (
            "Write the index of the class, not of the instance, into each pixel, and shrink masks without smoothing "
            "(nearest neighbour); so many classes are listed in classes.txt, one name a line"
        )
        raise DataError(find("too_many_mask_values", "stop", message, mend=mend))
