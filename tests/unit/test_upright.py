"""The upright size of image files, told by their headers, agrees with what the graph decodes."""

from __future__ import annotations

import itertools

import pytest
import tensorflow as tf
from conftest import draw_photo
from PIL import Image

from keras_transfer.vision import images, orientation, upright


@pytest.mark.parametrize(("ending", "value"), list(itertools.product([".jpg", ".png", ".webp"], range(9))))
def test_as_the_graph_reads_it(tmp_path, ending, value):
    exif = Image.Exif()
    exif[0x0112] = value  # 0 is no orientation: such a file counts as upright
    path = tmp_path / f"a{ending}"
    draw_photo(0, 2, 40).resize((40, 24)).save(path, exif=exif)
    data = tf.constant(path.read_bytes())
    assert upright.orientation(path) == int(orientation.read(data)) == max(value, 1)
    height, width, _ = images.decode(data).shape
    assert upright.size(path) == (width, height)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".gif", ".bmp"])
def test_without_exif(tmp_path, ending):
    draw_photo(0, 2, 40).resize((40, 24)).save(tmp_path / f"a{ending}")
    assert upright.size(tmp_path / f"a{ending}") == (40, 24)


def test_damaged_exif_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    draw_photo(0, 2, 40).resize((40, 24)).save(path, exif=exif)
    data = path.read_bytes()
    start = data.index(b"Exif\0\0") + 6
    for place in (start, start + 4, start + 8, start + 10):
        path.write_bytes(data[:place] + b"\xff\xff" + data[place + 2 :])
        assert upright.orientation(path) == int(orientation.read(tf.constant(path.read_bytes())))


def test_files_that_are_no_image_have_no_size(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    assert upright.size(tmp_path / "a.jpg") is None
    assert upright.size(tmp_path / "absent.jpg") is None
