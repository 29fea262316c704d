"""Answers a probe with an exported version and compares, in a process that knows plain TensorFlow only.

Run as a file (`python -P saved_model_check.py [--text]`), never imported with the package: what it proves is that the
version needs none of it. Once TensorFlow is imported it reads one line of standard input, {"version": folder, "probe":
folder, "tolerance": number}; `verification` writes both. Exit status 0: as expected; 1: the last line of standard
output is a JSON list of the differences.

A probe folder holds `probe.json`, a list of {"signature", "inputs": {name: tensor}, "expected": {name: tensor}}, where
a tensor is {"file", "dtype"} and the file a serialized TensorProto (which, unlike NumPy's bytes, keeps trailing zeros).
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np
import tensorflow as tf


def main(arguments: list[str]) -> int:
    """Checks one version; returns the exit status."""
    parser = argparse.ArgumentParser(description="compare an exported version's answers with expected ones")
    parser.add_argument("--text", action="store_true", help="load TF Text's operations")
    options = parser.parse_args(arguments)
    if options.text:
        import tensorflow_text  # noqa: F401
    line = sys.stdin.readline()
    if not line:  # who asked is gone
        return 1
    order = json.loads(line)
    faults = check(order["version"], pathlib.Path(order["probe"]), order["tolerance"])
    print(json.dumps(faults))
    return 1 if faults else 0


def check(version: str, probe: pathlib.Path, tolerance: float) -> list[str]:
    """All differences between a version's answers and the expected ones, as sentences."""
    loaded = tf.saved_model.load(version)
    faults: list[str] = []
    for request in json.loads((probe / "probe.json").read_text()):
        name = request["signature"]
        if name not in loaded.signatures:
            faults.append(f"signature {name!r} is missing; there are {sorted(loaded.signatures)}")
            continue
        signature = loaded.signatures[name]
        inputs = {key: _read(probe, tensor) for key, tensor in request["inputs"].items()}
        answers = {key: value.numpy() for key, value in signature(**inputs).items()}
        for key, tensor in request["expected"].items():
            if key not in answers:
                faults.append(f"{name}: output {key!r} is missing; there are {sorted(answers)}")
            else:
                fault = difference(answers[key], _read(probe, tensor).numpy(), tolerance)
                faults.extend([f"{name}: output {key!r} {fault}"] if fault else [])
        faults.extend(_empty_batch_faults(name, signature, inputs))
    return faults


def difference(answer: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
    """How an answer differs from the expected one; "" where it does not.

    Floats may differ by `tolerance`, times the expected value where that is above 1 (pixels, say); all else is equal.
    Where fewer are expected of each row than are answered, the row's beginning counts: of boxes, best first, those
    near the lowest score may come or go by a rounding.
    """
    if answer.ndim == expected.ndim > 1 and expected.shape[1] < answer.shape[1]:
        answer = answer[:, : expected.shape[1]]
    if answer.shape != expected.shape:
        return f"has shape {answer.shape}, expected {expected.shape}"
    if answer.dtype.kind != expected.dtype.kind:
        return f"has type {answer.dtype}, expected {expected.dtype}"
    if answer.size == 0:
        return ""
    if answer.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            off = np.abs(answer.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
        off[(answer == expected) | (np.isnan(answer) & np.isnan(expected))] = 0.0
        off[np.isnan(off)] = np.inf
        where = np.unravel_index(int(off.argmax()), off.shape)
        if off[where] <= tolerance:
            return ""
        count = int((off > tolerance).sum())
        what = f"differs by up to {off[where]:.3g} (tolerance {tolerance:g}) in {count} of {off.size} values"
    else:
        unequal = answer != expected
        if not unequal.any():
            return ""
        where = np.unravel_index(int(unequal.argmax()), unequal.shape)
        what = f"differs in {int(unequal.sum())} of {unequal.size} values"
    index = list(map(int, where))
    return f"{what}; at {index} it is {_short(answer[where])}, expected {_short(expected[where])}"


def _empty_batch_faults(name: str, signature: Any, inputs: dict[str, tf.Tensor]) -> list[str]:
    """What goes wrong when nothing is asked: a batching server may send that."""
    try:
        answers = signature(**{key: value[:0] for key, value in inputs.items()})
    except tf.errors.OpError as error:
        return [f"{name}: an empty batch fails: {_reason(error.message)}"]
    return [
        f"{name}: output {key!r} of an empty batch has shape {tuple(value.shape)}, expected a first dimension of 0"
        for key, value in answers.items()
        if value.shape.rank and value.shape[0] != 0
    ]


def _reason(message: str) -> str:
    """The line of TensorFlow's message that says what is wrong; the others say where."""
    elsewhere = ("[[", "File ", "Detected at", "<stack", "Graph execution")
    lines = [line.strip() for line in message.splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith(elsewhere)), message)


def _read(probe: pathlib.Path, tensor: dict[str, str]) -> tf.Tensor:
    """One tensor of the probe."""
    return tf.io.parse_tensor((probe / tensor["file"]).read_bytes(), tf.as_dtype(tensor["dtype"]))


def _short(value: Any) -> str:
    """A value for a message."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else text[:57] + "..."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
