"""Finding: one thing that is wrong with the data, by file; and the errors that list findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_transfer.data.records import Record

Severity = Literal["stop", "warn"]

LISTED = 20
"""Files that a finding names; the count says how many there are."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, wherever it occurs."""

    kind: str
    """A word to select by, such as `unreadable_file`, `same_in_two_splits`, `malformed_table`."""
    severity: Severity
    """`stop`: no training starts; `warn`: it is said."""
    message: str
    """What is wrong, with numbers; without the files and without a full stop."""
    files: tuple[str, ...] = ()
    """The first files, or file:line, up to `LISTED`."""
    count: int = 1
    """How many there are."""
    mend: str = ""
    """What to do about it."""
    ids: frozenset[str] = field(default=frozenset(), repr=False)
    """All records that `bad_files="skip"` leaves out for it; empty where skipping is no mend."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as `keras-transfer check --json` prints them."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "message": self.message,
            "files": list(self.files),
            "count": self.count,
            "mend": self.mend,
        }

    def __str__(self) -> str:
        shown = "".join(f"\n      {file}" for file in self.files)
        left = self.count - len(self.files)
        more = f"\n      and {left:,} more" if self.files and left > 0 else ""
        mend = f"\n      Mend: {self.mend}" if self.mend else ""
        return f"{self.kind}: {self.message}{shown}{more}{mend}"


def find(
    kind: str, severity: Severity, message: str, files: Sequence[str] = (), mend: str = "", count: int | None = None
) -> Finding:
    """A finding that names the first files and counts them all (at least one thing is wrong)."""
    return Finding(
        kind, severity, message, tuple(files[:LISTED]), count if count is not None else max(1, len(files)), mend
    )


class DataError(ValueError):
    """Lists all that keeps some data from being used, each with its files and its mend."""

    def __init__(self, findings: Iterable[Finding] | Finding, raw: Raw | None = None):
        self.findings = (findings,) if isinstance(findings, Finding) else tuple(findings)
        self.raw = raw
        """What could be read, where something could."""
        lines = [f"  - {finding}" for finding in self.findings]
        super().__init__("\n".join(["The data cannot be used:", *lines]))


class Raw(dict[str, list[Record]]):
    """Split name to records (`all` where the source has no splits), and what was noticed while they were read."""

    def __init__(
        self,
        splits: Mapping[str, list[Record]] | Iterable[tuple[str, list[Record]]] = (),
        findings: Iterable[Finding] = (),
    ):
        super().__init__(splits)
        self.findings = list(findings)
