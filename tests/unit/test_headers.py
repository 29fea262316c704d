"""Headers of image files, against Pillow and against what TensorFlow's decoder makes of the same file."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_transfer.vision import headers

WIDTH, HEIGHT = 37, 21


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([rows * 11, columns * 6, 255 - rows * 5 - columns * 3], -1)
    pixels = pixels + np.random.default_rng(0).integers(-9, 10, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def with_alpha(image: Image.Image) -> Image.Image:
    return Image.fromarray(
        np.dstack([np.array(image), np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint8)])
    )


def two(image: Image.Image) -> dict:
    return {"save_all": True, "append_images": [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]}


def bmp(pixels: np.ndarray, bits: int, compression: int = 0, extra: bytes = b"", header_size: int = 40) -> bytes:
    height, width = pixels.shape[:2]
    stride = (width * bits + 31) // 32 * 4
    rows = b"".join(row.tobytes().ljust(stride, b"\0") for row in pixels[::-1])
    offset = 14 + header_size + len(extra)
    header = struct.pack("<IiiHHIIiiII", header_size, width, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    return (
        b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header.ljust(header_size, b"\0") + extra + rows
    )


GOOD = {
    "jpeg": (lambda p: encoded(p, "JPEG", comment=b"x" * 60000), "JPEG", "RGB", 1),
    "jpeg grey": (lambda p: encoded(p.convert("L"), "JPEG", progressive=True), "JPEG", "L", 1),
    "jpeg CMYK": (lambda p: encoded(p.convert("CMYK"), "JPEG"), "JPEG", "CMYK", 1),
    "jpeg, bytes behind its end": (lambda p: encoded(p, "JPEG") + bytes(9000), "JPEG", "RGB", 1),
    "png": (lambda p: encoded(p, "PNG"), "PNG", "RGB", 1),
    "png palette": (lambda p: encoded(p.quantize(9), "PNG", transparency=2), "PNG", "P", 1),
    "png RGBA": (lambda p: encoded(with_alpha(p), "PNG"), "PNG", "RGBA", 1),
    "png grey alpha": (lambda p: encoded(with_alpha(p).convert("LA"), "PNG"), "PNG", "LA", 1),
    "png 16 bit": (
        lambda p: encoded(Image.fromarray(np.full((HEIGHT, WIDTH), 999, np.uint16)), "PNG"),
        "PNG",
        "L;16",
        1,
    ),
    "png animated": (lambda p: encoded(p, "PNG", **two(p)), "PNG", "RGB", 2),
    "gif": (lambda p: encoded(p.quantize(9), "GIF"), "GIF", "P", 1),
    "gif animated": (lambda p: encoded(p.quantize(200), "GIF", **two(p.quantize(200))), "GIF", "P", 2),
    "bmp 24": (lambda p: encoded(p, "BMP"), "BMP", "RGB", 1),
    "bmp 32": (lambda p: encoded(with_alpha(p), "BMP"), "BMP", "RGBA", 1),
    "bmp grey": (lambda p: encoded(p.convert("L"), "BMP"), "BMP", "L", 1),
    "bmp long header": (lambda p: bmp(np.array(p)[..., ::-1], 24, header_size=124), "BMP", "RGB", 1),
    "webp": (lambda p: encoded(p, "WEBP"), "WEBP", "RGB", 1),
    "webp lossless": (lambda p: encoded(p, "WEBP", lossless=True), "WEBP", "RGB", 1),
    "webp lossless alpha": (lambda p: encoded(with_alpha(p), "WEBP", lossless=True), "WEBP", "RGBA", 1),
    "webp alpha": (lambda p: encoded(with_alpha(p), "WEBP"), "WEBP", "RGBA", 1),
    "webp exif": (lambda p: encoded(p, "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"), "WEBP", "RGB", 1),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_files_agree_with_pillow_and_decode(name, photo, tmp_path):
    from keras_transfer.vision import images

    make, form, mode, frames = GOOD[name]
    path = tmp_path / "file.jpg"  # the ending never matters
    path.write_bytes(make(photo))
    header = headers.describe(path)
    assert header == headers.ImageHeader(form, WIDTH, HEIGHT, frames, mode)
    opened = Image.open(path)
    assert (opened.format, opened.size, getattr(opened, "n_frames", 1)) == (form, (WIDTH, HEIGHT), frames)
    assert images.decode(path.read_bytes()).shape == (HEIGHT, WIDTH, 3)


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def off_canvas(photo: Image.Image) -> bytes:
    data = bytearray(encoded(photo.quantize(9), "GIF"))
    data[6:10] = struct.pack("<HH", WIDTH + 5, HEIGHT + 3)
    return bytes(data)


def frame_patched(photo: Image.Image, place: int, value: int) -> bytes:
    data = bytearray(encoded(photo, "JPEG"))
    data[data.find(b"\xff\xc0") + place] = value
    return bytes(data)


def run_length_bmp(photo: Image.Image) -> bytes:
    data = bmp(np.zeros((0, WIDTH), np.uint8), 8, 1, bytes(range(256)) * 4)
    return data[:22] + struct.pack("<i", HEIGHT) + data[26:] + bytes([WIDTH, 5, 0, 0]) * HEIGHT + b"\0\1"


REFUSED = {
    "palette BMP": (lambda p: encoded(p.quantize(9), "BMP"), "BMP", "BMP with a palette wrongly"),
    "1-bit BMP": (lambda p: encoded(p.convert("1"), "BMP"), "BMP", "BMP of 1 bits a pixel"),
    "16-bit BMP": (lambda p: bmp(np.zeros((HEIGHT, WIDTH), np.uint16), 16), "BMP", "BMP of 16 bits a pixel"),
    "run-length BMP": (run_length_bmp, "BMP", "compressed"),
    "BMP, red first": (
        lambda p: bmp(np.zeros((HEIGHT, WIDTH), np.uint32), 32, 3, struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)),
        "BMP",
        "another order",
    ),
    "BMP, bytes behind its pixels": (lambda p: encoded(p, "BMP") + b"\0\0", "BMP", "further bytes"),
    "OS/2 BMP": (
        lambda p: b"BM" + struct.pack("<IHHIIHHHH", 0, 0, 0, 26, 12, WIDTH, HEIGHT, 1, 24) + bytes(112 * HEIGHT),
        "BMP",
        "OS/2",
    ),
    "animated WebP": (lambda p: encoded(p, "WEBP", **two(p)), "WEBP", "animated WebP"),
    "GIF off its canvas": (off_canvas, "GIF", "does not fill its canvas"),
    "12-bit JPEG": (lambda p: frame_patched(p, 4, 12), "JPEG", "JPEG of 12 bits"),
    "lossless JPEG": (lambda p: frame_patched(p, 1, 0xC3), "JPEG", "lossless"),
    "Apple's PNG": (lambda p: b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", bytes(4)), "PNG", "CgBI"),
    "TIFF": (lambda p: encoded(p, "TIFF"), "TIFF", "cannot decode TIFF images"),
    "JPEG 2000": (lambda p: encoded(p, "JPEG2000"), "JPEG 2000", "cannot decode JPEG 2000 images"),
    "HEIC": (lambda p: struct.pack(">I", 24) + b"ftypheic" + bytes(200), "HEIC", "cannot decode HEIC images"),
    "AVIF": (lambda p: struct.pack(">I", 24) + b"ftypavif" + bytes(200), "AVIF", "cannot decode AVIF images"),
    "ICO": (lambda p: encoded(p, "ICO"), "ICO", "cannot decode ICO images"),
    "PPM": (lambda p: encoded(p, "PPM"), "PNM", "cannot decode PNM images"),
    "DICOM": (lambda p: bytes(128) + b"DICM" + bytes(99), "DICOM", "cannot decode DICOM images"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_decoder_gets_wrong_is_refused_with_the_mend(name, photo, tmp_path):
    import tensorflow as tf

    make, form, message = REFUSED[name]
    path = tmp_path / "file.png"
    path.write_bytes(make(photo))
    header = headers.describe(path)
    assert header.format == form
    assert message in header.problem
    assert "Image.open(path).convert('RGB').save('copy.png')" in header.problem
    # The refusal is deserved: TensorFlow fails, or sees other pixels than Pillow.
    try:
        decoded = tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError:
        return
    try:
        expected = np.array(Image.open(path).convert("RGB"))
    except OSError:  # Pillow refuses the order of colours too
        assert name == "BMP, red first"
        return
    assert decoded.shape != expected.shape or np.abs(decoded.astype(int) - expected).mean() > 5


DAMAGED = {
    "empty": (lambda p: b"", "the file is empty"),
    "text": (lambda p: "naïve label, and more text\n".encode() * 9, "is text and not an image"),
    "a word that begins as BMP does": (lambda p: b"BMW, Audi and others\n", "is text and not an image"),
    "HTML": (lambda p: b"\n<!DOCTYPE html><html>404</html>", "HTML or XML page"),
    "SVG": (lambda p: b"<?xml version='1.0'?><svg width='9'></svg>", "SVG drawing"),
    "ZIP": (lambda p: b"PK\3\4" + bytes(50), "ZIP file and not an image"),
    "noise": (lambda p: bytes(range(128, 256)), "no image that is known"),
    "JPEG header cut": (lambda p: encoded(p, "JPEG")[:100], "JPEG file is damaged: its header ends early"),
    "JPEG cut": (lambda p: encoded(p, "JPEG")[:-90], "JPEG file is damaged: it is cut off"),
    "JPEG, 0 rows": (lambda p: frame_patched(p, 6, 0), "0 pixels"),
    "JPEG magic alone": (lambda p: b"\xff\xd8\xff", "its header ends early"),
    "PNG header cut": (lambda p: encoded(p, "PNG")[:20], "PNG file is damaged: its header ends early"),
    "PNG cut": (lambda p: encoded(p, "PNG")[:-30], "PNG file is damaged: it is cut off"),
    "PNG without pixels": (lambda p: encoded(p, "PNG")[:33] + chunk(b"IEND", b""), "it has no pixels"),
    "GIF cut": (lambda p: encoded(p.quantize(9), "GIF")[:-60], "GIF file is damaged: it is cut off"),
    "GIF header cut": (lambda p: encoded(p.quantize(9), "GIF")[:9], "GIF file is damaged: its header ends early"),
    "BMP cut": (lambda p: encoded(p, "BMP")[:-60], "BMP file is damaged: it is cut off"),
    "BMP header cut": (lambda p: encoded(p, "BMP")[:22], "BMP file is damaged: its header ends early"),
    "WebP cut": (lambda p: encoded(p, "WEBP")[:-20], "WEBP file is damaged: it is cut off"),
    "WebP header cut": (lambda p: encoded(p, "WEBP")[:14], "WEBP file is damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_say_what_is_wrong(name, photo, tmp_path):
    import tensorflow as tf

    make, message = DAMAGED[name]
    path = tmp_path / "file.jpg"
    path.write_bytes(make(photo))
    problem = headers.describe(path).problem
    assert message in problem
    assert any(mend in problem for mend in ("again", "Remove", "Convert", "Take the images"))
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_any_prefix_is_described_without_a_crash(form, photo, tmp_path):
    data = encoded(photo.quantize(9) if form == "GIF" else photo, form)
    path = tmp_path / "file"
    for length in range(1, len(data), 7):
        path.write_bytes(data[:length])
        header = headers.describe(path)
        assert header.problem is not None or (form == "GIF" and length == len(data) - 1)


def test_a_bomb_is_found_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    pixels = zlib.compress(bytes(1000))
    size = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    header = headers.describe(path)
    assert (header.width, header.height) == (30000, 30000)
    assert "30000×30000 pixels, 900 million; expected at most 200 million" in header.problem


def test_tiny_is_no_problem(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert headers.describe(tmp_path / "dot.png") == headers.ImageHeader("PNG", 1, 1, 1, "RGB")


def test_missing_file_and_folder(tmp_path):
    assert "no such file" in headers.describe(tmp_path / "none.jpg").problem
    assert "folder" in headers.describe(tmp_path).problem


def test_extensions_hold_what_is_decoded_and_what_is_refused_by_name():
    assert {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".heic"} <= headers.EXTENSIONS
    assert all(ending.startswith(".") and ending.islower() for ending in headers.EXTENSIONS)
    assert ".txt" not in headers.EXTENSIONS


def test_needs_no_tensorflow():
    code = "import sys, keras_transfer.vision.headers; assert not {'tensorflow', 'PIL', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
