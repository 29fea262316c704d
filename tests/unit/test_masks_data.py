"""Images with masks: folders, tables and COCO's polygons; how values are read, and what is wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_tfds
from conftest import draw_photo
from PIL import Image

from keras_transfer import recipe as recipes
from keras_transfer import recipe_faults
from keras_transfer.data import checks, mask_files, sources, splits
from keras_transfer.data.findings import Finding, Raw
from keras_transfer.recipe import DataSpec

WIDTH, HEIGHT = 64, 48


def photo(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_photo(seed % 3, 3, WIDTH, seed).resize((WIDTH, HEIGHT)).save(path, **options)
    return path


def text(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def halves(*values: int, shift: int = 0) -> np.ndarray:
    """[48, 64] of upright stripes, one a value, of equal width but for the first, which is wider."""
    edges = np.linspace(0, WIDTH, len(values) + 1).astype(int)[1:-1] + shift + 1
    return np.array(values)[np.searchsorted(edges, np.arange(WIDTH), side="right")][None].repeat(HEIGHT, 0)


def save(path: Path, mask: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8)).save(path, **options)
    return path


def folder(root: Path, masks: Sequence[np.ndarray], start: int = 0) -> Path:
    """`images/` and `masks/` with the stems 0, 1, …"""
    for number, mask in enumerate(masks):
        photo(root / f"images/{number}.jpg", start + number)
        save(root / f"masks/{number}.png", mask)
    return root


def stripes(count: int = 4, *values: int) -> list[np.ndarray]:
    return [halves(*(values or (0, 1)), shift=number) for number in range(count)]


def load(source: object, task: str = "", **spec: object) -> Raw:
    return sources.load(DataSpec(source=str(source), **spec), task)


def findings(source: object, task: str = "", **spec: object) -> dict[str, Finding]:
    return {found.kind: found for found in checks.inspect(DataSpec(source=str(source), **spec), task)}


def refused(source: object, kind: str, *said: str, task: str = "") -> Finding:
    stops = [found for found in checks.inspect(DataSpec(source=str(source)), task) if found.severity == "stop"]
    assert [finding.kind for finding in stops] == [kind], stops
    shown = f"{stops[0].message} {stops[0].files}"
    for word in said:
        assert word in shown, (word, shown)
    assert stops[0].mend
    return stops[0]


def masks_of(raw: Raw, split: str = "all") -> list[np.ndarray]:
    """What a task reads, which must be grey PNG of 8 bits."""
    found = []
    for record in raw[split]:
        assert record.fields["mask"].endswith(".png")
        with Image.open(record.fields["mask"]) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            found.append(np.asarray(image))
            counts = [int((found[-1] == index).sum()) for index in range(len(record.fields["classes"]))]
            assert record.fields["pixels"] == tuple(counts)
    return found


# --- encodings


def test_grey_indices_are_used_where_they_are(tmp_path):
    raw = load(folder(tmp_path, stripes(4, 0, 1, 255)))
    first = raw["all"][0]
    assert first.id == "images/0.jpg" and len(first.content) == len(first.target) == 16
    assert first.fields["mask"] == str(tmp_path / "masks/0.png") and first.fields["classes"] == ("0", "1")
    assert first.fields["pixels"] == (22 * HEIGHT, 21 * HEIGHT), "255 does not count"
    assert raw.findings == []
    np.testing.assert_array_equal(masks_of(raw)[0], halves(0, 1, 255))


def test_names_of_classes(tmp_path):
    text(folder(tmp_path, stripes(4, 0, 2)) / "classes.txt", "background\ncat\ndog\n")
    raw = load(tmp_path)
    assert raw["all"][0].fields["classes"] == ("background", "cat", "dog")
    assert raw["all"][0].fields["pixels"] == (33 * HEIGHT, 0, 31 * HEIGHT)
    assert findings(tmp_path)["class_without_example"].files == ("cat",)


def test_another_ignore_index(tmp_path):
    folder(tmp_path, stripes(4, 0, 1, 2))
    raw = load(tmp_path, ignore_index=0)
    assert raw["all"][0].fields["classes"] == ("1", "2")
    np.testing.assert_array_equal(masks_of(raw)[0], halves(255, 0, 1))


def test_no_ignore_index(tmp_path):
    raw = load(folder(tmp_path, stripes(4, 0, 1, 255)), ignore_index=-1)
    assert raw["all"][0].fields["classes"] == ("0", "1", "255")
    np.testing.assert_array_equal(masks_of(raw)[0], halves(0, 1, 2))


def test_an_ignore_index_that_no_mask_can_hold_is_refused():
    changed = recipes.override(recipes.Recipe(), {"data.source": "x", "data.ignore_index": 256})
    with pytest.raises(recipes.RecipeError, match="data.ignore_index: expected 0 to 255, or -1"):
        recipe_faults.check(changed)


def test_values_with_gaps_are_named_by_value(tmp_path):
    raw = load(folder(tmp_path, [*stripes(3, 0, 100), halves(0, 200)]))
    assert raw["all"][0].fields["classes"] == ("0", "100", "200")
    np.testing.assert_array_equal(masks_of(raw)[3], halves(0, 2))


def test_masks_of_zero_and_255_are_binary(tmp_path):
    raw = load(folder(tmp_path, [*stripes(3, 0, 255), halves(0)]))
    assert raw["all"][0].fields["classes"] == ("0", "1")
    np.testing.assert_array_equal(masks_of(raw)[0], halves(0, 1))
    (finding,) = raw.findings
    assert (finding.kind, finding.severity) == ("binary_masks", "warn") and "255 is read as class 1" in finding.message


def test_binary_is_told_from_all_masks(tmp_path):
    raw = load(folder(tmp_path, [*stripes(3, 0, 255), halves(0, 1)]))
    assert raw.findings == [] and masks_of(raw)[0][0, -1] == 255


def test_binary_is_told_over_all_splits(tmp_path):
    folder(tmp_path / "train", stripes(3, 0, 255))
    folder(tmp_path / "test", [halves(0, 1)], start=5)
    raw = load(tmp_path)
    assert raw.findings == [] and masks_of(raw, "train")[0][0, -1] == 255


def test_a_palette_is_read_as_indices(tmp_path):
    folder(tmp_path, stripes())
    for number in range(4):
        image = Image.fromarray(halves(0, 1, 2, 255, shift=number).astype(np.uint8), "P")
        image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, *[9] * 759])
        image.save(tmp_path / f"masks/{number}.png")
    raw = load(tmp_path)
    np.testing.assert_array_equal(masks_of(raw)[0], halves(0, 1, 2, 255))
    assert raw["all"][0].fields["classes"] == ("0", "1", "2")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_read_as_indices(tmp_path, bits):
    folder(tmp_path, stripes())
    for number in range(4):
        mask = halves(0, 1, shift=number).astype(np.uint8)
        # Written by hand, since Pillow saves no grey of 2 and 4 bits.
        text_free_png(tmp_path / f"masks/{number}.png", mask, bits)
    np.testing.assert_array_equal(masks_of(load(tmp_path))[0], halves(0, 1))


def text_free_png(path: Path, mask: np.ndarray, bits: int) -> None:
    """A grey PNG of so many bits a pixel (W3C PNG, sections 7 and 11)."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = mask.shape
    spread = (mask[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(spread.reshape(height, width * bits), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_sixteen_bits(tmp_path):
    folder(tmp_path, stripes())
    for number in range(4):
        Image.fromarray(halves(0, 1, shift=number).astype(np.uint16)).save(tmp_path / f"masks/{number}.png")
    np.testing.assert_array_equal(masks_of(load(tmp_path))[0], halves(0, 1))


COLOURS = np.array([[0, 0, 0], [0, 128, 0], [128, 0, 0], [10, 20, 30]])


def colour_maps(root: Path, *values: int) -> Path:
    return folder(root, [COLOURS[mask] for mask in stripes(4, *values)])


def test_a_colour_map_with_a_list(tmp_path):
    text(
        colour_maps(tmp_path, 0, 1, 2) / "class_dict.csv", 'name,r,g,b\nroad,128,0,0\nsky,0,0,0\n"tree, old",0,128,0\n'
    )
    raw = load(tmp_path)
    assert raw["all"][0].fields["classes"] == ("road", "sky", "tree, old")
    np.testing.assert_array_equal(masks_of(raw)[0], halves(1, 2, 0))


def test_a_palette_is_read_as_colours_where_colours_are_listed(tmp_path):
    folder(tmp_path, stripes())
    for number in range(4):
        image = Image.fromarray(halves(5, 9, shift=number).astype(np.uint8), "P")
        image.putpalette([value for index in range(256) for value in (index * 10 % 256, 0, 0)])
        image.save(tmp_path / f"masks/{number}.png")
    text(tmp_path / "class_dict.csv", "name,r,g,b\nroad,90,0,0\nsky,50,0,0\n")
    np.testing.assert_array_equal(masks_of(load(tmp_path))[0], halves(1, 0))


def test_a_colour_that_does_not_count(tmp_path):
    text(colour_maps(tmp_path, 0, 1, 2) / "classes.txt", "sky 0 0 0\ngreen tree 0 128 0\nignore 128 0 0\n")
    raw = load(tmp_path)
    assert raw["all"][0].fields["classes"] == ("sky", "green tree")
    np.testing.assert_array_equal(masks_of(raw)[0], halves(0, 1, 255))


def test_a_colour_map_without_a_list(tmp_path):
    raw = load(colour_maps(tmp_path, 2, 0, 1))
    assert raw["all"][0].fields["classes"] == ("#000000", "#008000", "#800000")
    np.testing.assert_array_equal(masks_of(raw)[0], halves(2, 0, 1))
    assert [finding.kind for finding in raw.findings] == ["unnamed_colours"]


def test_grey_stored_as_colour_is_grey(tmp_path):
    folder(tmp_path, [np.repeat(mask[..., None], 3, 2) for mask in stripes(4, 0, 255)])
    np.testing.assert_array_equal(masks_of(load(tmp_path))[0], halves(0, 1))


def test_masks_are_converted_once(tmp_path, monkeypatch):
    colour_maps(tmp_path, 0, 1)
    before = masks_of(load(tmp_path))
    monkeypatch.setattr(mask_files, "_look", lambda *_: pytest.fail("read again"))
    raw = load(tmp_path)
    np.testing.assert_array_equal(masks_of(raw), before)
    monkeypatch.undo()
    text(tmp_path / "class_dict.csv", "name,r,g,b\na,0,128,0\nb,0,0,0\n")
    assert masks_of(load(tmp_path))[0][0, 0] == 1, "another list gives other masks"


def test_masks_in_place_that_moved_are_found(tmp_path):
    folder(tmp_path / "a", stripes())
    load(tmp_path / "a")
    os.rename(tmp_path / "a", tmp_path / "b")
    assert load(tmp_path / "b")["all"][0].fields["mask"] == str(tmp_path / "b/masks/0.png")


# --- layouts


def test_folders_of_splits_on_top_and_inside(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        folder(tmp_path / "top" / split, stripes(3), start=10 * number)
        for kind in ("images", "masks"):
            (tmp_path / "inside" / kind).mkdir(parents=True, exist_ok=True)
            os.symlink(tmp_path / "top" / split / kind, tmp_path / "inside" / kind / split)
    for root, first in (("top", "val/images/0.jpg"), ("inside", "images/val/0.jpg")):
        raw = load(tmp_path / root)
        assert [(name, len(records)) for name, records in raw.items()] == [("train", 3), ("validation", 3), ("test", 3)]
        assert raw["validation"][0].id == first


def test_masks_with_a_suffix_in_their_name(tmp_path):
    folder(tmp_path, stripes())
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    assert len(load(tmp_path)["all"]) == 4


def test_table_of_masks(tmp_path):
    folder(tmp_path, stripes())
    rows = "".join(f"images/{n}.jpg,masks/{n}.png,{n % 2}\n" for n in range(4))
    raw = load(text(tmp_path / "t.csv", f"path,mask,group\n{rows}"))
    assert [record.group for record in raw["all"]] == ["0", "1", "0", "1"] and raw["all"][0].id == "images/0.jpg"
    path = text(tmp_path / "u.csv", f"path,mask,group\n{rows}images/0.jpg,,\nimages/0.jpg,absent.png,\n")
    refused(path, "missing_mask", f"{path}:6", "absent.png")


def test_masks_fit_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder(tmp_path, stripes(3))
    photo(tmp_path / "images/3.jpg", 3, exif=exif)
    save(tmp_path / "masks/3.png", halves(0, 1).T)
    assert len(load(tmp_path)["all"]) == 4
    save(tmp_path / "masks/3.png", halves(0, 1))
    finding = refused(tmp_path, "mask_size", "masks/3.png", "64×48", "48×64")
    assert "Exif" in finding.mend


# --- faults


def blurred(root: Path) -> None:
    Image.fromarray(halves(0, 1).astype(np.uint8)).save(root / "masks/1.png", "JPEG")


def garbled(root: Path) -> None:
    (root / "masks/1.png").write_bytes(b"no image")


def cut(root: Path) -> None:
    content = (root / "masks/1.png").read_bytes()
    (root / "masks/1.png").write_bytes(content[: len(content) // 2])


MASK_FAULTS = {
    "small": (lambda root: save(root / "masks/1.png", halves(0, 1)[:-1]), "mask_size", "masks/1.png", "64×47"),
    "unknown": (lambda root: save(root / "masks/1.png", halves(0, 7)), "unknown_mask_value", "masks/1.png", "7 ("),
    "missing": (lambda root: (root / "masks/1.png").unlink(), "missing_mask", "images/1.jpg", ""),
    "lossy": (blurred, "unreadable_mask", "masks/1.png", "JPEG changes values"),
    "garbled": (garbled, "unreadable_mask", "masks/1.png", "cannot identify"),
    "cut off": (cut, "unreadable_mask", "masks/1.png", ""),
    "colours": (
        lambda root: save(root / "masks/1.png", COLOURS[halves(0, 1)]),
        "unreadable_mask",
        "masks/1.png",
        "a colour map, the other masks are indices",
    ),
}


@pytest.mark.parametrize("fault", MASK_FAULTS)
def test_faults_are_named_and_can_be_skipped(tmp_path, fault):
    change, kind, *said = MASK_FAULTS[fault]
    text(folder(tmp_path, stripes()) / "classes.txt", "background\nobject\n")
    change(tmp_path)
    refused(tmp_path, kind, *said)
    raw = load(tmp_path, bad_files="skip")
    assert [record.id for record in raw["all"]] == [f"images/{n}.jpg" for n in (0, 2, 3)]
    assert [(finding.kind, finding.severity) for finding in raw.findings] == [(kind, "warn")]


def test_unknown_colours_are_named(tmp_path):
    text(colour_maps(tmp_path, 0, 1) / "class_dict.csv", "name,r,g,b\na,0,0,0\nb,0,128,0\n")
    save(tmp_path / "masks/2.png", COLOURS[halves(0, 1, 3)])
    finding = refused(tmp_path, "unknown_mask_value", "masks/2.png", "#0a141e (1008 pixels)")
    assert "class_dict.csv" in finding.mend and "ignore" in finding.mend


def test_colour_maps_with_names_but_no_colours(tmp_path):
    text(colour_maps(tmp_path, 0, 1) / "classes.txt", "a\nb\n")
    refused(tmp_path, "unknown_colours", "#008000")


def test_instance_ids_are_no_classes(tmp_path):
    masks = [np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % (100 + number) for number in range(3)]
    finding = refused(folder(tmp_path, masks), "too_many_mask_values", "102 different values")
    assert "instance" in finding.mend


def test_masks_of_one_class(tmp_path):
    refused(folder(tmp_path, stripes(4, 0)), "too_few_classes", "training masks", "Received: 0")


def test_a_class_without_training_mask(tmp_path):
    text(tmp_path / "classes.txt", "a\nb\nc\n")
    folder(tmp_path / "train", stripes(3, 0, 1))
    folder(tmp_path / "test", stripes(3, 0, 2), start=5)
    refused(tmp_path, "class_without_training", "'c'", "test/images/0.jpg")


def test_masks_without_image_are_said(tmp_path):
    folder(tmp_path, stripes())
    (tmp_path / "images/1.jpg").unlink()
    assert findings(tmp_path)["mask_without_image"].files == (str(tmp_path / "masks/1.png"),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,r,g,b\na,0,0,0\nb,0,0,0\n", "class_dict.csv:3"),
        ("name,r,g,b\na,0,0,0\nb,0,300,0\n", "class_dict.csv:3"),
        ("name,r,g,b\na,0,0,0\na,0,1,0\n", "listed twice"),
    ],
)
def test_lists_of_colours_that_cannot_be_read(tmp_path, content, said):
    text(colour_maps(tmp_path, 0, 1) / "class_dict.csv", content)
    refused(tmp_path, "class_names", said)


def test_the_fingerprint_tells_other_masks_but_not_where_they_lie(tmp_path):
    first = splits.split(load(folder(tmp_path / "a", stripes())), DataSpec()).fingerprint
    assert splits.split(load(folder(tmp_path / "b", stripes())), DataSpec()).fingerprint == first
    # The same pixels of each class at other places.
    mirrored = [mask[:, ::-1] for mask in stripes(4, 1, 0)]
    other = load(folder(tmp_path / "c", [1 - mask for mask in mirrored]))
    assert splits.split(other, DataSpec()).fingerprint != first


def test_splits_have_every_class(tmp_path):
    masks = [halves(0, 2) if number < 3 else halves(0, 1) for number in range(30)]
    parts = splits.split(load(folder(tmp_path, masks)), DataSpec())
    for _, records in parts.named():
        assert {index for record in records for index in np.flatnonzero(record.fields["pixels"])} == {0, 1, 2}


# --- COCO's polygons


def coco(root: Path, **changes: object) -> Path:
    """Four images; on the first a large square of class 9, a small one of class 4 on it, and run lengths."""
    square = [8, 8, 40, 8, 40, 40, 8, 40]
    small = [16, 16, 24, 16, 24, 24, 16, 24]
    runs = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 60, HEIGHT * 4]}
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 4, "segmentation": [small]},
        {"id": 2, "image_id": 1, "category_id": 9, "segmentation": [square]},
        {"id": 3, "image_id": 1, "category_id": 9, "segmentation": runs, "iscrowd": 1},
        {"id": 4, "image_id": 2, "category_id": 9, "segmentation": [square, [50, 0, 60, 0, 60, 10]]},
        {"id": 5, "image_id": 3, "category_id": 4, "segmentation": [small]},
    ]
    for entry in annotations:
        entry["bbox"] = [8, 8, 32, 32]
    for number in range(4):
        photo(root / f"{number}.png", number)
    content = {
        "images": [{"id": n + 1, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(4)],
        "annotations": annotations,
        "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    return text(root / "coco.json", {**content, **changes})


def test_polygons_become_masks(tmp_path):
    raw = load(coco(tmp_path), "semantic_segmentation")
    assert [record.id for record in raw["all"]] == [f"{n}.png" for n in range(4)] and raw.findings == []
    assert raw["all"][0].fields["classes"] == ("background", "dog", "cat")
    first, second, _, empty = masks_of(raw)
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[8:40, 8:40], expected[:, 60:], expected[16:24, 16:24] = 2, 2, 1
    np.testing.assert_array_equal(first, expected)
    assert second[20, 20] == 2 and second[2, 57] == 2 and empty.max() == 0
    assert load(coco(tmp_path), "object_detection")["all"][0].fields["labels"] == ("dog", "cat", "cat")


def test_compressed_run_lengths(tmp_path):
    from pycocotools import mask

    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    inside[5:9, 7:20] = 1
    counts = mask.encode(np.asfortranarray(inside))["counts"].decode()
    entry = {"id": 1, "image_id": 1, "category_id": 4, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
    raw = load(coco(tmp_path, annotations=[entry]), "semantic_segmentation")
    np.testing.assert_array_equal(masks_of(raw)[0], inside)


def test_a_category_called_background_is_the_background(tmp_path):
    categories = [{"id": 4, "name": "Background"}, {"id": 9, "name": "cat"}]
    raw = load(coco(tmp_path, categories=categories), "semantic_segmentation")
    assert raw["all"][0].fields["classes"] == ("background", "cat") and masks_of(raw)[0][20, 20] == 0


def test_edited_polygons_give_other_masks(tmp_path):
    before = masks_of(load(coco(tmp_path), "semantic_segmentation"))[2]
    path = coco(tmp_path)
    text(path, path.read_text().replace("[[16, 16, 24, 16, 24, 24, 16, 24]]", "[[0, 0, 24, 0, 24, 24, 0, 24]]"))
    after = masks_of(load(path, "semantic_segmentation"))[2]
    assert after.sum() > 2 * before.sum()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([], "segmentation []"),
        (None, "segmentation None"),
        ([[1, 2, 3, 4]], "three or more points"),
        ([[1, 2, 3, 4, 5, None]], "three or more points"),
        ({"size": [WIDTH, HEIGHT], "counts": [10]}, "size [64, 48]"),
        ({"size": [HEIGHT, WIDTH], "counts": [10]}, "do not add up"),
    ],
)
def test_segmentations_that_cannot_be_read(tmp_path, segmentation, said):
    entry = {"id": 8, "image_id": 2, "category_id": 4, "bbox": [1, 1, 5, 5], "segmentation": segmentation}
    whole = {"id": 9, "image_id": 1, "category_id": 9, "segmentation": [[8, 8, 40, 8, 40, 40]]}
    path = coco(tmp_path, annotations=[entry, whole])
    refused(path, "malformed_segmentation", "annotations[0] (id 8)", said, task="semantic_segmentation")
    kept = load(path, "semantic_segmentation", bad_files="skip")["all"]
    assert [record.id for record in kept] == ["0.png", "2.png", "3.png"]


# --- TensorFlow Datasets


def test_tfds_pets(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    tiny_tfds.write_tiny(tmp_path, "oxford_iiit_pet")
    raw = load("tfds:oxford_iiit_pet", "semantic_segmentation")
    assert {split: len(records) for split, records in raw.items()} == {"train": 74, "test": 37}
    assert raw["train"][0].fields["classes"] == ("pet", "background", "border")
    mask = masks_of(raw, "test")[0]
    assert mask[0, 0] == 1 and mask[16, 20] == 2 and mask[30, 30] == 0
    assert load("tfds:oxford_iiit_pet")["train"][0].fields["label"], "without a task, the breeds"


@pytest.mark.samples
def test_sample_of_nuclei():
    raw = load("sample:nuclei")
    assert {split: len(records) for split, records in raw.items()} == {"train": 17, "validation": 1, "test": 8}
    assert raw.findings == [] and raw["train"][0].fields["classes"] == ("background", "nucleus")
    assert {value for split in raw for mask in masks_of(raw, split) for value in np.unique(mask)} == {0, 1}
