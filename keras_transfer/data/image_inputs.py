"""Image inputs: the pictures that `predict` was pointed at."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_transfer.data.records import Record
from keras_transfer.vision import headers


def image_inputs(words: Sequence[str]) -> list[tuple[str, Record | str]]:
    """Files, folders (their images, sorted) and `-` (paths, one a line of standard input), in order.

    Returns:
        The path as it was given, with a record of it, or with what is wrong with the file.
    """
    return [(name, _record(Path(name))) for word in words for name in _paths(word)]


def _paths(word: str) -> Iterator[str]:
    if word == "-":
        yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    elif os.path.isdir(word):
        for folder, folders, files in os.walk(word):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if Path(name).suffix.lower() in headers.EXTENSIONS and not name.startswith("."):
                    yield os.path.join(folder, name)
    else:
        yield word


def _record(path: Path) -> Record | str:
    """The picture, or what is wrong with it by its header."""
    problem = headers.describe(path).problem
    return problem if problem else Record(str(path), {"image": str(path)}, str(path))
