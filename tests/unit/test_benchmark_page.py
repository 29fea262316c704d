"""The page of benchmarks: what is kept after a cut, what is marked as provisional, what is chosen; no TensorFlow."""

from __future__ import annotations

import argparse
import json
import sys
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """`run` and `measuring`, which are scripts beside each other and no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("run", "measuring", "texts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import run

    yield run
    for name in ("run", "measuring"):
        sys.modules.pop(name, None)


def made(bench, monkeypatch: pytest.MonkeyPatch, *whats: str, cut: bool = False, share: float = 0.0) -> None:
    """A benchmark of these rows in the place of `texts`, on a machine that others use so much."""
    from measuring import Row, Sample

    def measure(quick: bool, chosen: str = ""):
        for what in whats:
            yield Row(what, "the plain way", "3", [Sample(1.0, 2.0)], [Sample(4.0, 6.0), Sample(6.0, 6.0)], "a note")
        if cut:
            raise KeyboardInterrupt

    module = types.ModuleType("texts")
    module.measure = measure  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "texts", module)
    monkeypatch.setattr(bench.OtherWork, "share", lambda self: share)


def test_a_row_is_written_when_it_is_measured_and_a_cut_keeps_it(bench, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    made(bench, monkeypatch, "one", cut=True)
    with pytest.raises(KeyboardInterrupt):
        bench._measure("texts", False, page)
    assert "| one | the plain way | 3 | 5.00 (4.00 to 6.00) | 3.00" in page.read_text() and "1 / 2" in page.read_text()
    assert not bench._is_done(bench._read(page)["texts"])
    made(bench, monkeypatch, "two", cut=True)
    with pytest.raises(KeyboardInterrupt):
        bench._measure("texts", False, page)
    assert [row["row"]["what"] for row in bench._read(page)["texts"]] == ["two", "one"]
    made(bench, monkeypatch, "one", "three")
    bench._measure("texts", False, page)
    assert [row["row"]["what"] for row in bench._read(page)["texts"]] == ["one", "three"]
    assert bench._is_done(bench._read(page)["texts"]) and "Provisional" not in page.read_text()


@pytest.mark.parametrize(("quick", "share", "reason"), [(True, 0.0, "--quick"), (False, 0.5, "busy")])
def test_what_cannot_be_relied_on_is_marked_and_counts_as_missing(bench, monkeypatch, tmp_path, quick, share, reason):
    made(bench, monkeypatch, "one", share=share)
    bench._measure("texts", quick, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "**Provisional** (all rows)" in text and reason in text
    assert not bench._is_done(bench._read(tmp_path / "page.md")["texts"])


def test_other_benchmarks_stay_on_the_page(bench, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    about = {"provisional": [], "others": 0, "machine": "m", "when": "w", "seconds": 1, "complete": True}
    page.with_suffix(".json").write_text(json.dumps({"starting": [{"report": "| kept |", **about}]}))
    made(bench, monkeypatch, "one")
    bench._measure("texts", False, page)
    assert page.read_text().index("## Texts batched by length") < page.read_text().index("## Starting\n| kept |")


def test_parts_are_chosen_by_name(bench):
    parser = argparse.ArgumentParser()
    assert bench._parts(parser, "head_phase,texts") == ["head_phase.digits", "head_phase.reviews", "texts"]
    assert bench._parts(parser, "fine_tuning.reviews") == ["fine_tuning.reviews"]
    assert set(bench._parts(parser, "")) > {"whole_run", "views", "exported", "growing"}
    for name, (_, parts) in bench.BENCHMARKS.items():
        assert (BENCHMARKS / f"{name}.py").is_file() and isinstance(parts, tuple)
    with pytest.raises(SystemExit):
        bench._parts(parser, "nothing")


@pytest.mark.parametrize(
    ("elapsed", "busy", "own", "share"),
    [
        pytest.param(10.0, 14.0, 8.0, 0.3, id="others took six of twenty seconds"),
        pytest.param(10.0, 8.0, 8.01, 0.0, id="two clocks that differ a little"),
        pytest.param(1e-4, 0.01, 0.0, 1.0, id="one tick in a shorter time"),
    ],
)
def test_other_work_is_a_share_of_the_machine(bench, monkeypatch, elapsed, busy, own, share):
    measuring = sys.modules[bench.OtherWork.__module__]
    monkeypatch.setattr(measuring.time, "perf_counter", iter([100.0, 100.0 + elapsed]).__next__)
    monkeypatch.setattr(measuring, "_machine_seconds", iter([50.0, 50.0 + busy]).__next__)
    monkeypatch.setattr(measuring, "_own_seconds", iter([20.0, 20.0 + own]).__next__)
    monkeypatch.setattr(measuring.os, "cpu_count", lambda: 2)
    other = bench.OtherWork()
    assert other.share() == pytest.approx(share)


def test_idle_and_waiting_processors_are_not_busy(bench, monkeypatch, tmp_path):
    measuring = sys.modules[bench.OtherWork.__module__]
    stat = tmp_path / "stat"
    stat.write_text("cpu  1000 200 300 40000 5000 60 70 80 900 900\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    monkeypatch.setattr(measuring, "Path", lambda name: stat)
    monkeypatch.setattr(measuring.os, "sysconf", lambda name: 100)
    assert measuring._machine_seconds() == pytest.approx(17.1)
    stat.unlink()
    assert measuring._machine_seconds() is None
