"""What `tests/conftest.py` promises: photos that can be learned, an own cache, no network, and OFFLINE=1."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest_plugins = ["pytester"]


def test_photos_are_distinct_and_their_colour_tells_the_class(make_photo_folder, tmp_path):
    folder = make_photo_folder(tmp_path / "photos", ("train/a", "train/b", "train/c", "test/a"), count=4, size=32)
    files = sorted(folder.rglob("*.png"))
    assert len(files) == 16
    assert len({file.read_bytes() for file in files}) == 16
    colour = {file: np.asarray(Image.open(file), np.float32).mean((0, 1)) for file in files}
    centres = {name: np.mean([colour[f] for f in files if f.parent.name == name], 0) for name in "abc"}
    nearest = [min(centres, key=lambda name: np.linalg.norm(centres[name] - colour[file])) for file in files]
    assert nearest == [file.parent.name for file in files]


def test_photos_are_the_same_each_time(make_photo_folder, tmp_path):
    first, second = (make_photo_folder(tmp_path / name, count=2, ending=".jpg") for name in ("one", "two"))
    for file in first.rglob("*.jpg"):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()
    other = make_photo_folder(tmp_path / "three", count=2, ending=".jpg", seed=1)
    assert (first / "red/000.jpg").read_bytes() != (other / "red/000.jpg").read_bytes()


def test_an_offline_test_has_a_cache_of_its_own(cache):
    assert os.environ["KERAS_TRANSFER_CACHE"] == str(cache)
    assert cache.is_dir()


def test_an_offline_test_reaches_no_other_machine():
    with socket.socket() as out, pytest.raises(pytest.fail.Exception, match="keep it offline"):
        out.connect(("192.0.2.1", 80))


def test_an_offline_test_reaches_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as out:
        out.connect(server.getsockname())


@pytest.mark.parametrize(("offline", "counts"), [("1", {"passed": 1, "deselected": 1}), ("0", {"passed": 2})])
def test_offline_leaves_out_what_needs_samples(pytester, monkeypatch, offline, counts):
    pytester.makeconftest(Path(__file__).parents[1].joinpath("conftest.py").read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers = samples")
    pytester.makepyfile(
        "import os, pytest\n"
        "@pytest.mark.samples\n"
        "def test_sample(): assert os.environ['KERAS_TRANSFER_CACHE'] == '/their/cache'\n"
        "def test_own(): assert os.environ['KERAS_TRANSFER_CACHE'] != '/their/cache'\n"
    )
    monkeypatch.setenv("OFFLINE", offline)
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", "/their/cache")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(**counts)
