"""Tests of `keras_transfer.progress`: what is said, and in which file it ends."""

from __future__ import annotations

from pathlib import Path

from keras_transfer.progress import Log


def test_each_run_has_its_own_lines_also_those_from_before_its_file_was_known(tmp_path: Path) -> None:
    log = Log(quiet=True)
    for name in ("first", "second"):
        log.begin()
        log.say(f"reading {name}")
        log.write_to(tmp_path / name)
        log.warn(f"training {name}")
        lines = [line.split(" ", 1)[1] for line in (tmp_path / name).read_text().splitlines()]
        assert lines == [f"reading {name}", f"warning: training {name}"]
    (tmp_path / "second").unlink()
    log.begin()
    log.say("a folder that is gone does no harm")
    assert not (tmp_path / "second").exists()
