"""Publish a model as a new version folder that TF Serving loads: verified first, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_transfer import saved_model_check, warmup
from keras_transfer.exported import EXPORT_FORMAT, EXTRA_FOLDER, FORMAT_FILE, version_numbers
from keras_transfer.folding import FOLD_BELOW_BYTES, numeric_part
from keras_transfer.tasks.base import Serving

TOLERANCE = 1e-4
HIDDEN_PREFIX = ".publishing-"
"""TF Serving reads numeric names only, so it never sees a folder of this name."""
LEFTOVER_AFTER_S = 24 * 3600.0
CHECK_LIMIT_S = 1800.0
"""Loading and answering a few requests takes seconds; this ends a process that hangs."""

Arrays = Mapping[str, Mapping[str, Any]]
"""By signature, then by input or output name: NumPy arrays; `bytes` or `str` values for strings."""

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
    numeric = numeric_part(model, fold_below)
    serving = make_serving(numeric.call)
    unknown = (set(probe) | set(expected) | set(serving.warmup)) - set(serving.signatures)
    if unknown:
        raise ValueError(f"probe: expected signatures among {sorted(serving.signatures)}. Received: {sorted(unknown)}")
    with _hidden_folder(base) as hidden:
        _write_saved_model(hidden, serving, numeric.variables)
        about = {
            "format": EXPORT_FORMAT,
            "weights_folded": numeric.folded,
            "text_ops": require_text_ops,
            "signatures": sorted(serving.signatures),
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        }
        _write_extra(hidden / EXTRA_FOLDER, {FORMAT_FILE: json.dumps(about, indent=2), **extra})
        warmup.write(hidden / EXTRA_FOLDER, base.name, serving.warmup)
        # The warm-up too: a server replays it before it reports a version as ready, so one that fails would block it.
        verify(hidden, [(probe, expected), (serving.warmup, {})], tolerance, require_text_ops)
        _sync(hidden)
        return _take_number(hidden, base, version)


def verify(
    folder: Path,
    requests: Sequence[tuple[Arrays, Arrays]],
    tolerance: float = TOLERANCE,
    require_text_ops: bool = False,
) -> None:
    """Loads a SavedModel in a fresh process with plain TensorFlow and compares its answers.

    Args:
        folder: the SavedModel.
        requests: pairs of requests, by signature and input name, and their answers, by signature and output name.
        tolerance: as in `publish`.
        require_text_ops: whether the process must load TF Text's operations.

    Raises:
        ValueError: with every difference, or with the end of what the process said if it failed.
    """
    with tempfile.TemporaryDirectory(prefix="keras_transfer-probe-") as written:
        _write_probe(Path(written), requests)
        # -P: without it the script's own folder, hence this package's modules, would be importable by bare names.
        command = [sys.executable, "-P", saved_model_check.__file__, str(folder), written]
        command += ["--tolerance", repr(float(tolerance)), *(["--text"] if require_text_ops else [])]
        # The training process may hold all memory of the GPU.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, errors="replace", timeout=CHECK_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"The export could not be verified: loading it and answering took over {CHECK_LIMIT_S:g} s. "
                "Nothing was published. Export again on a less busy machine, or with a smaller probe"
            ) from None
    if done.returncode == 0:
        return
    faults = _faults_reported(done)
    raise ValueError(
        "The export does not answer in a fresh process as the model did in training; nothing was published:\n"
        + "\n".join(f"  - {fault}" for fault in faults)
    )


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


def _write_probe(folder: Path, requests: Sequence[tuple[Arrays, Arrays]]) -> None:
    """Writes requests and answers as `saved_model_check` reads them."""
    count = 0

    def store(value: Any) -> dict[str, str]:
        nonlocal count
        tensor = tf.convert_to_tensor(value)
        file = f"{count}.tensor"
        count += 1
        (folder / file).write_bytes(tf.io.serialize_tensor(tensor).numpy())
        return {"file": file, "dtype": tensor.dtype.name}

    listing = [
        {
            "signature": signature,
            "inputs": {name: store(value) for name, value in inputs.items()},
            "expected": {name: store(value) for name, value in expected.get(signature, {}).items()},
        }
        for probe, expected in requests
        for signature, inputs in probe.items()
    ]
    (folder / "probe.json").write_text(json.dumps(listing), encoding="utf-8")


def _faults_reported(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the verifying process found, or how it ended."""
    with contextlib.suppress(IndexError, ValueError):
        faults = json.loads(done.stdout.splitlines()[-1])
        if isinstance(faults, list) and faults:
            return [str(fault) for fault in faults]
    end = " ".join(done.stderr.split()[-80:])
    how = f"killed by signal {-done.returncode} (out of memory?)" if done.returncode < 0 else "it failed"
    return [f"loading it: {how}: {end or 'it said nothing'}"]


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
