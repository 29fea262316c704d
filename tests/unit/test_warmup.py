"""Warm-up requests: the bytes are those of TF Serving's own messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer import warmup

# `tensorflow.serving.PredictionLog` of tensorflow-serving-api 2.21.0, serialized by its own classes
# (SerializeToString(deterministic=True)) from the requests below.
IMAGE_REQUEST = {"image_bytes": np.array([b"\xff\xd8\x00ab\x00"], object)}
IMAGE_LOG = (
    "323d0a3b0a180a0574726565731a0f73657276696e675f64656661756c74121f0a0b696d6167655f6279746573121008071204120208014206"
    "ffd800616200"
)
PIXEL_REQUEST = {"pixels": np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), "k": np.float32([1.5])}
PIXEL_LOG = (
    "32560a540a0f0a0574726565731a06706978656c7312130a016b120e08011204120208012a040000c03f122c0a06706978656c731222080412"
    "1012020801120208021202080212020803220c000102030405060708090a0b"
)


@pytest.mark.parametrize(
    ("signature", "request_", "golden"),
    [("serving_default", IMAGE_REQUEST, IMAGE_LOG), ("pixels", PIXEL_REQUEST, PIXEL_LOG)],
)
def test_bytes_are_those_of_the_serving_api(signature: str, request_: dict[str, np.ndarray], golden: str) -> None:
    assert warmup.prediction_log("trees", signature, request_).hex() == golden


def test_file_holds_one_record_a_signature(tmp_path: Path) -> None:
    path = warmup.write(tmp_path, "trees", {"serving_default": IMAGE_REQUEST, "pixels": PIXEL_REQUEST})
    assert path == tmp_path / "tf_serving_warmup_requests"
    records = [record.numpy().hex() for record in tf.data.TFRecordDataset(str(path))]
    assert records == [PIXEL_LOG, IMAGE_LOG]


def test_no_request_no_file(tmp_path: Path) -> None:
    assert warmup.write(tmp_path, "trees", {}) is None
    assert not list(tmp_path.iterdir())


def test_more_than_a_server_accepts_is_refused(tmp_path: Path) -> None:
    requests = {str(number): PIXEL_REQUEST for number in range(1001)}
    with pytest.raises(ValueError, match="at most 1000. Received: 1001"):
        warmup.write(tmp_path, "trees", requests)
    assert not list(tmp_path.iterdir())
