"""The cache folder, and folders in it that are made once: whole or not at all, also with several processes."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

try:
    import fcntl
except ImportError:  # Windows: two processes may then both make a folder; the first to finish wins
    fcntl = None  # type: ignore[assignment]

VARIABLE = "KERAS_TRANSFER_CACHE"


class SampleError(ValueError):
    """A sample could not be made ready; the message says what, where and the mend."""


def cache_folder() -> Path:
    """The folder for downloads and all that is made of them.

    It is the environment variable KERAS_TRANSFER_CACHE, or else `keras_transfer` in the user's cache folder. It need
    not exist yet.
    """
    chosen = os.environ.get(VARIABLE, "").strip()
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("keras_transfer"))


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """The folder `target`, built first if it is missing.

    The folder is built beside its place and then renamed, so that a reader never sees half of it; what an interrupted
    process left is removed by the next one.

    Args:
        target: the folder.
        build: fills the empty folder that it is given.

    Raises:
        SampleError: if the folder's parent cannot be written.
    """
    if target.is_dir():
        return target
    make_folder(target.parent)
    with _locked(target) as alone:
        if target.is_dir():
            return target
        if alone:
            for left_over in target.parent.glob(f".{target.name}.*.partial"):
                shutil.rmtree(left_over, ignore_errors=True)
        partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}.partial"
        partial.mkdir()
        try:
            build(partial)
            try:
                partial.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was first, and its folder is as good
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def make_folder(folder: Path) -> None:
    """Makes a folder of the cache and its parents.

    Raises:
        SampleError: if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise SampleError(f"cache folder {folder}: cannot be written. Set {VARIABLE} to a folder that can.")


def check_space(folder: Path, megabytes: float, what: str) -> None:
    """Raises unless the disk of an existing folder has room.

    Args:
        folder: an existing folder on the disk.
        megabytes: what is needed, in units of 10^6 bytes.
        what: named in the message.

    Raises:
        SampleError: if it has less.
    """
    free = shutil.disk_usage(folder).free / 1e6
    if free < megabytes:
        raise SampleError(
            f"{what}: needs {megabytes:.0f} MB in {folder}. Free on that disk: {free:.0f} MB. "
            f"Make room, or set {VARIABLE} to a folder on a larger disk."
        )


@contextmanager
def _locked(target: Path) -> Iterator[bool]:
    """Holds the lock of one target; the value says whether no other process can be at it."""
    if fcntl is None:
        yield False
        return
    # The lock file stays: removing it would let two processes lock two files of one name.
    with open(target.parent / f".{target.name}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield True
