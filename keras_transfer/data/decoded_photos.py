"""Decoded photos: pixels of large photos, decoded once and kept on disk, since each of their tiles would decode all.

They lie in the cache folder as plain arrays, named by the content of the file, and are read through memory maps, so
that memory does not grow with the data. Those used longest ago go when the budget is full.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_transfer.data.records import Record
from keras_transfer.samples.cache import cache_folder, make_folder
from keras_transfer.vision import images

BUDGET_SHARE = 0.25
"""Of the free space, with what is kept already, that decoded photos may take. Photos beyond it are decoded anew for
each tile, which is slow but right."""
LEFTOVER_AFTER_S = 24 * 3600.0
"""Age from which a half-written file belongs to a process that was killed."""
OPEN_MAPS = 64
"""Memory maps held open: each keeps a file descriptor."""


class DecodedPhotos:
    """Read access to the pixels of some records' photos, by their number.

    Args:
        records: with `image`, the path of the file.
        sizes: height and width of each upright photo in pixels.
        directory: where the arrays are kept; None is `decoded` in the cache folder.
        budget: bytes that they may take; None is a quarter of what is free.
    """

    def __init__(
        self,
        records: Sequence[Record],
        sizes: Sequence[tuple[int, int]],
        directory: Path | None = None,
        budget: float | None = None,
    ):
        self._records, self._sizes = records, sizes
        self._directory = directory or cache_folder() / "decoded"
        make_folder(self._directory)
        for partial in self._directory.glob("*.partial"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > LEFTOVER_AFTER_S:
                    partial.unlink()
        self._budget = budget if budget is not None else BUDGET_SHARE * (self._free() + self.used())
        self._lock = threading.Lock()  # the pipeline asks from several threads
        self._open: OrderedDict[int, np.ndarray] = OrderedDict()
        self._mine: set[Path] = set()

    def used(self) -> int:
        """Bytes of all decoded photos now."""
        return sum(size for _, size, _ in self._kept())

    def region(self, number: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """uint8 [height, width, 3]: a part of an upright photo, RGB.

        Raises:
            ValueError: the photo is not of the size that it had when its boxes were read.
        """
        with self._lock:
            pixels = self._pixels(int(number))
        return np.ascontiguousarray(pixels[y : y + height, x : x + width])

    def _pixels(self, number: int) -> np.ndarray:
        """uint8 [H, W, 3] of a photo; a memory map where it fits the budget."""
        found = self._open.get(number)
        if found is not None:
            return found
        record, path = self._records[number], self._file(number)
        if not path.exists():
            pixels = images.decode(tf.io.read_file(record.fields["image"])).numpy()
            self._checked(pixels, number)
            if not self._make_room(pixels.nbytes):
                return pixels
            beside = path.with_name(f"{path.stem}-{uuid.uuid4().hex[:8]}.partial")
            with open(beside, "wb") as file:
                np.save(file, pixels)
            os.replace(beside, path)
        try:
            found = np.load(path, mmap_mode="r")
            os.utime(path)
        except FileNotFoundError:  # another process made room just now
            return images.decode(tf.io.read_file(record.fields["image"])).numpy()
        self._checked(found, number)
        self._mine.add(path)
        self._open[number] = found
        while len(self._open) > OPEN_MAPS:
            self._open.popitem(last=False)
        return found

    def _file(self, number: int) -> Path:
        """By content where the record knows it; else by path, size and time of the file."""
        record = self._records[number]
        name = record.content.hex()
        if not name:
            image = Path(record.fields["image"]).resolve()
            about = image.stat()
            name = hashlib.blake2b(f"{image}|{about.st_size}|{about.st_mtime_ns}".encode(), digest_size=16).hexdigest()
        return self._directory / f"{name}.npy"

    def _checked(self, pixels: np.ndarray, number: int) -> None:
        if pixels.shape[:2] != tuple(self._sizes[number]):
            raise ValueError(
                f"{self._records[number].where}: expected a photo of {self._sizes[number]} pixels (height, width). "
                f"Received: {pixels.shape[:2]}. Do not change photos while they are trained on."
            )

    def _make_room(self, needed: int) -> bool:
        """Removes what was used longest ago, but for this object's own; whether so many bytes fit."""
        kept = sorted(self._kept())
        total = sum(size for _, size, _ in kept)
        for _, size, file in kept:
            if total + needed <= self._budget:
                break
            if file not in self._mine:
                total -= size
                file.unlink(missing_ok=True)
        return total + needed <= self._budget and needed < self._free()

    def _kept(self) -> list[tuple[float, int, Path]]:
        """When each decoded photo was last used, its bytes, and its file."""
        found = []
        for file in self._directory.glob("*.npy"):
            with contextlib.suppress(FileNotFoundError):  # another process made room just now
                about = file.stat()
                found.append((about.st_mtime, about.st_size, file))
        return found

    def _free(self) -> int:
        return shutil.disk_usage(self._directory).free
