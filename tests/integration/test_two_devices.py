"""Two logical devices train as one: both phases, augmentation, an uneven last batch, clipping by the global norm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parent / "train_on_devices.py"


def test_two_devices_give_the_losses_and_weights_of_one(tmp_path, make_photo_folder):
    photos = tmp_path / "photos"
    make_photo_folder(photos, classes=("red", "blue"), count=18, size=40)
    found = []
    for count in (1, 2):
        out = tmp_path / f"{count}.npz"
        command = [sys.executable, str(SCRIPT), str(count), str(photos), str(out)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(dict(np.load(out)))
    one, two = found
    assert len(one["losses"]) > 6
    np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-5, rtol=1e-5)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, err_msg=name)
