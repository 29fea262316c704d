"""Decode-and-resize against Pillow, over the forms of image that users have."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_transfer.vision import images, orientation, upright

SIDES = (48, 70)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Smooth colours with edges and a little noise: 70 by 48, no symmetry."""
    height, width = SIDES
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 5, columns * 3.5, 255 - rows * 2 - columns], -1).astype(np.float32)
    pixels[10:20, 30:60] = (250, 20, 30)
    pixels += np.random.default_rng(0).normal(0, 6, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def with_alpha(image: Image.Image) -> Image.Image:
    alpha = np.random.default_rng(1).integers(0, 256, image.size[::-1], np.uint8)
    return Image.fromarray(np.dstack([np.array(image), alpha]))


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(pixels: np.ndarray, colour: int) -> bytes:
    """A 16-bit PNG: colour 0 grey, 2 RGB, 6 RGBA."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pillow(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        return np.array(image.convert("RGBA"))[..., :3]
    return np.array(image.convert("RGB"))


FORMS = {
    "jpeg": lambda p: encoded(p, "JPEG", quality=90),
    "jpeg progressive": lambda p: encoded(p, "JPEG", progressive=True),
    "jpeg without subsampling": lambda p: encoded(p, "JPEG", subsampling=0),
    "jpeg grey": lambda p: encoded(p.convert("L"), "JPEG"),
    "jpeg CMYK": lambda p: encoded(p.convert("CMYK"), "JPEG"),
    "png": lambda p: encoded(p, "PNG"),
    "png grey": lambda p: encoded(p.convert("L"), "PNG"),
    "png grey alpha": lambda p: encoded(with_alpha(p).convert("LA"), "PNG"),
    "png palette": lambda p: encoded(p.quantize(64), "PNG"),
    "png palette transparent": lambda p: encoded(p.quantize(64), "PNG", transparency=bytes(range(64))),
    "png 4 colours": lambda p: encoded(p.quantize(4), "PNG"),
    "png 1 bit": lambda p: encoded(p.convert("1"), "PNG"),
    "png RGBA": lambda p: encoded(with_alpha(p), "PNG"),
    "png animated": lambda p: encoded(p, "PNG", save_all=True, append_images=[p.convert("L").convert("RGB")]),
    "gif": lambda p: encoded(p.quantize(64), "GIF"),
    "gif animated": lambda p: encoded(p, "GIF", save_all=True, append_images=[p.convert("L").convert("RGB")]),
    "bmp 24 bit": lambda p: encoded(p, "BMP"),
    "bmp 24 bit, padded rows": lambda p: encoded(p.crop((0, 0, 69, 47)), "BMP"),
    "bmp 32 bit": lambda p: encoded(with_alpha(p), "BMP"),
    "bmp grey": lambda p: encoded(p.convert("L"), "BMP"),
    "webp": lambda p: encoded(p, "WEBP"),
    "webp lossless": lambda p: encoded(p, "WEBP", lossless=True),
    "webp alpha": lambda p: encoded(with_alpha(p), "WEBP"),
    "webp lossless alpha": lambda p: encoded(with_alpha(p), "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_decode_equals_pillow(form, photo):
    data = FORMS[form](photo)
    decoded = images.decode(tf.constant(data)).numpy()
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pillow(data))


def test_ycck_jpeg_equals_pillow(photo):
    data = bytearray(encoded(photo.convert("CMYK"), "JPEG"))
    # Adobe's segment ends in the colour transform: 2 is YCCK.
    data[data.find(b"Adobe") + 11] = 2
    assert Image.open(io.BytesIO(bytes(data))).info["adobe_transform"] == 2
    np.testing.assert_array_equal(images.decode(tf.constant(bytes(data))).numpy(), pillow(bytes(data)))


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (6, 4)])
def test_16_bit_png_keeps_the_high_byte(colour, channels):
    pixels = np.random.default_rng(2).integers(0, 65536, (9, 11, channels)).astype(np.uint16)
    decoded = images.decode(tf.constant(png(pixels, colour))).numpy()
    np.testing.assert_array_equal(decoded, np.broadcast_to(pixels[..., :3] >> 8, (9, 11, 3)))


def exif(number: int, order: str = "<") -> bytes:
    """An Exif block whose orientation is its second entry."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(order + "HHII", 0x010F, 2, 4, 0x00434241) + struct.pack(
        order + "HHIHH", 0x0112, 3, 1, number, 0
    )
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, 2) + entries + bytes(4)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_of_jpeg(number, order, photo):
    data = encoded(photo, "JPEG", exif=exif(number, order))
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == number
    np.testing.assert_array_equal(images.decode(tf.constant(data)).numpy(), expected)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize("number", [3, 6])
def test_exif_orientation_of_png_and_webp(form, number, photo):
    data = encoded(photo, form, exif=exif(number), **({"lossless": True} if form == "WEBP" else {}))
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB")))
    np.testing.assert_array_equal(images.decode(tf.constant(data)).numpy(), expected)


def test_exif_behind_other_segments(photo):
    data = encoded(photo, "JPEG", exif=exif(6), icc_profile=bytes(70000), comment=b"before")
    plain = encoded(photo, "JPEG")
    profile = b"\xff\xe2" + struct.pack(">H", 60002) + bytes(60000)
    moved = data[:2] + profile + b"\xff\xff" + data[3:]
    assert orientation.read(tf.constant(data)).numpy() == 6
    assert orientation.read(tf.constant(moved)).numpy() == 6
    assert orientation.read(tf.constant(plain)).numpy() == 1


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12",
        exif(0),
        exif(9),
        exif(65535, ">"),
        exif(6).replace(b"II*\0", b"II*\0" + struct.pack("<I", 2**31), 1),
    ],
)
def test_damaged_exif_counts_as_upright(block, photo):
    plain = encoded(photo, "JPEG")
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    np.testing.assert_array_equal(images.decode(tf.constant(data)).numpy(), pillow(plain))


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"\xff" * 3000, b"RIFFxxxxWEBP"]
)
def test_orientation_of_short_bytes(data):
    assert orientation.read(tf.constant(data)).numpy() == 1


def test_a_webp_that_is_cut_off_in_its_last_chunk_is_still_read(photo):
    data = encoded(photo, "WEBP", exif=exif(6), lossless=True)
    cut = data[: data.index(b"EXIF") + 7]
    assert orientation.read(tf.constant(cut)).numpy() == 1
    assert orientation.read(tf.constant(data)).numpy() == 6


def test_a_segment_without_its_marker_ends_the_search(photo, tmp_path):
    data = encoded(photo, "JPEG", exif=exif(6))
    (tmp_path / "photo.jpg").write_bytes(data)
    (tmp_path / "broken.jpg").write_bytes(broken := data.replace(b"\xff\xe1", b"\xc0\xe1", 1))
    assert orientation.read(tf.constant(data)).numpy() == upright.orientation(tmp_path / "photo.jpg") == 6
    assert orientation.read(tf.constant(broken)).numpy() == upright.orientation(tmp_path / "broken.jpg") == 1


@pytest.mark.parametrize("how", images.HOWS)
def test_every_orientation_loads_as_decode_then_resize(how, photo):
    load = tf.function(
        lambda data: images.load_with_size(data, 32, how), input_signature=[tf.TensorSpec([], tf.string)]
    )
    for number in range(1, 9):
        data = encoded(photo, "JPEG", exif=exif(number))
        square, sides = load(data)
        decoded = images.decode(tf.constant(data))
        assert tuple(sides.numpy()) == decoded.shape[:2]
        np.testing.assert_allclose(square, images.resize(decoded, 32, how), atol=1e-3)


@pytest.mark.parametrize(("how", "box", "size"), [("stretch", None, (32, 32)), ("crop", (11, 0, 59, 48), (32, 32))])
def test_resize_is_antialiased_as_pillow(how, box, size, photo):
    expected = np.array(photo.resize(size, Image.Resampling.BILINEAR, box=box)).astype(np.float32)
    square = images.resize(tf.constant(np.array(photo)), 32, how).numpy()
    assert square.dtype == np.float32
    assert np.abs(square - expected).mean() < 0.4  # Pillow rounds twice
    assert np.abs(square - expected).max() < 1.6


def test_stretch_is_tensorflows_antialiased_resize(photo):
    pixels = tf.constant(np.array(photo))
    expected = tf.image.resize(pixels, (32, 32), antialias=True)
    np.testing.assert_allclose(images.resize(pixels, 32, "stretch"), expected, atol=1e-3)


def test_pad_centres_between_bands():
    square = images.resize(tf.fill([10, 20, 3], tf.constant(200, tf.uint8)), 20, "pad").numpy()
    np.testing.assert_allclose(square[5:15], 200, atol=1e-3)
    np.testing.assert_allclose(square[:5], np.broadcast_to(images.PADDING, (5, 20, 3)))
    np.testing.assert_allclose(square[15:], np.broadcast_to(images.PADDING, (5, 20, 3)))


@pytest.mark.parametrize("how", images.HOWS)
@pytest.mark.parametrize("sides", [(1, 1), (1, 5000), (5000, 1), (3, 700), (33, 32), (224, 224)])
def test_extreme_sides(how, sides):
    square = images.resize(tf.fill([*sides, 3], tf.constant(77, tf.uint8)), 32, how).numpy()
    assert square.shape == (32, 32, 3)
    at_image = np.isclose(square, 77, atol=1e-2).all(-1)
    at_band = np.isclose(square, images.PADDING).all(-1)
    assert (at_image | at_band).all()
    assert at_image.any()
    assert how == "pad" or at_image.all()


@pytest.mark.parametrize("how", images.HOWS)
@pytest.mark.parametrize("sides", [(48, 70), (70, 48), (21, 900), (600, 41)])
def test_geometry_says_where_a_mark_goes(how, sides):
    height, width = sides
    pixels = np.zeros((height, width, 3), np.float32)
    top, left = height // 2 - height // 8, width // 2
    bottom, right = max(top + height // 6, top + 1), max(left + width // 6, left + 1)
    pixels[top:bottom, left:right] = 255
    scale_y, scale_x, offset_y, offset_x = (float(part) for part in images.geometry(height, width, 64, how))
    square = images.resize(pixels, 64, how).numpy()[..., 0]
    middles = np.arange(64) + 0.5
    ys, xs = (middles - offset_y) / scale_y, (middles - offset_x) / scale_x
    reach_y, reach_x = max(1, 1 / scale_y), max(1, 1 / scale_x)
    within = np.outer((ys > top + reach_y) & (ys < bottom - reach_y), (xs > left + reach_x) & (xs < right - reach_x))
    beyond_y = (ys < top - reach_y) | ((ys > bottom + reach_y) & (ys < height))
    beyond_x = (xs < left - reach_x) | ((xs > right + reach_x) & (xs < width))
    on_image = np.outer((ys > 0) & (ys < height), (xs > 0) & (xs < width))
    beyond = (beyond_y[:, None] | beyond_x[None, :]) & on_image
    assert beyond.any()
    np.testing.assert_allclose(square[within], 255, atol=1e-2)
    np.testing.assert_allclose(square[beyond], 0, atol=1e-2)


def test_large_jpeg_is_decoded_small_and_stays_close(photo):
    noise = np.random.default_rng(3).normal(0, 4, (1203, 1605, 3))
    pixels = np.array(photo.resize((1605, 1203), Image.Resampling.BICUBIC)) + noise
    data = encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG", quality=90, exif=exif(6))
    whole = images.decode(tf.constant(data))
    for size, ratio in ((410, 1), (250, 2), (110, 4), (64, 8)):
        for how in images.HOWS:
            step = images._decode_step(tf.constant([1203, 1605]), size, how)
            assert images.DECODE_RATIOS[step.numpy()] == ratio
            full = images.resize(whole, size, how)
            difference = np.abs(images.load(tf.constant(data), size, how) - full)
            assert difference.mean() < 1.0, (size, how)
            assert difference.max() < 12, (size, how)


def test_traced_in_a_dataset_with_static_shapes(photo):
    forms = [FORMS[form](photo) for form in ("jpeg", "png", "gif", "webp alpha", "bmp 24 bit")]
    dataset = tf.data.Dataset.from_tensor_slices(forms).map(lambda data: images.load(data, 32, "crop"), 2)
    assert dataset.element_spec == tf.TensorSpec([32, 32, 3], tf.float32)
    for data, square in zip(forms, dataset, strict=True):
        np.testing.assert_allclose(square, images.load(tf.constant(data), 32, "crop"), atol=1e-3)


def test_saved_model_with_mixed_and_empty_batches(photo, tmp_path):
    module = tf.Module()
    module.serve = tf.function(
        lambda data: images.decode_batch(data, 32, "pad"), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    module.pixels = tf.function(
        lambda pixels: images.resize_batch(pixels, 32, "pad"),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    batch = [encoded(photo, "JPEG", exif=exif(8)), FORMS["webp alpha"](photo), FORMS["png 1 bit"](photo)]
    squares = loaded.serve(tf.constant(batch))
    for data, square in zip(batch, squares, strict=True):
        np.testing.assert_allclose(square, images.load(tf.constant(data), 32, "pad"), atol=1e-3)
        decoded = images.decode(tf.constant(data))
        np.testing.assert_allclose(loaded.pixels(decoded[tf.newaxis])[0], square, atol=1e-3)
    assert loaded.serve(tf.zeros([0], tf.string)).shape == (0, 32, 32, 3)
    assert loaded.pixels(tf.zeros([0, 40, 50, 3], tf.uint8)).shape == (0, 32, 32, 3)
    assert images.decode_batch(tf.zeros([0], tf.string), 32, "crop").shape == (0, 32, 32, 3)


def test_palette_bmp_raises_in_the_graph_too(photo):
    data = tf.constant(encoded(photo.quantize(9), "BMP"))
    load = tf.function(lambda one: images.load(one, 32, "crop"), input_signature=[tf.TensorSpec([], tf.string)])
    for call in (load, images.decode):
        with pytest.raises(tf.errors.InvalidArgumentError, match="BMP with a palette"):
            call(data)
    few_greys = bytearray(encoded(photo.convert("L"), "BMP"))
    few_greys[46:50] = struct.pack("<I", 16)
    few_greys[54 + 64 : 54 + 1024] = bytes(1024 - 64)  # past the 16 colours that count
    assert load(bytes(few_greys)).shape == (32, 32, 3)


def test_animated_webp_raises_and_leaves_the_process_alive(photo, tmp_path):
    """tf.io.decode_webp(channels=0) ends the process here; hence one of its own, with a few attempts."""
    files = []
    for frame in (photo, with_alpha(photo)):
        mirrored = frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        files.append(tmp_path / f"{frame.mode}.webp")
        files[-1].write_bytes(encoded(frame, "WEBP", save_all=True, append_images=[mirrored] * 5))
    code = (
        "import sys, tensorflow as tf; from keras_transfer.vision import images\n"
        "refused = 0\n"
        "for file in sys.argv[1:] * 10:\n"
        "    try: images.load(tf.io.read_file(file), 32, 'crop')\n"
        "    except tf.errors.InvalidArgumentError: refused += 1\n"
        "print(refused)"
    )
    command = [sys.executable, "-c", code, *map(str, files)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "20"


@pytest.mark.parametrize("data", [b"", b"text", b"BM", b"\xff\xd8\xff", b"RIFF0000WEBP", b"RIFF0000WAVEfmt "])
def test_bytes_that_are_no_image_raise(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        images.load(tf.constant(data), 32, "crop")


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="how: expected one of crop, pad, stretch. Received: 'fit'"):
        images.load(tf.constant(b""), 32, "fit")
    with pytest.raises(ValueError, match="size: expected at least 1 pixel. Received: 0"):
        images.geometry(4, 4, 0, "crop")
