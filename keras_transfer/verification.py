"""Verifies an exported version in a process of its own, which knows plain TensorFlow only."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorflow as tf

from keras_transfer import saved_model_check

TOLERANCE = 1e-4
CHECK_LIMIT_S = 1800.0
"""Loading and answering a few requests takes seconds; this ends a process that hangs."""

Arrays = Mapping[str, Mapping[str, Any]]
"""By signature, then by input or output name: NumPy arrays; `bytes` or `str` values for strings."""


class FreshProcess:
    """A process that loads one SavedModel with plain TensorFlow and compares its answers; a context manager.

    It starts at once and imports TensorFlow, which takes seconds, while the version that it is to load is written.
    """

    def __init__(self, require_text_ops: bool = False):
        """Starts the process.

        Args:
            require_text_ops: whether it must load TF Text's operations.
        """
        # -P: without it the script's own folder, hence this package's modules, would be importable by bare names.
        command = [sys.executable, "-P", saved_model_check.__file__, *(["--text"] if require_text_ops else [])]
        # The training process may hold all memory of the GPU.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = subprocess.Popen(command, env=environment, text=True, errors="replace", **pipes)

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def verify(self, folder: Path, requests: Sequence[tuple[Arrays, Arrays]], tolerance: float = TOLERANCE) -> None:
        """Compares the answers of a version; once.

        Args:
            folder: the SavedModel.
            requests: pairs of requests, by signature and input name, and their answers, by signature and output name.
            tolerance: largest difference of a float (relative where the expected value is above 1); all else is equal.

        Raises:
            ValueError: with every difference, or with the end of what the process said if it failed.
        """
        with tempfile.TemporaryDirectory(prefix="keras_transfer-probe-") as written:
            _write_probe(Path(written), requests)
            order = {"version": str(folder), "probe": written, "tolerance": float(tolerance)}
            try:
                out, err = self._process.communicate(json.dumps(order) + "\n", timeout=CHECK_LIMIT_S)
            except subprocess.TimeoutExpired:
                raise ValueError(
                    f"The export could not be verified: loading it and answering took over {CHECK_LIMIT_S:g} s. "
                    "Nothing was published. Export again on a less busy machine, or with a smaller probe"
                ) from None
        if self._process.returncode == 0:
            return
        faults = _faults_reported(self._process.returncode, out, err)
        raise ValueError(
            "The export does not answer in a fresh process as the model did in training; nothing was published:\n"
            + "\n".join(f"  - {fault}" for fault in faults)
        )


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


def _faults_reported(status: int, out: str, err: str) -> list[str]:
    """What the verifying process found, or how it ended."""
    with contextlib.suppress(IndexError, ValueError):
        faults = json.loads(out.splitlines()[-1])
        if isinstance(faults, list) and faults:
            return [str(fault) for fault in faults]
    end = " ".join(err.split()[-80:])
    how = f"killed by signal {-status} (out of memory?)" if status < 0 else "it failed"
    return [f"loading it: {how}: {end or 'it said nothing'}"]
