"""Publish a model as a new version folder that TF Serving loads: verified first, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_transfer import warmup
from keras_transfer.exported import EXPORT_FORMAT, EXTRA_FOLDER, FORMAT_FILE, version_numbers
from keras_transfer.folding import FOLD_BELOW_BYTES, numeric_part
from keras_transfer.tasks.base import Serving
from keras_transfer.verification import TOLERANCE, Arrays, FreshProcess

HIDDEN_PREFIX = ".publishing-"
"""TF Serving reads numeric names only, so it never sees a folder of this name."""
LEFTOVER_AFTER_S = 24 * 3600.0

_log = logging.getLogger(__name__)


def publish(
    base: Path,
    make_serving: Callable[[Callable[[Any], Any]], Serving],
    model: keras.Model,
    *,
    extra: Mapping[str, bytes | str | Path],
    probe: Arrays,
    expected: Arrays,
    tolerance: float = TOLERANCE,
    require_text_ops: bool = False,
    version: int | None = None,
    fold_below: int = FOLD_BELOW_BYTES,
) -> Path:
    """Writes a version beside the others, verifies it in a fresh process, and renames it to the next number.

    A reader that polls `base` never sees half a version; of several publishers at once each gets its own number.

    Args:
        base: the model base path, DIR/NAME.
        make_serving: gets the numeric part of the model, a traceable function from the model's inputs to its outputs
            in inference mode, and returns the signatures with the resources that they use.
        model: raw pixels 0..255 or token dictionaries in, logits out.
        extra: further files of `assets.extra` by name: bytes, text, or the path of a file to copy.
        probe: real requests, by signature and input name, at least one.
        expected: the training-side answers to them, by signature and output name; outputs that are left out are run
            but not compared.
        tolerance: largest difference of a float (relative where the expected value is above 1); all else is equal.
            The fresh process computes in float32 on the CPU: so should `expected`.
        require_text_ops: whether the signatures use TF Text's operations.
        version: the number to publish; None is the next one.
        fold_below: bytes of weights from which they stay variables instead of constants.

    Returns:
        The version folder, `base`/N.

    Raises:
        ValueError: where the version does not answer as expected (nothing is published then), or for a faulty argument.
    """
    base = Path(base)
    _check_arguments(base, extra, probe, expected, version)
    with FreshProcess(require_text_ops) as process:
        numeric = numeric_part(model, fold_below)
        serving = make_serving(numeric.call)
        unknown = (set(probe) | set(expected) | set(serving.warmup)) - set(serving.signatures)
        if unknown:
            raise ValueError(
                f"probe: expected signatures among {sorted(serving.signatures)}. Received: {sorted(unknown)}"
            )
        about = {
            "format": EXPORT_FORMAT,
            "weights_folded": numeric.folded,
            "text_ops": require_text_ops,
            "signatures": sorted(serving.signatures),
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        }
        with _hidden_folder(base) as hidden:
            _write_saved_model(hidden, serving, numeric.variables)
            _write_extra(hidden / EXTRA_FOLDER, {FORMAT_FILE: json.dumps(about, indent=2), **extra})
            warmup.write(hidden / EXTRA_FOLDER, base.name, serving.warmup)
            # The warm-up too: a server replays it before it reports a version as ready, so one that fails blocks it.
            process.verify(hidden, [(probe, expected), (serving.warmup, {})], tolerance)
            _sync(hidden)
            return _take_number(hidden, base, version)


def clean_leftovers(base: Path, older_than_s: float = LEFTOVER_AFTER_S) -> list[Path]:
    """Removes what killed publishers left behind under a model base path.

    Args:
        base: the model base path.
        older_than_s: seconds since the last change; younger ones may belong to a publisher at work.

    Returns:
        The removed folders.
    """
    removed = []
    for folder in base.glob(f"{HIDDEN_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another publisher was faster
            changed = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if time.time() - changed > older_than_s:
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed


@contextlib.contextmanager
def _hidden_folder(base: Path) -> Iterator[Path]:
    """A folder beside the versions, which no server looks at; gone at the end unless it was renamed."""
    is_new = not base.exists()
    for leftover in clean_leftovers(base):
        _log.info("removed %s, left by a publisher that was killed", leftover)
    hidden = base / f"{HIDDEN_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
    hidden.mkdir(parents=True)  # not tempfile's 0700: a server may run as another user
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # only an empty one goes: a refused first version leaves nothing behind
                base.rmdir()


def _check_arguments(
    base: Path, extra: Mapping[str, Any], probe: Arrays, expected: Arrays, version: int | None
) -> None:
    """Raises for what can be known before the model is traced."""
    if not base.name or base.name.startswith(".") or base.name.isdecimal():
        raise ValueError(
            f"base: expected DIR/NAME, NAME neither hidden nor a number. Received: {str(base)!r}. Give the model a name"
        )
    reserved = {FORMAT_FILE, warmup.WARMUP_FILE}
    faulty = [name for name in extra if name in reserved or name in ("", ".", "..") or Path(name).name != name]
    if faulty:
        raise ValueError(f"extra: expected plain file names other than {sorted(reserved)}. Received: {faulty}")
    missing = [str(value) for value in extra.values() if isinstance(value, Path) and not value.is_file()]
    if missing:
        raise ValueError(f"extra: expected files. Received: {missing}, which are none")
    if not probe:
        raise ValueError("probe: expected at least one real request to verify the export with. Received: none")
    unasked = sorted(set(expected) - set(probe))
    if unasked:
        raise ValueError(f"expected: answers to requests of `probe` {sorted(probe)}. Received: also {unasked}")
    if version is not None and (version < 1 or version in version_numbers(base)):
        raise ValueError(
            f"version: expected a number from 1 that is not yet published. Received: {version}; published: "
            f"{version_numbers(base)}. Leave it out to get the next one"
        )


def _write_saved_model(folder: Path, serving: Serving, variables: tuple[tf.Variable, ...]) -> None:
    """Saves the signatures with the variables and resources that they use."""
    module = tf.Module()
    module.model_variables = list(variables)
    for number, resource in enumerate(serving.resources):
        setattr(module, f"resource_{number}", resource)
    # A version only answers. Gradients, which TensorFlow would save too, cannot be of a folded swish (its custom
    # gradient captures a tensor of the function that was folded).
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures=dict(serving.signatures), options=options)


def _write_extra(folder: Path, files: Mapping[str, bytes | str | Path]) -> None:
    """Writes the files of `assets.extra`."""
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, Path):
            shutil.copyfile(content, folder / name)
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).write_text(content, encoding="utf-8")


def _sync(folder: Path) -> None:
    """Has the disk hold every file, so that a power cut after the rename does not leave an empty version."""
    for path in (folder, *folder.rglob("*")):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot sync folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _take_number(hidden: Path, base: Path, version: int | None) -> Path:
    """Renames a finished folder to its number; the next one if none is asked for, however many publish at once."""
    while True:
        target = base / str(version if version is not None else max(version_numbers(base), default=0) + 1)
        try:
            os.rename(hidden, target)
        except OSError as error:
            taken = error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
            if not taken or version is not None:
                raise ValueError(
                    f"{target}: could not be published: {error.strerror}. Choose another version"
                ) from error
            continue
        _sync_one(base)
        return target
