"""Files of a source: listed in natural order, read as text, and hashed on several threads."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from keras_transfer.data.findings import DataError, find
from keras_transfer.progress import Log

T = TypeVar("T")
R = TypeVar("R")

IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found"})
"""What file browsers, archives and storage boxes leave behind; everything with a leading dot is ignored too."""
HASH_BYTES = 16
_CHUNK = 1 << 20
_BAR_FROM = 2_000  # files; below it the pass takes about a second


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts `photo2` before `photo10`; equal only for equal names."""
    parts = re.split(r"(\d+)", name)
    return (*((1, int(p)) if p.isdigit() and p.isascii() else (0, p) for p in parts if p), (0, name))


def visible(name: str) -> bool:
    """Whether a file or folder counts: neither hidden nor left behind by a file browser."""
    return not name.startswith(".") and name.lower() not in IGNORED


def entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The visible folders and files of a folder, each in natural order.

    A link counts as what it points to, and a link to nothing as a file.

    Raises:
        DataError: for a folder that may not be read.
    """
    try:
        with os.scandir(folder) as scan:
            found = [(entry.name, entry.is_dir()) for entry in scan if visible(entry.name)]
    except OSError as error:
        raise DataError(
            find("unreadable_folder", "stop", f"{folder}: {error.strerror}", mend="Check its permissions and its disk")
        ) from None
    found.sort(key=lambda pair: natural_key(pair[0]))
    folders = [folder / name for name, is_folder in found if is_folder]
    return folders, [folder / name for name, is_folder in found if not is_folder]


def walk(folder: Path) -> Iterator[Path]:
    """All visible files below a folder, in natural order; a link back to a folder above is not followed."""
    yield from _walk(folder, frozenset(map(_identity, (folder, *folder.absolute().parents))))


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    folders, files = entries(folder)
    yield from files
    for deeper in folders:
        identity = _identity(deeper)
        if identity not in above:
            yield from _walk(deeper, above | {identity})


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def read_text(path: Path) -> str:
    """A UTF-8 file as text, without a byte order mark; line ends stay as they are.

    Raises:
        DataError: `undecodable_text` with file:line for bytes that are no UTF-8; `unreadable_file`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            find(
                "unreadable_file",
                "stop",
                f"cannot be read: {error.strerror}",
                [str(path)],
                "Check the file's path and permissions",
            )
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            find(
                "undecodable_text",
                "stop",
                f"byte 0x{data[error.start]:02x} is no UTF-8 (the text looks like {_guess_encoding(data)})",
                [f"{path}:{line}"],
                f"Save the file as UTF-8: iconv -f {_guess_encoding(data)} -t utf-8 '{path.name}' > 'utf8_{path.name}'",
            )
        ) from None


def _guess_encoding(data: bytes) -> str:
    """What text that is no UTF-8 most likely is; Western Windows text where nothing speaks against it."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    return "latin-1" if any(0x80 <= byte < 0xA0 for byte in data) and not _decodes(data, "cp1252") else "cp1252"


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def hash_file(path: str | os.PathLike[str]) -> bytes:
    """16-byte BLAKE2b of a file's bytes; b"" for a file that cannot be read, which `checks` reports."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return b""
    return digest.digest()


def hash_text(*texts: str) -> bytes:
    """16-byte BLAKE2b of texts in order; Unicode forms and runs of white space make no difference."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for text in texts:
        digest.update(" ".join(unicodedata.normalize("NFC", text).split()).encode("utf-8", "surrogatepass") + b"\0")
    return digest.digest()


def hash_files(paths: Sequence[str], what: str = "reading files") -> list[bytes]:
    """`hash_file` of each, on several threads; a bar shows a long pass."""
    return list(in_threads(hash_file, paths, what))


def in_threads(work: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[R]:
    """Results in order, from threads that mostly wait for the disk; a bar shows a long pass."""
    workers = min(16, 4 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool, Log(quiet=len(items) < _BAR_FROM).bar(what, len(items)) as update:
        for done, result in enumerate(_bounded_map(pool, work, items), 1):
            if done % 64 == 0:
                update(done, "")
            yield result


def _bounded_map(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int = 4096
) -> Iterator[R]:
    """As `pool.map`, with only so many waiting, so that a million files queue no million jobs."""
    items = list(items)
    for start in range(0, len(items), ahead):
        yield from pool.map(work, items[start : start + ahead])
