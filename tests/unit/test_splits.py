"""Splitting off what a source lacks: stable, grouped, stratified."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest

from keras_transfer.data import splits
from keras_transfer.data.findings import DataError
from keras_transfer.data.records import Record
from keras_transfer.recipe import DataSpec


def record(name: str, label: object = "a", content: str = "", group: str = "", **fields: object) -> Record:
    data = hashlib.blake2b((content or name).encode(), digest_size=16).digest()
    return Record(name, {"label": label, **fields}, name, data, group)


def many(count: int, label: object = "a", prefix: str = "x") -> list[Record]:
    return [record(f"{prefix}{n}", label) for n in range(count)]


def where(parts) -> dict[str, str]:
    return {r.id: name for name, records in parts.named() for r in records}


def sizes(parts) -> tuple[int, int, int]:
    return len(parts.train), len(parts.validation), len(parts.tests.get("test", ()))


def test_shares_are_kept_approximately_in_each_class():
    raw = {"all": many(2000, "a", "a") + many(1000, "b", "b")}
    parts = splits.split(raw, DataSpec(validation_share=0.2, test_share=0.1))
    assert sum(sizes(parts)) == 3000
    for label, count in (("a", 2000), ("b", 1000)):
        assert sum(r.fields["label"] == label for r in parts.validation) == pytest.approx(0.2 * count, rel=0.2)
        assert sum(r.fields["label"] == label for r in parts.tests["test"]) == pytest.approx(0.1 * count, rel=0.25)


def test_order_makes_no_difference():
    records = many(200, "a", "a") + many(5, "b", "b")
    shuffled = random.Random(0).sample(records, len(records))
    assert where(splits.split({"all": records}, DataSpec())) == where(splits.split({"all": shuffled}, DataSpec()))


def test_added_files_move_no_other():
    records = many(300)
    before = where(splits.split({"all": records}, DataSpec()))
    after = where(splits.split({"all": records + many(300, "b", "new") + many(200, "a", "more")}, DataSpec()))
    assert {k: after[k] for k in before} == before


@pytest.mark.parametrize("count", range(1, 12))
def test_small_classes_are_where_they_must_be(count):
    for trial in range(30):
        parts = splits.split({"all": many(count, "rare", f"{trial}-") + many(50, "b", "b")}, DataSpec())
        held = [
            sum(r.fields["label"] == "rare" for r in part)
            for part in (parts.train, parts.validation, parts.tests["test"])
        ]
        assert held[0] >= 1
        assert sum(held) == count
        if count >= 3:
            assert min(held) >= 1, f"trial {trial}: {held}"


def test_an_example_more_moves_at_most_two_of_a_small_class():
    for trial in range(50):
        others = many(60, "b", "b")
        few = many(8, "rare", f"{trial}-")
        before = where(splits.split({"all": few[:7] + others}, DataSpec()))
        after = where(splits.split({"all": few + others}, DataSpec()))
        assert sum(before[k] != after[k] for k in before) <= 2


def test_duplicates_fall_together():
    raw = {"all": [record(f"{n}-{copy}", "ab"[copy], content=f"c{n}") for n in range(100) for copy in range(2)]}
    found = where(splits.split(raw, DataSpec()))
    assert all(found[f"{n}-0"] == found[f"{n}-1"] for n in range(100))
    assert set(found.values()) == {"train", "validation", "test"}


def test_groups_stay_together():
    raw = {"all": [record(f"{g}-{n}", "ab"[n % 2], group=f"patient{g}") for g in range(60) for n in range(4)]}
    found = where(splits.split(raw, DataSpec()))
    for group in range(60):
        assert len({found[f"{group}-{n}"] for n in range(4)}) == 1
    assert set(found.values()) == {"train", "validation", "test"}


def test_groups_that_share_an_example_are_one():
    raw = {
        "all": [
            record(f"{g}-{n}", content=f"shared{g // 2}" if n == 0 else "", group=f"p{g}")
            for g in range(80)
            for n in range(3)
        ]
    }
    found = where(splits.split(raw, DataSpec()))
    for pair in range(40):
        assert len({found[f"{g}-{n}"] for g in (2 * pair, 2 * pair + 1) for n in range(3)}) == 1


def test_questions_of_a_context_stay_together():
    raw = {
        "all": [
            Record(f"{c}-{q}", {"question": f"q{q}", "context": f"context {c}", "answers": []}, "w", bytes([c, q]) * 8)
            for c in range(60)
            for q in range(5)
        ]
    }
    found = where(splits.split(raw, DataSpec()))
    assert all(len({found[f"{c}-{q}"] for q in range(5)}) == 1 for c in range(60))
    assert set(found.values()) == {"train", "validation", "test"}


def test_given_splits_are_kept():
    raw = {"train": many(100), "test": many(7, prefix="t"), "test_rain": many(3, prefix="r")}
    parts = splits.split(raw, DataSpec())
    assert [r.id for r in parts.tests["test"]] == [f"t{n}" for n in range(7)]
    assert len(parts.tests["test_rain"]) == 3
    assert 5 <= len(parts.validation) <= 30
    assert {r.id[0] for r in (*parts.train, *parts.validation)} == {"x"}


def test_only_the_missing_split_is_split_off():
    parts = splits.split({"train": many(200), "validation": many(9, prefix="v")}, DataSpec())
    assert len(parts.validation) == 9
    assert len(parts.tests["test"]) > 10


def test_no_shares_no_splits():
    parts = splits.split({"all": many(50)}, DataSpec(validation_share=0, test_share=0))
    assert (sizes(parts), parts.tests) == ((50, 0, 0), {})


def test_several_labels_go_by_hash_only():
    raw = {"all": [record(f"x{n}", ("a", f"only{n}")) for n in range(200)]}
    parts = splits.split(raw, DataSpec())
    assert sizes(parts)[1] > 10 and sizes(parts)[2] > 10


def test_limit_is_stratified_and_nested():
    raw = {
        "train": many(900, "a", "a") + many(90, "b", "b") + many(10, "c", "c"),
        "validation": many(1, prefix="v"),
        "test": many(1, prefix="t"),
    }
    some = splits.split(raw, DataSpec(limit=100)).train
    assert Counter(r.fields["label"] for r in some) == {"a": 90, "b": 9, "c": 1}
    more = splits.split(raw, DataSpec(limit=300)).train
    assert {r.id for r in some} <= {r.id for r in more}
    assert [r.id for r in some] == [r.id for r in raw["train"] if r.id in {s.id for s in some}], "their own order"


def test_limit_below_the_classes():
    with pytest.raises(DataError, match="data.limit 2 is less than the 3 classes"):
        splits.split({"train": many(9, "a") + many(9, "b", "b") + many(9, "c", "c")}, DataSpec(limit=2))


@pytest.mark.parametrize(("limit", "expected"), [(3, [1, 1, 1]), (5, [3, 1, 1])])
def test_limit_keeps_every_class(limit, expected):
    raw = {
        "train": many(900, "a") + many(2, "b", "b") + many(2, "c", "c"),
        "validation": many(1, prefix="v"),
        "test": many(1, prefix="t"),
    }
    counts = Counter(r.fields["label"] for r in splits.split(raw, DataSpec(limit=limit)).train)
    assert [counts[c] for c in "abc"] == expected


def test_no_training_examples():
    with pytest.raises(DataError, match="no training examples. Received: test: 2"):
        splits.split({"test": many(2)}, DataSpec())
