"""Split names: which split a folder, a file or another library's split is for."""

from __future__ import annotations

import re

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}


def split_name(name: str) -> str:
    """The split that a folder or a file's stem is named after: `val` is `validation`, `test_rain` itself; else ""."""
    name = name.lower()
    return _SPLITS.get(name, name if re.fullmatch(r"test_\w[\w-]*", name) else "")
