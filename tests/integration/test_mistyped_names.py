"""A mistyped name is found before the data is read, which may take long."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import SMALL, run_here
from conftest import write_photo_folder

from keras_transfer.data import checks


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos that nobody may read."""

    def read(*arguments: object) -> None:
        raise AssertionError("the data was read")

    monkeypatch.setattr(checks, "check_source", read)
    return write_photo_folder(tmp_path / "photos", ("red", "blue"), 4, 40)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--backbone.name", "resnet5o"], ("did you mean resnet50", "'resnet5o'")),
        (["--backbone.name", "run:runs/none"], ("runs/none", "finished model.keras")),
        (["--backbone.name", "minilm"], ("backbone of images", "efficientnet_lite0", "'minilm'")),
        (["--backbone.name", "bert_tiny_en_uncased"], ("backbone of images", "'bert_tiny_en_uncased'")),
        ([*SMALL[:2], "--backbone.weights", "best.weights.h5"], ("'best.weights.h5'", "no such file")),
        ([*SMALL[:2], "--backbone.weights", "imagenett"], ("did you mean imagenet",)),
        ([*SMALL, "--fine_tune.trainable", "lats:2"], ("fine_tune.trainable", "did you mean last")),
        ([*SMALL, "--fine_tune.trainable", "from:block_99"], ("fine_tune.trainable", "no block or layer 'block_99'")),
        ([*SMALL, "--fine_tune.trainable", "layers:nothing*"], ("fine_tune.trainable", "nothing*")),
        ([*SMALL, "--backbone.features_at", "nowhere"], ("backbone.features_at", "'nowhere'")),
    ],
)
def test_it_is_found_before_the_data_is_read(photos: Path, words: list[str], says: tuple[str, ...]) -> None:
    done = run_here(["fit", photos, *words], photos.parent)
    assert done.status == 1 and "the data was read" not in done.err
    for part in says:
        assert part in done.err, done.err
    assert not (photos.parent / "runs").exists()


@pytest.mark.parametrize("name", ["resnet50", "bart_base_en", "resnet_18_imagenet"])
def test_a_backbone_of_another_kind_is_found_before_texts_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(checks, "check_source")  # so that whoever reads the data fails otherwise
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    done = run_here(["fit", tmp_path / "train.csv", "--backbone.name", name], tmp_path)
    assert done.status == 1 and f"{name!r}, which is none" in done.err
    assert "backbone of texts" in done.err and "minilm" in done.err and "DebertaV3" in done.err


def test_all_mistyped_names_come_at_once(photos: Path) -> None:
    words = ["--backbone.name", "resnet5o", "--backbone.weights", "no.h5", "--fine_tune.trainable", "lats:2"]
    done = run_here(["fit", photos, *words], photos.parent)
    assert all(name in done.err for name in ("resnet5o", "no.h5", "lats:2"))


def test_a_name_that_is_right_is_no_fault(photos: Path) -> None:
    done = run_here(["fit", photos, *SMALL, "--fine_tune.trainable", "from:conv_pw_12", "--dry-run"], photos.parent)
    assert done.status == 1 and "the data was read" in done.err
