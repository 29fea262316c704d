"""FeatureStore: cached features on disk: their form, who may write them, how much space they may take.

Layout of one cache, `<cache>/features/<key>/`: one array a tensor (`t0.npy`, …), `done.npy` (which rows are written),
and `cache.json` (the structure). A row is marked as done only after it was flushed, so that a killed pass goes on where
it stopped. One process at a time fills a cache (`.<key>.fill`); those that use it hold `.<key>.use` together, and what
is held is never evicted.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.feature_arrays import FeatureCache, Leaf
from keras_transfer.samples import cache_folder

try:
    import fcntl
except ImportError:  # Windows: two processes that fill one cache at once write the same rows
    fcntl = None  # type: ignore[assignment]

CACHE_FORMAT = 2
BUDGET_VARIABLE = "KERAS_TRANSFER_CACHE_GB"
BUDGET_SHARE, BUDGET_LIMIT = 0.2, 50e9
"""Without the variable: this share of what the disk could give to the caches, at most so many bytes."""


class CacheTooLarge(OSError):
    """Features would take more than the budget or the disk allows."""


class Store:
    """The caches of one folder, within a budget."""

    def __init__(self, directory: Path | None = None, budget: float | None = None):
        self.directory = directory or cache_folder() / "features"
        self._budget = budget

    def use(self, key: str) -> int:
        """From now on the cache of a key, made or not, is not evicted; the lock, for `hold` or `release`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return _lock(self.directory / f".{key}.use", alone=False, wait=True)

    def fill(self, key: str) -> int:
        """Waits until no other fills the cache of a key; the lock, for `release`."""
        return _lock(self.directory / f".{key}.fill", alone=True, wait=True)

    def open(self, key: str, count: int) -> FeatureCache | None:
        """What is there of a key, complete or not; None where there is nothing to go on with."""
        import tensorflow as tf  # not at the top: the list of caches needs none

        folder = self.directory / key
        try:
            about = json.loads((folder / "cache.json").read_text())
            if about["format"] != CACHE_FORMAT or about["count"] != count:
                return None
            # Reading through a mapping that can be written costs nothing, and a pass may have to go on.
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in about["names"]}
            done = np.load(folder / "done.npy", mmap_mode="r+")
            starts = np.load(folder / "starts.npy") if about["ragged"] else None
            os.utime(folder / "cache.json")
        except (OSError, ValueError, KeyError):
            return None
        template = tf.nest.pack_sequence_as(_from_json(about["template"]), about["names"][: about["features"]])
        return FeatureCache(folder, arrays, template, about["targets"], starts, frozenset(about["ragged"]), done)

    def create(
        self,
        key: str,
        count: int,
        leaves: Sequence[Leaf],
        template: Any,
        *,
        targets: Mapping[str, Leaf] | None = None,
        lengths: np.ndarray | None = None,
        describe: str = "",
    ) -> FeatureCache:
        """Empty arrays for all rows; makes room first.

        Args:
            key: names the folder.
            count: examples.
            leaves: of the features, in the flat order of `template`.
            template: any structure of that form.
            targets: of targets that are stored beside.
            lengths: int [n], where a leaf is ragged.
            describe: one line for people.

        Raises:
            CacheTooLarge: they would not fit into the budget, or onto the disk.
        """
        import tensorflow as tf

        targets = targets or {}
        everything = [*leaves, *targets.values()]
        names = [f"t{number}" for number in range(len(everything))]
        starts = None
        if any(leaf.ragged for leaf in everything):
            assert lengths is not None
            starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        rows = {name: int(starts[-1]) if leaf.ragged else count for name, leaf in zip(names, everything, strict=True)}  # type: ignore[index]
        folder = self.directory / key
        shutil.rmtree(folder, ignore_errors=True)
        self.make_room(sum(rows[name] * leaf.row_bytes() for name, leaf in zip(names, everything, strict=True)))
        folder.mkdir(parents=True)
        for name, leaf in zip(names, everything, strict=True):
            _new_array(folder / f"{name}.npy", leaf.dtype, (rows[name], *leaf.shape))
        _new_array(folder / "done.npy", "bool", (count,))
        if starts is not None:
            np.save(folder / "starts.npy", starts)
        about = {
            "format": CACHE_FORMAT,
            "count": count,
            "names": names,
            "features": len(leaves),
            "ragged": [name for name, leaf in zip(names, everything, strict=True) if leaf.ragged],
            "template": _to_json(tf.nest.map_structure(lambda _: "", template)),
            "targets": dict(zip(targets, names[len(leaves) :], strict=True)),
            "describe": describe,
        }
        beside = folder / "cache.json.tmp"
        beside.write_text(json.dumps(about))
        os.replace(beside, folder / "cache.json")
        cache = self.open(key, count)
        assert cache is not None
        return cache

    def budget(self) -> float:
        """Bytes that all caches together may take.

        Raises:
            ValueError: the variable is not a number.
        """
        if self._budget is not None:
            return self._budget
        chosen = os.environ.get(BUDGET_VARIABLE, "").strip()
        if not chosen:
            existing = next(path for path in (self.directory, *self.directory.parents) if path.exists())
            return min(BUDGET_LIMIT, BUDGET_SHARE * (shutil.disk_usage(existing).free + self.used()))
        try:
            return float(chosen) * 1e9
        except ValueError:
            raise ValueError(f"{BUDGET_VARIABLE}: expected a number of gigabytes. Received: {chosen!r}.") from None

    def used(self) -> int:
        """Bytes that the caches take now."""
        return sum(_size(folder) for folder in self._folders())

    def make_room(self, needed: float) -> None:
        """Removes the caches that were used longest ago until so many bytes fit.

        Raises:
            CacheTooLarge: they do not fit, whatever is removed.
        """
        budget = self.budget()
        advice = (
            f"Set {BUDGET_VARIABLE} higher, KERAS_TRANSFER_CACHE to another disk, or use cache_precision float16 or "
            "cache off."
        )
        if needed > budget:
            raise CacheTooLarge(
                f"The feature cache needs {needed / 1e9:,.2f} GB in {self.directory}. Expected at most "
                f"{budget / 1e9:,.2f} GB. {advice}"
            )
        used = self.used()
        for folder in sorted(self._folders(), key=_last_used):
            if used + needed <= budget:
                break
            used -= self._evict(folder)
        self.directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.directory).free
        if needed > 0.95 * free:
            raise CacheTooLarge(
                f"The feature cache needs {needed / 1e9:,.2f} GB in {self.directory}. Expected so much free space. "
                f"Received: {free / 1e9:,.2f} GB. {advice}"
            )

    def rows(self) -> list[dict[str, Any]]:
        """What is there, last used first: `key`, `describe`, `examples`, `complete`, `megabytes`, `last_used`."""
        found = []
        for folder in sorted(self._folders(), key=_last_used, reverse=True):
            try:
                about = json.loads((folder / "cache.json").read_text())
                complete = bool(np.load(folder / "done.npy", mmap_mode="r").all())
            except (OSError, ValueError):
                about, complete = {}, False
            found.append(
                {
                    "key": folder.name,
                    "describe": about.get("describe", ""),
                    "examples": about.get("count", 0),
                    "complete": complete,
                    "megabytes": round(_size(folder) / 1e6, 1),
                    "last_used": _last_used(folder),
                }
            )
        return found

    def _folders(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        return [path for path in self.directory.iterdir() if path.is_dir() and not path.name.startswith(".")]

    def _evict(self, folder: Path) -> int:
        """Removes one cache that nobody holds; the bytes that were freed."""
        locks = [_lock(self.directory / f".{folder.name}.{kind}", alone=True, wait=False) for kind in ("fill", "use")]
        try:
            if None in locks:
                return 0
            size = _size(folder)
            # Renamed first: nobody may open half of a cache.
            gone = self.directory / f".{folder.name}.{uuid.uuid4().hex[:8]}.gone"
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            return size
        except OSError:
            return 0
        finally:
            for lock in locks:
                release(lock)


def seconds_to_read(arrays: Sequence[np.ndarray]) -> float:
    """Of one batch of what might be kept, in random order, from a file in the folder of the caches.

    That is a read from the system's page cache, as in training where the data fit memory.
    """
    import tensorflow as tf

    folder = Store().directory / f".probe-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        total = 0.0
        for number, array in enumerate(arrays):
            file = folder / f"{number}.npy"
            np.save(file, array)
            table = np.load(file, mmap_mode="r")
            order = np.random.default_rng(0).permutation(len(table))
            started = time.monotonic()
            tf.cast(tf.constant(table[order]), tf.float32 if array.dtype == np.float16 else array.dtype)
            total += time.monotonic() - started
        return total
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hold(cache: FeatureCache, lock: int) -> FeatureCache:
    """Keeps the lock until nobody has the cache any more."""
    if lock >= 0:
        weakref.finalize(cache, os.close, lock)
    return cache


def release(lock: int | None) -> None:
    """Lets a lock go."""
    if lock is not None and lock >= 0:
        os.close(lock)


def _lock(path: Path, alone: bool, wait: bool) -> Any:
    """A file descriptor that holds the lock; None where another holds it and `wait` is False; -1 without locks."""
    if fcntl is None:
        return -1
    # The lock file stays: removing it would let two processes lock two files of one name.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _new_array(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """An array of zeros on disk."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    del array
    # The space is taken at once: a full disk must fail here, and not kill the process while a mapping is written.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                os.posix_fallocate(file.fileno(), 0, size)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


def _last_used(folder: Path) -> float:
    """Seconds since the epoch; 0 for one that cannot be opened."""
    try:
        return (folder / "cache.json").stat().st_mtime
    except OSError:
        return 0.0


def _to_json(template: Any) -> Any:
    """A structure as JSON; integer keys (strides) survive as pairs."""
    if isinstance(template, Mapping):
        return {"pairs": [[key, _to_json(value)] for key, value in template.items()]}
    if isinstance(template, list | tuple):
        return {"items": [_to_json(value) for value in template]}
    return template


def _from_json(plain: Any) -> Any:
    if isinstance(plain, dict) and "pairs" in plain:
        return {key: _from_json(value) for key, value in plain["pairs"]}
    if isinstance(plain, dict):
        return [_from_json(value) for value in plain["items"]]
    return plain
