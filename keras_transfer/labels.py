"""Labels: the table of classes that a task learned from the training examples, and the thresholds chosen for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Kind = Literal["single", "multi", "ordinal", "none"]


@dataclass(frozen=True)
class Labels:
    """Class names in the order of the model's outputs."""

    names: tuple[str, ...]
    kind: Kind = "single"
    """`single`: one class an example; `multi`: any number; `ordinal`: one of ordered ratings; `none`: no classes."""
    thresholds: tuple[float, ...] = ()
    """Multi-label: the probability from which a label is given, by class, chosen on validation."""

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, label: Any) -> np.ndarray:
        """The target of one example: int32 scalar, or float32 [C] of zeros and ones for multi-label.

        Raises:
            ValueError: for a label that no training example has.
        """
        if self.kind == "multi":
            target = np.zeros(len(self.names), np.float32)
            for name in label if isinstance(label, tuple) else (label,):
                target[self.index(name)] = 1.0
            return target
        return np.asarray(self.index(label), np.int32)

    def index(self, name: str) -> int:
        """The class index of a name.

        Raises:
            ValueError: for a label that no training example has.
        """
        try:
            return self.names.index(name)
        except ValueError:
            known = ", ".join(self.names[:20])
            raise ValueError(
                f"label {name!r} is in no training example. Expected one of: {known}. "
                "Add training examples of it, or correct the label."
            ) from None

    def with_thresholds(self, thresholds: Iterable[float]) -> Labels:
        """The same labels with decision thresholds."""
        return replace(self, thresholds=tuple(float(t) for t in thresholds))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"names": list(self.names), "kind": self.kind, "thresholds": list(self.thresholds)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Labels:
        """What `to_dict` described."""
        return cls(tuple(plain["names"]), plain["kind"], tuple(plain["thresholds"]))


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in a stable order: by number if all are numbers, else by text."""
    unique: Sequence[str] = sorted(set(names))
    try:
        return tuple(sorted(unique, key=float))
    except ValueError:
        return tuple(unique)
