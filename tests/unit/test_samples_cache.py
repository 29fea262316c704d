"""The cache folder, and folders that are made once."""

import threading
import time

import pytest

from keras_transfer.samples import SampleError, cache
from keras_transfer.samples.cache import build_once, cache_folder, check_space


def test_the_variable_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    assert not (tmp_path / "here").exists()


def test_without_the_variable_it_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", " ")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().name == "keras_transfer"
    assert cache_folder().is_absolute()


def test_builds_once(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "file").write_text("x")

    for _ in range(2):
        assert build_once(tmp_path / "a" / "1", build) == tmp_path / "a" / "1"
    assert len(built) == 1
    assert (tmp_path / "a" / "1" / "file").read_text() == "x"


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        build_once(tmp_path / "a", fail)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []
    build_once(tmp_path / "a", lambda folder: (folder / "whole").touch())
    assert (tmp_path / "a" / "whole").exists()


def test_the_folder_appears_only_when_whole(tmp_path):
    def build(folder):
        (folder / "one").touch()
        assert not (tmp_path / "a").exists()

    build_once(tmp_path / "a", build)


def test_what_an_interrupted_process_left_is_removed(tmp_path):
    (tmp_path / ".a.0123.partial").mkdir()
    (tmp_path / ".other.0123.partial").mkdir()
    build_once(tmp_path / "a", lambda folder: None)
    assert not (tmp_path / ".a.0123.partial").exists()
    assert (tmp_path / ".other.0123.partial").exists()


@pytest.mark.parametrize("locks", [True, False])
def test_two_at_once_end_with_one_whole_folder(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(cache, "fcntl", None)
    built, faults = [], []

    def build(folder):
        built.append(folder)
        time.sleep(0.2)
        (folder / "file").write_text("x")

    def run():
        try:
            build_once(tmp_path / "a", build)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert (tmp_path / "a" / "file").read_text() == "x"
    assert len(built) == 1 or not locks
    assert not list(tmp_path.glob("*.partial"))


def test_a_cache_that_cannot_be_written_is_named_with_the_variable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SampleError, match=r"file/a: cannot be written.*KERAS_TRANSFER_CACHE"):
        build_once(tmp_path / "file" / "a" / "1", lambda folder: None)


def test_a_full_disk_is_said_before(tmp_path):
    check_space(tmp_path, 0.001, "sample x")
    with pytest.raises(SampleError, match=r"sample x: needs 1000000000000 MB.*Free on that disk: \d+ MB"):
        check_space(tmp_path, 1e12, "sample x")
