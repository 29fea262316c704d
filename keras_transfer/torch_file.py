"""Read a legacy (not zip) PyTorch weights file without PyTorch, and without running anything that it asks for.

The form, as `torch.save` wrote it before release 1.6: three leading pickles (magic number, protocol, system
information), the pickled state dict in which each tensor refers to a storage by a persistent id, a pickled list of
storage keys, then for each key an int64 count and the raw little-endian values.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


@dataclass(frozen=True)
class _StorageType:
    """Stands for a storage class of PyTorch; only its value type matters."""

    dtype: str


@dataclass(frozen=True)
class _Storage:
    """A storage that the state dict refers to."""

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor: a strided view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a legacy PyTorch state dict, by name, in the file's order.

    Only `OrderedDict`, the tensor rebuild function and the storage type names are admitted; neither is anything else
    imported nor called.

    Args:
        path: the file (`.pth`, `.pt`, `.bin`).

    Returns:
        Arrays of their own (not views of each other), of the types and shapes in the file.

    Raises:
        ValueError: for a file of another form, a name that is not admitted, or a file that ends early.
    """
    path = Path(path)
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            raise ValueError(
                f"{path}: expected a legacy PyTorch weights file. Received: the zip form (PyTorch 1.6 and later). "
                "Save it with torch.save(state_dict, path, _use_new_zipfile_serialization=False), or as .safetensors."
            )
        file.seek(0)
        _check_head(path, file)
        state, keys = _unpickle(path, file), _unpickle(path, file)
        if not isinstance(state, dict) or not isinstance(keys, list):
            raise _not_legacy(path)
        views = {str(name): value for name, value in state.items() if isinstance(value, _View)}
        storages = _read_storages(path, file, keys, {view.storage.key: view.storage for view in views.values()})
    return {name: _materialise(path, name, view, storages) for name, view in views.items()}


def _check_head(path: Path, file: BinaryIO) -> None:
    """Raises unless the three leading pickles are those of a little-endian legacy file."""
    if _unpickle(path, file) != _MAGIC:
        raise _not_legacy(path)
    protocol, system = _unpickle(path, file), _unpickle(path, file)
    if protocol != _PROTOCOL or not isinstance(system, dict) or not system.get("little_endian", False):
        raise _not_legacy(path)


def _not_legacy(path: Path) -> ValueError:
    return ValueError(
        f"{path}: expected a legacy PyTorch weights file (little-endian, protocol {_PROTOCOL}). "
        "Received: something else. Download the file again, or convert it to .safetensors."
    )


class _RestrictedUnpickler(pickle.Unpickler):
    """Admits only what a state dict needs."""

    def __init__(self, file: BinaryIO, path: Path):
        super().__init__(file, encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise ValueError(
            f"{self._path}: refused, since it asks for {module}.{name}. Expected only tensors in a state dict. "
            "Do not use this file unless you trust it; save its state dict alone, or as .safetensors."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), _, int(count), None):
                return _Storage(key, np.dtype(dtype), count)
        raise ValueError(
            f"{self._path}: expected tensors that refer to a whole storage. Received: {str(pid)[:80]!r}. "
            "Save a plain state dict."
        )


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _View:
    """Takes the place of `torch._utils._rebuild_tensor_v2`."""
    return _View(storage, offset, shape, strides)


def _unpickle(path: Path, file: BinaryIO) -> Any:
    """The next pickle of the file."""
    try:
        return _RestrictedUnpickler(file, path).load()
    except ValueError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _not_legacy(path) from error


def _read_storages(path: Path, file: BinaryIO, keys: list[Any], wanted: dict[str, _Storage]) -> dict[str, np.ndarray]:
    """The values of each storage, read in the order of the keys."""
    values = {}
    for key in keys:
        storage = wanted.get(key) if isinstance(key, str) else None
        if storage is None:
            raise ValueError(
                f"{path}: holds a storage {key!r} that no tensor uses, so its size is unknown. Save a plain state dict."
            )
        head = file.read(8)
        count = int.from_bytes(head, "little", signed=True)
        if len(head) == 8 and count != storage.count:
            raise ValueError(
                f"{path}: storage {key!r} is damaged: expected {storage.count} values. Received: {count}. "
                "Download the file again."
            )
        raw = file.read(storage.count * storage.dtype.itemsize)
        if len(head) < 8 or len(raw) < storage.count * storage.dtype.itemsize:
            raise ValueError(f"{path}: ends inside storage {key!r}. Download the file again.")
        values[key] = np.frombuffer(raw, storage.dtype)
    return values


def _materialise(path: Path, name: str, view: _View, storages: dict[str, np.ndarray]) -> np.ndarray:
    """The array of one tensor, after checking that the view stays inside its storage."""
    values = storages.get(view.storage.key)
    if values is None:
        raise ValueError(
            f"{path}: tensor {name} refers to storage {view.storage.key!r}, which the file lacks. "
            "Download the file again."
        )
    numbers = (view.offset, *view.shape, *view.strides)
    inside = len(view.shape) == len(view.strides) and all(isinstance(n, int) and n >= 0 for n in numbers)
    inside = inside and math.prod(map(int, view.shape)) <= values.size
    if inside and 0 not in view.shape:
        last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
        inside = last < values.size
    if not inside:
        raise ValueError(
            f"{path}: tensor {name} reaches beyond its storage of {values.size} values: offset {view.offset}, "
            f"shape {view.shape}, strides {view.strides}. The file is damaged; download it again."
        )
    steps = tuple(stride * values.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(values[view.offset :], view.shape, steps, writeable=False).copy()
