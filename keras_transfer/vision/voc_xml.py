"""Pascal VOC annotations: XML files as they are written, with the line of each object.

Form: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html, section 11.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """One object, its numbers still text."""

    name: str
    corners: tuple[str, str, str, str]
    """`SIDES` as written; "" for one that is missing. VOC counts pixels from 1 and includes the last."""
    difficult: bool
    line: int
    """Of its box, from 1."""


@dataclass(frozen=True)
class VocAnnotation:
    """One image's objects."""

    filename: str
    """Of the image; "" where it is not named."""
    size: tuple[str, str]
    """Width and height as written; "" where they are not."""
    objects: tuple[VocObject, ...]


class VocError(ValueError):
    """A file that is no VOC annotation; says what is wrong, and `place` is its line, or `line:column`."""

    def __init__(self, problem: str, place: str):
        self.place = place
        super().__init__(problem)


def read(path: Path) -> VocAnnotation:
    """The annotation in a file.

    Raises:
        VocError: it is no well-formed XML, or its root is not `annotation`.
        OSError: it cannot be read.
    """
    reader = _Reader()
    try:
        reader.parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise VocError(expat.ErrorString(error.code), f"{error.lineno}:{error.offset + 1}") from None
    except (LookupError, ValueError) as error:  # an encoding that Python does not know
        if isinstance(error, VocError):
            raise
        raise VocError(str(error), "1") from None
    named = reader.named
    return VocAnnotation(
        named.get("filename", ""),
        (named.get("size/width", ""), named.get("size/height", "")),
        tuple(
            VocObject(
                found.get("name", ""),
                tuple(found.get(f"bndbox/{side}", "") for side in SIDES),  # type: ignore[arg-type]
                found.get("difficult", "") == "1",
                int(found["line"]),
            )
            for found in reader.objects
        ),
    )


class _Reader:
    """Texts by path below the root; ElementTree would not say on which line an element stands."""

    def __init__(self) -> None:
        self.named: dict[str, str] = {}
        self.objects: list[dict[str, str]] = []
        self._above: list[str] = []
        self._text: list[str] = []
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append

    def _start(self, tag: str, _: dict[str, str]) -> None:
        if not self._above and tag != "annotation":
            raise VocError(f"expected the root <annotation>. Received: <{tag}>", str(self.parser.CurrentLineNumber))
        self._above.append(tag)
        self._text.clear()
        if self._above[1:] == ["object"]:
            self.objects.append({"line": str(self.parser.CurrentLineNumber)})
        elif self._above[1:] == ["object", "bndbox"]:
            self.objects[-1]["line"] = str(self.parser.CurrentLineNumber)

    def _end(self, _: str) -> None:
        inside = self._above[1:]
        self._above.pop()
        text = "".join(self._text).strip()
        self._text.clear()
        if inside[:1] == ["object"] and len(inside) > 1:
            # The parts of an object (heads, hands) have names and boxes too, but lie deeper.
            self.objects[-1].setdefault("/".join(inside[1:]), text)
        elif inside:
            self.named.setdefault("/".join(inside), text)
