"""The peers' own environment: made once, apart from the project's, from pinned packages."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / ".venv"
REQUIREMENTS = HERE / "requirements.txt"
PYTHON = "python3.11"
"""With which the pinned packages were tested."""


def python() -> Path:
    """The interpreter of the environment, which is made where it is missing or its requirements have changed."""
    interpreter = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = FOLDER / ".installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if interpreter.exists() and stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    maker = shutil.which(PYTHON)
    if maker is None:
        raise SystemExit(
            f"benchmarks/peers: expected {PYTHON} on the path. Received: none. Install it: the packages in "
            f"{REQUIREMENTS.name} are pinned for it."
        )
    print(f"installing {REQUIREMENTS.name} into {FOLDER} (6 GB on disk, minutes) …", file=sys.stderr, flush=True)
    subprocess.run([maker, "-m", "venv", "--clear", str(FOLDER)], check=True)
    # So that git ignores the environment wherever it is made.
    (FOLDER / ".gitignore").write_text("*\n")
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
    stamp.write_text(wanted)
    return interpreter
