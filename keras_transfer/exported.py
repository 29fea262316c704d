"""Reading an exported version: what it is, and its signatures as functions of arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_transfer.labels import Labels

EXPORT_FORMAT = 1
EXTRA_FOLDER = "assets.extra"
FORMAT_FILE = "format.json"
LABELS_FILE = "labels.txt"
LABELS_DETAILS_FILE = "labels.json"
WEIGHTS_LICENCE_FILE = "LICENCE-weights.txt"


@dataclass(frozen=True)
class Signature:
    """One signature of a loaded version."""

    name: str
    inputs: dict[str, Any]
    """The tf.TensorSpec of each input, by name."""
    outputs: tuple[str, ...]
    _function: Any
    _loaded: Any
    """Held, because the function alone does not keep the version's variables and tables alive."""

    def __call__(self, **arrays: Any) -> dict[str, tf.Tensor]:
        """The answers to one batch, by output name.

        Args:
            arrays: tensors or arrays by input name; `bytes` or `str` values for strings.

        Raises:
            ValueError: for other names than the signature's inputs.
        """
        if set(arrays) != set(self.inputs):
            raise ValueError(
                f"{self.name}: expected the inputs {', '.join(sorted(self.inputs))}. "
                f"Received: {', '.join(sorted(arrays)) or 'nothing'}"
            )
        tensors = {name: tf.convert_to_tensor(value, self.inputs[name].dtype) for name, value in arrays.items()}
        return dict(self._function(**tensors))


def version_numbers(base: Path) -> list[int]:
    """The version numbers under a model base path, ascending; other names are no versions."""
    if not base.is_dir():
        return []
    return sorted(int(entry.name) for entry in base.iterdir() if entry.name.isdecimal())


def version_folder(path: str | Path) -> Path:
    """The version that a path means: the version itself, or the newest one under a model base path.

    Raises:
        ValueError: where there is no SavedModel.
    """
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return path
    for number in reversed(version_numbers(path)):
        if (path / str(number) / "saved_model.pb").is_file():
            return path / str(number)
    if not path.exists():
        found = "no such path"
    elif path.is_dir():
        found = "a folder with neither saved_model.pb nor numbered versions"
    else:
        found = "a file"
    raise ValueError(
        f"{path}: expected an exported version (DIR/NAME/N) or a model base path (DIR/NAME). Received: {found}. "
        "`keras-transfer export RUN` writes one"
    )


def describe_version(path: str | Path) -> dict[str, Any]:
    """What an exported version says of itself.

    Args:
        path: the version, or a model base path, which means its newest version.

    Returns:
        `path` (Path), `name`, `version` (int, or None if the folder has another name), `format`, `recipe` and `metrics`
        (plain JSON values; None where absent), `labels` (`Labels` or None), and the fields of `format.json`:
        `weights_folded`, `text_ops`, `signatures`, `versions` (of the libraries).

    Raises:
        ValueError: for no SavedModel, one that keras_transfer did not write, or one of an unknown format.
    """
    folder = version_folder(path)
    extra = folder / EXTRA_FOLDER
    written = _json(extra / FORMAT_FILE)
    if written is None:
        raise ValueError(
            f"{folder}: expected an export of keras_transfer. Received: a SavedModel without "
            f"{EXTRA_FOLDER}/{FORMAT_FILE}. It can be loaded with tf.saved_model.load, but not evaluated here"
        )
    if written.get("format") != EXPORT_FORMAT:
        raise ValueError(
            f"{folder}: expected export format {EXPORT_FORMAT}. Received: {written.get('format')!r}. "
            "Read it with the release of keras_transfer that wrote it, or export the run again"
        )
    return {
        **written,
        "path": folder,
        "name": folder.resolve().parent.name,
        "version": int(folder.name) if folder.name.isdecimal() else None,
        "recipe": _json(extra / "recipe.json"),
        "metrics": _json(extra / "metrics.json"),
        "labels": _labels(extra),
    }


def load_signature(path: str | Path, name: str = "serving_default") -> Signature:
    """One signature of an exported version, as a function of arrays.

    Args:
        path: the version, or a model base path, which means its newest version.
        name: the signature.

    Raises:
        ValueError: for no SavedModel, an unknown signature, or missing TF Text.
    """
    folder = version_folder(path)
    if (_json(folder / EXTRA_FOLDER / FORMAT_FILE) or {}).get("text_ops"):
        _import_text_ops(folder)
    loaded = tf.saved_model.load(str(folder))
    if name not in loaded.signatures:
        raise ValueError(
            f"{folder}: expected one of the signatures {', '.join(sorted(loaded.signatures))}. Received: {name!r}"
        )
    function = loaded.signatures[name]
    inputs = dict(function.structured_input_signature[1])
    return Signature(name, inputs, tuple(sorted(function.structured_outputs)), function, loaded)


def label_files(labels: Labels) -> dict[str, str]:
    """The files of an export that hold the labels: names alone, a line each, and all that `Labels` holds."""
    return {
        LABELS_FILE: "".join(" ".join(name.splitlines()) + "\n" for name in labels.names),
        LABELS_DETAILS_FILE: json.dumps(labels.to_dict(), indent=2, ensure_ascii=False),
    }


def _labels(extra: Path) -> Labels | None:
    """The labels of a version, or None where it has none."""
    details = _json(extra / LABELS_DETAILS_FILE)
    if details is not None:
        return Labels.from_dict(details)
    names = extra / LABELS_FILE
    return Labels(tuple(names.read_text(encoding="utf-8").splitlines())) if names.is_file() else None


def _json(path: Path) -> Any:
    """The values in a JSON file, or None where it is absent."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON. Received: {error}. Export the run again") from None


def _import_text_ops(folder: Path) -> None:
    """Makes TF Text's operations known."""
    try:
        import tensorflow_text  # noqa: F401
    except ImportError:
        raise ValueError(
            f"{folder}: expected tensorflow_text, whose operations the tokenizer inside uses. Received: not installed. "
            "pip install tensorflow-text"
        ) from None
