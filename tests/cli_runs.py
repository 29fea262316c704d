"""Runs `keras-transfer` as a user does: in a process of its own, or in this one, where TensorFlow is loaded already."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_transfer import cli

SMALL = ("--backbone.name", "mobilenet", "--backbone.weights", "none", "--backbone.image_size", "32")
"""A backbone of few layers, which is traced quickly, with random weights."""
UNPUBLISHED = ("--export.enabled", "false")
NO_FINE_TUNING = ("--fine_tune.epochs", "0")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.strip().splitlines()[-1])


def start(words: Sequence[str | Path], folder: Path, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own, running in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "keras_transfer", *map(str, words)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


def run_process(words: Sequence[str | Path], folder: Path) -> Outcome:
    """The command in a process of its own."""
    process = start(words, folder)
    out, err = process.communicate(timeout=300)
    return Outcome(process.returncode, out, err)


def run_here(words: Sequence[str | Path], folder: Path, standard_input: str = "") -> Outcome:
    """The command in this process, which saves the seconds of another start."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    given, sys.stdin = sys.stdin, io.StringIO(standard_input)
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main([str(word) for word in words])
    finally:
        os.chdir(before)
        sys.stdin = given
    return Outcome(status, out.getvalue(), err.getvalue())
