"""What all tests share: a quiet TensorFlow on two threads, a cache of their own, no network, and tiny photos.

Environment variables are set here, at import, since TensorFlow reads them once. A test marked `samples` sees the
user's own cache (so that a package file is fetched once, not once a run) and may reach the package index; any other
test gets an empty cache and no network.
"""

from __future__ import annotations

import colorsys
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")

import numpy as np
import pytest
from PIL import Image

CACHE_VARIABLE = "KERAS_TRANSFER_CACHE"
USER_CACHE = os.environ.get(CACHE_VARIABLE)
REACHES_OUT = {"samples", "network"}
"""Markers of tests that may use the network and the user's cache."""


def pytest_configure(config: pytest.Config) -> None:
    """Hides GPUs unless the tests that need one were asked for: results then do not depend on the machine."""
    wanted = config.option.markexpr
    if "gpu" not in wanted or "not gpu" in wanted:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """OFFLINE=1 leaves out the tests that need the package samples, and says so in the count of deselected tests."""
    if os.environ.get("OFFLINE", "") in ("", "0"):
        return
    left_out = [item for item in items if item.get_closest_marker("samples")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("samples")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Points the cache at its place before any fixture of the test is made."""
    if not REACHES_OUT.isdisjoint(mark.name for mark in item.iter_markers()):
        os.environ.pop(CACHE_VARIABLE, None)
        if USER_CACHE is not None:
            os.environ[CACHE_VARIABLE] = USER_CACHE
    else:
        os.environ[CACHE_VARIABLE] = str(_test_cache(item.config))


def _test_cache(config: pytest.Config) -> Path:
    """One empty folder for all offline tests of this process."""
    known = config.stash.get(_CACHE_KEY, None)
    if known is None:
        known = config.stash[_CACHE_KEY] = config._tmp_path_factory.mktemp("cache")
    return known


_CACHE_KEY = pytest.StashKey[Path]()


@pytest.fixture
def cache(request: pytest.FixtureRequest) -> Path:
    """The folder that KERAS_TRANSFER_CACHE names in an offline test; shared by all of them."""
    return _test_cache(request.config)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that connects to another machine without a marker that says so."""
    if not REACHES_OUT.isdisjoint(mark.name for mark in request.node.iter_markers()):
        return
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])  # type: ignore[index]
            if host not in ("127.0.0.1", "::1", "localhost"):
                pytest.fail(f"connects to {host}: mark the test `network` or `samples`, or keep it offline")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", only_here)


@pytest.fixture
def make_photo() -> Callable[..., Image.Image]:
    """`make_photo(kind, kinds, size=64, seed=0)`: one photo of a kind; see `draw_photo`."""
    return draw_photo


@pytest.fixture
def make_photo_folder() -> Callable[..., Path]:
    """`make_photo_folder(folder, classes=("red", "blue"), count=8, size=64, ending=".png", seed=0)`."""
    return write_photo_folder


@pytest.fixture
def photo_folder(tmp_path: Path) -> Iterator[Path]:
    """Sixteen photos of 64 px in two class folders."""
    yield write_photo_folder(tmp_path / "photos")


def write_photo_folder(
    folder: Path,
    classes: Sequence[str] = ("red", "blue"),
    count: int = 8,
    size: int = 64,
    ending: str = ".png",
    seed: int = 0,
) -> Path:
    """Class folders of photos that a small network can learn; no two files are equal.

    Args:
        folder: made if it is missing; another call with another seed adds no equal photo.
        classes: the folders' names, one or more; nested names such as `train/red` count as their last part, so that
            `("train/red", "train/blue")` and `("test/red", "test/blue")` look alike.
        count: photos in each class.
        size: width and height in pixels.
        ending: `.png`, `.jpg`, `.bmp`, `.webp`, `.gif`.
        seed: of the noise, and of where the stripes begin.
    """
    kinds = sorted({Path(name).name for name in classes})
    for name in classes:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            # The place in the seed keeps `train` and `test` from holding the same photo.
            own_seed = [seed, number, *name.encode()]
            photo = draw_photo(kinds.index(Path(name).name), len(kinds), size, own_seed)
            photo.save(place / f"{number:03d}{ending}")
    return folder


def draw_photo(kind: int, kinds: int, size: int = 64, seed: int | Sequence[int] = 0) -> Image.Image:
    """An RGB photo whose colour and stripes tell its kind, with noise that tells it from others of the kind.

    Args:
        kind: from 0 to below `kinds`.
        kinds: how many kinds there are; their hues are spread evenly.
        size: width and height in pixels.
        seed: of the noise.
    """
    random = np.random.default_rng(seed)
    colour = np.array(colorsys.hsv_to_rgb(kind / kinds, 0.7, 0.8)) * 255
    down, across = np.mgrid[0:size, 0:size] / size
    angle = np.pi * kind / kinds
    stripes = np.sin(2 * np.pi * (4 * (across * np.cos(angle) + down * np.sin(angle)) + random.random()))
    pixels = colour + 30 * stripes[..., None] + random.normal(0, 12, (size, size, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
