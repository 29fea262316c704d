"""Image files of a source: listed below a folder, and found by the name or the stem that an annotation gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keras_transfer.data import files
from keras_transfer.vision import formats


def below(folder: Path) -> dict[str, Path]:
    """The images below a folder by their relative path without ending, in natural order.

    Of two images with the same stem the first counts.
    """
    found: dict[str, Path] = {}
    for path in files.walk(folder):
        if path.suffix.lower() in formats.EXTENSIONS:
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def folder_named(parent: Path, *names: str) -> Path | None:
    """The first subfolder with one of these names, in any case."""
    if not parent.is_dir():
        return None
    folders = {path.name.lower(): path for path in files.entries(parent)[0]}
    return next((folders[name] for name in names if name in folders), None)


class Finder:
    """Finds images by name in some folders, else by stem; the folder of the last find is tried first."""

    def __init__(self, folders: Sequence[Path]):
        self._folders = list(dict.fromkeys(folders))
        self._stems: dict[Path, dict[str, Path]] = {}

    def find(self, name: str, *stems: str) -> Path | None:
        """The image of that name, which may hold folders; else the first of one of these stems; None for none."""
        # Annotations made elsewhere hold paths of that machine: the last part is tried where the whole is nowhere.
        parts = name.replace("\\", "/")
        for wanted in dict.fromkeys((parts, parts.rpartition("/")[2])):
            if not wanted:
                continue
            for folder in self._folders:
                if (folder / wanted).is_file():
                    self._first(folder)
                    return folder / wanted
        for stem in stems:
            for folder in self._folders:
                if path := self._by_stem(folder).get(stem):
                    return path
        return None

    def _first(self, folder: Path) -> None:
        if self._folders[0] != folder:
            self._folders.remove(folder)
            self._folders.insert(0, folder)

    def _by_stem(self, folder: Path) -> dict[str, Path]:
        if folder not in self._stems:
            inside = files.entries(folder)[1] if folder.is_dir() else []
            images = [path for path in inside if path.suffix.lower() in formats.EXTENSIONS]
            self._stems[folder] = {path.stem: path for path in reversed(images)}
        return self._stems[folder]
