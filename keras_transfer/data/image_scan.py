"""One pass over images: header, decoding as training does it, and a thumbnail by which near duplicates are found.

What was found is kept in the cache by content, so that a file is decoded for its checks once and not at each `fit`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_transfer.data import files
from keras_transfer.data.near_duplicates import COLUMNS, ROWS
from keras_transfer.data.pipeline import untuned
from keras_transfer.data.records import Record
from keras_transfer.progress import Log
from keras_transfer.samples.cache import SampleError, cache_folder, make_folder
from keras_transfer.vision import formats, headers, images

SCAN_FORMAT = 1
"""Raised whenever the same file could give another result."""
_SIDE = 16
"""Side of the square that is decoded, in pixels: a JPEG is then decoded at 1/8 scale from 256 pixels on, which reads
all of its data all the same."""
_BATCH = 64
_BY_PATH = "path:"
_COLUMNS = "content, format, width, height, frames, mode, problem, thumbnail"
_BAR_FROM = 500  # images; decoding as many small ones takes about a second
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601

_Seen = tuple[headers.ImageHeader, bytes]
"""A header, and the bytes of a thumbnail (none where there is a problem)."""


@dataclass(frozen=True)
class Scan:
    """What was found, one entry a record."""

    headers: list[headers.ImageHeader]
    """With `problem` also for what only decoding shows."""
    thumbnails: np.ndarray
    """uint8 [n, 8, 9], grey; zeros where there is a problem."""


def scan(records: Sequence[Record]) -> Scan:
    """Reads and decodes the image of every record, each content once."""
    known: dict[str, _Seen] = {}
    first: dict[str, str] = {}
    keys = [_key(record) for record in records]
    for key, record in zip(keys, records, strict=True):
        first.setdefault(key, record.fields["image"])
    with _Kept() as kept:
        known.update(kept.read(list(first)))
        new = {key: path for key, path in first.items() if key not in known}
        for key, header, thumbnail in _decode_all(list(new), list(new.values())):
            known[key] = header, thumbnail
            kept.add(key, header, thumbnail)
    thumbnails = np.zeros((len(records), ROWS * COLUMNS), np.uint8)
    for index, key in enumerate(keys):
        if thumbnail := known[key][1]:
            thumbnails[index] = np.frombuffer(thumbnail, np.uint8)
    return Scan([known[key][0] for key in keys], thumbnails.reshape(-1, ROWS, COLUMNS))


def _key(record: Record) -> str:
    """What equal files share: the content, or the path of a file whose content nobody hashed."""
    return record.content.hex() or f"{_BY_PATH}{record.fields['image']}"


def _decode_all(keys: Sequence[str], paths: Sequence[str]) -> Iterator[tuple[str, headers.ImageHeader, bytes]]:
    """(key, header, thumbnail) of each file."""
    described = list(files.in_threads(headers.describe, paths, "reading image headers"))
    sound = [index for index, header in enumerate(described) if header.problem is None]
    for index, header in enumerate(described):
        if header.problem is not None:
            yield keys[index], header, b""
    left = set(sound)
    with Log(quiet=len(sound) < _BAR_FROM).bar("checking images", len(sound)) as update:
        for indices, thumbnails in _thumbnails(paths, sound):
            for index, thumbnail in zip(indices.tolist(), thumbnails, strict=True):
                left.discard(index)
                yield keys[index], described[index], thumbnail.tobytes()
            update(len(sound) - len(left), "")
    for index in sorted(left):
        header, problem = described[index], _why_not(paths[index])
        size = (header.format, header.width, header.height, header.frames, header.mode)
        yield keys[index], headers.ImageHeader(*size, problem=problem), b""


def _thumbnails(paths: Sequence[str], chosen: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices, uint8 [b, 8, 9]) of the files that can be decoded, in any order; the others are left out."""
    if not chosen:
        return
    with tf.device("CPU:0"):
        given = (np.asarray(chosen, np.int64), [paths[index] for index in chosen])
        dataset = tf.data.Dataset.from_tensor_slices(given)
        dataset = dataset.map(lambda i, p: (i, _thumbnail(p)), tf.data.AUTOTUNE, deterministic=False)
        # Before the batches: one bad file then costs itself only.
        dataset = untuned(dataset.ignore_errors().batch(_BATCH).prefetch(1))
        yield from dataset.as_numpy_iterator()


def _thumbnail(path: tf.Tensor) -> tf.Tensor:
    """uint8 [8, 9]: grey cells of one file."""
    square = images.load(tf.io.read_file(path), _SIDE, "stretch")
    grey = tf.tensordot(square, tf.constant(_GREY), 1)[..., tf.newaxis]
    small = tf.image.resize(grey, (ROWS, COLUMNS), antialias=True)[..., 0]
    return tf.cast(tf.round(tf.clip_by_value(small, 0.0, 255.0)), tf.uint8)


def _why_not(path: str) -> str:
    """Why a file whose header is sound cannot be decoded."""
    try:
        _thumbnail(tf.constant(path))
    except tf.errors.OpError as error:
        reason = (error.message or type(error).__name__).split("} ")[-1].split(" [Op:")[0].splitlines()[0]
        return f"TensorFlow cannot decode it: {reason[:200]}. {formats.FETCH}"
    return "TensorFlow could decode it only at the second try. Check the disk that it is on"


class _Kept:
    """Results of earlier scans, by content, in one SQLite file; without it where the cache cannot be written."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, int, int, int, str, str | None, bytes]] = []
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> _Kept:
        folder = cache_folder() / "checks"
        with contextlib.suppress(sqlite3.Error, SampleError, OSError):
            make_folder(folder)
            self._database = sqlite3.connect(folder / f"images-{SCAN_FORMAT}-{tf.__version__}.sqlite", timeout=20)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS scan (content TEXT PRIMARY KEY, format TEXT, width INTEGER, "
                "height INTEGER, frames INTEGER, mode TEXT, problem TEXT, thumbnail BLOB) WITHOUT ROWID"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        if self._database is not None:
            self._database.close()

    def read(self, keys: Sequence[str]) -> dict[str, _Seen]:
        """What is known of some files."""
        found: dict[str, _Seen] = {}
        if self._database is None:
            return found
        with contextlib.suppress(sqlite3.Error):
            for start in range(0, len(keys), 500):
                some = [key for key in keys[start : start + 500] if not key.startswith(_BY_PATH)]
                marks = ",".join("?" * len(some))
                for key, *header, thumbnail in self._database.execute(
                    f"SELECT {_COLUMNS} FROM scan WHERE content IN ({marks})",
                    some,
                ):
                    found[key] = headers.ImageHeader(*header), thumbnail
        return found

    def add(self, key: str, header: headers.ImageHeader, thumbnail: bytes) -> None:
        """Keeps one result; a file known by its path alone may change."""
        if not key.startswith(_BY_PATH):
            size = (header.format, header.width, header.height, header.frames, header.mode, header.problem)
            self._rows.append((key, *size, thumbnail))
        if len(self._rows) >= 4096:
            self._flush()

    def _flush(self) -> None:
        if self._database is not None and self._rows:
            with contextlib.suppress(sqlite3.Error), self._database:
                self._database.executemany("INSERT OR REPLACE INTO scan VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._rows)
        self._rows = []
