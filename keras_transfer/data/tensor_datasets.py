"""`tf.data.Dataset`s from Python as records: images are kept as PNG files in the cache, by a hash of their pixels."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_transfer.data import files
from keras_transfer.data.findings import DataError, Finding, Raw, find
from keras_transfer.data.pipeline import untuned
from keras_transfer.data.records import Record
from keras_transfer.data.split_names import split_name
from keras_transfer.data.table_records import label_text
from keras_transfer.samples.cache import cache_folder, make_folder
from keras_transfer.vision import formats

EXPECTED = (
    "elements (input, label): an image (uint8 or float [H, W, C] of 0-255), the bytes of an image file or a text; and "
    "an int, a text, or a vector of zeros and ones. Batched or not"
)
_INPUTS = ("image", "text", "input", "x")
_LABELS = ("label", "labels", "y")


@dataclass(frozen=True)
class _Element:
    """One example as NumPy values."""

    input: Any
    label: Any


def load(datasets: Any, label_names: Sequence[str] | None, task: str) -> Raw:
    """Records by split; ids are hashes of the content, so that the order of a shuffled dataset makes no difference.

    Args:
        datasets: a `tf.data.Dataset`, or a mapping of split name to one.
        label_names: the classes, for labels that are numbers or vectors.
        task: "" tells texts from image files by their first bytes.

    Raises:
        DataError: the elements are not what is expected, or never end.
    """
    if isinstance(datasets, tf.data.Dataset):
        datasets = {"all": datasets}
    if not isinstance(datasets, Mapping) or not datasets:
        raise _unfit(
            f"expected a tf.data.Dataset or a mapping of split name to one. Received: {type(datasets).__name__}"
        )
    raw = Raw()
    for given, dataset in datasets.items():
        name = given if given == "all" else split_name(str(given))
        if not name or name in raw:
            raise _unfit(f"expected the splits train, validation, test or test_*, each once. Received: {given!r}")
        raw[name] = _records(name, dataset, label_names, task, raw.findings)
    return raw


def _records(
    split: str, dataset: Any, label_names: Sequence[str] | None, task: str, findings: list[Finding]
) -> list[Record]:
    """The records of one split, sorted by content."""
    if not isinstance(dataset, tf.data.Dataset):
        raise _unfit(f"{split}: expected a tf.data.Dataset. Received: {type(dataset).__name__}")
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise _unfit(f"{split}: the dataset never ends", "Leave out .repeat(), or add .take(number of examples)")
    rows: list[tuple[bytes, dict[str, Any]]] = []
    labels: list[Any] = []
    spool = _Spool(split, task, findings)
    for element in _elements(split, dataset):
        rows.append(spool.keep(element.input))
        labels.append(element.label)
    names = _label_texts(split, labels, label_names)
    order = sorted(range(len(rows)), key=lambda index: (rows[index][0], str(names[index])))
    records = []
    seen: dict[bytes, int] = {}
    for index in order:
        content, fields = rows[index]
        twin = seen[content] = seen.get(content, 0) + 1
        id = f"{split}/{content.hex()}" + (f"-{twin}" if twin > 1 else "")
        where = f"{split} element {index}"
        records.append(Record(id, {**fields, "label": names[index]}, where, content))
    return records


def _elements(split: str, dataset: Any) -> Iterator[_Element]:
    """The examples of a dataset, taken out of their batches."""
    spec = _pair(split, dataset.element_spec)
    if not (isinstance(spec.input, tf.TensorSpec) and isinstance(spec.label, tf.TensorSpec)):
        raise _unfit(f"{split}: expected dense tensors. Received: {dataset.element_spec}")
    rank = spec.input.shape.rank
    if rank is None:
        raise _unfit(
            f"{split}: the rank of the input is unknown",
            "Set its shape: dataset.map(lambda x, y: (tf.ensure_shape(x, …), y))",
        )
    batched = rank == (1 if spec.input.dtype == tf.string else 4)
    if rank not in ((0, 1) if spec.input.dtype == tf.string else (2, 3, 4)):
        raise _unfit(f"{split}: received inputs of type {spec.input.dtype.name} and shape {spec.input.shape}")
    if batched and spec.label.shape.rank == 0:
        raise _unfit(f"{split}: received inputs of shape {spec.input.shape}, a batch, with a single label")
    dataset = dataset.unbatch() if batched else dataset
    for element in untuned(dataset).as_numpy_iterator():
        yield _pair(split, element)


def _pair(split: str, element: Any) -> _Element:
    """Input and label of an element, given as a pair or by name."""
    if isinstance(element, Mapping):
        inputs = [element[name] for name in _INPUTS if name in element]
        labels = [element[name] for name in _LABELS if name in element]
        if len(inputs) == len(labels) == 1:
            return _Element(inputs[0], labels[0])
        raise _unfit(
            f"{split}: expected one of {', '.join(_INPUTS)} and one of {', '.join(_LABELS)}. Received: {list(element)}"
        )
    if isinstance(element, tuple) and len(element) in (2, 3):
        if len(element) == 3:
            raise _unfit(
                f"{split}: weights of examples are not read", "Give (input, label), and class_weights in the recipe"
            )
        return _Element(*element)
    raise _unfit(f"{split}: received elements of {type(element).__name__}")


class _Spool:
    """Keeps inputs: texts in memory, images as files."""

    def __init__(self, split: str, task: str, findings: list[Finding]):
        self._split, self._task, self._findings = split, task, findings
        self._folder = cache_folder() / "datasets"
        self._scale: float | None = None
        self._seen = 0

    def keep(self, value: Any) -> tuple[bytes, dict[str, Any]]:
        """(content, fields) of one input."""
        if isinstance(value, bytes):
            if self._task.startswith("image") or (not self._task and formats.recognise(value[:132])):
                content = hashlib.blake2b(value, digest_size=files.HASH_BYTES).digest()
                ending = formats.ENDINGS.get(formats.recognise(value[:132]), ("",))[0]
                return content, {"image": self._write(content, ending, value)}
            try:
                text = value.decode("utf-8")
            except UnicodeDecodeError:
                raise _unfit(f"{self._split}: a text is no UTF-8: {value[:40]!r}", "Decode it before") from None
            return files.hash_text(text), {"text": text}
        pixels = self._pixels(np.asarray(value))
        content = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=files.HASH_BYTES).digest()
        return content, {"image": self._write(content, ".png", pixels)}

    def _write(self, content: bytes, ending: str, data: bytes | np.ndarray) -> str:
        """The path of the file that holds an image, written if it is new, whole or not at all."""
        path = self._folder / content.hex()[:2] / f"{content.hex()}{ending}"
        if not path.exists():
            make_folder(path.parent)
            partial = path.parent / f".{uuid.uuid4().hex[:12]}.partial"
            partial.write_bytes(data if isinstance(data, bytes) else _png(data))
            os.replace(partial, path)
        return str(path)

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W] or [H, W, C] of 0-255."""
        if image.ndim == 3 and image.shape[-1] == 1:
            image = image[..., 0]
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (3, 4)) or 0 in image.shape:
            raise _unfit(f"{self._split}: received an image of shape {image.shape}")
        if image.dtype == np.uint8:
            return image
        image = image.astype(np.float32)
        if not np.isfinite(image).all() or image.min() < 0 or image.max() > 255:
            message = f"{self._split}: pixels from {image.min():g} to {image.max():g}; expected 0 to 255"
            raise _unfit(message, "Leave out the normalisation: each backbone brings its own")
        return np.rint(image * self._scale_of(image)).astype(np.uint8)

    def _scale_of(self, image: np.ndarray) -> float:
        """1, or 255 where the first floats say that pixels are 0-1; what contradicts them later is an error."""
        self._seen += 1
        if image.max() == 0:
            return 1.0  # a black image tells nothing
        if self._scale is None:
            self._scale = 255.0 if image.max() <= 1 else 1.0
            if self._scale == 255.0:
                message = f"{self._split}: pixels are floats of 0 to 1; they are multiplied by 255"
                self._findings.append(
                    find("pixel_range", "warn", message, mend="Give pixels of 0-255 if that is wrong")
                )
        if self._scale == 255.0 and image.max() > 1:
            message = f"{self._split}: the first image has pixels of 0 to 1, image {self._seen} up to {image.max():g}"
            raise _unfit(message, "Give all pixels as 0-255")
        return self._scale


def _png(pixels: np.ndarray) -> bytes:
    """Fast, little compressed PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _label_texts(split: str, labels: list[Any], label_names: Sequence[str] | None) -> list[str | tuple[str, ...]]:
    """Labels as text; vectors with a single one are classes, others several labels."""
    arrays = [np.asarray(label) for label in labels]
    if not arrays:
        return []
    if arrays[0].ndim == 1 and arrays[0].size == 1 and label_names is None:
        arrays = [array.reshape(()) for array in arrays]
    if any(array.ndim != arrays[0].ndim for array in arrays) or arrays[0].ndim > 1:
        raise _unfit(f"{split}: received labels of shape {arrays[0].shape}")
    if arrays[0].ndim == 0:
        return [_name(split, array.item(), label_names) for array in arrays]
    if arrays[0].dtype.kind in "SO":
        return [tuple(_name(split, value, None) for value in array.tolist()) for array in arrays]
    vectors = np.stack(arrays)
    if not np.isin(vectors, (0, 1)).all():
        raise _unfit(f"{split}: label vectors hold other values than 0 and 1")
    if (vectors.sum(1) == 1).all():
        return [_name(split, int(index), label_names) for index in vectors.argmax(1)]
    return [tuple(_name(split, int(index), label_names) for index in np.flatnonzero(vector)) for vector in vectors]


def _name(split: str, value: Any, label_names: Sequence[str] | None) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    elif label_names is not None:
        if value != int(value) or not 0 <= int(value) < len(label_names):
            raise _unfit(f"{split}: label {value} has no name among the {len(label_names)} of label_names")
        return str(label_names[int(value)])
    text = label_text(value)
    if text is None:
        raise _unfit(f"{split}: received an empty label")
    return text


def _unfit(problem: str, mend: str = "") -> DataError:
    return DataError(
        find("unknown_form", "stop", problem, mend=f"{mend}. Expected {EXPECTED}" if mend else f"Expected {EXPECTED}")
    )
