"""Warm-up requests for TF Serving: the file that a server replays before it reports a version as ready.

The file is `assets.extra/tf_serving_warmup_requests`, a TFRecord of `tensorflow.serving.PredictionLog`
(https://www.tensorflow.org/tfx/serving/saved_model_warmup). The package with these messages, tensorflow-serving-api,
brings gRPC along; the four messages that a prediction needs are described here instead, by their public field numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

WARMUP_FILE = "tf_serving_warmup_requests"
MOST_REQUESTS = 1000
"""TF Serving refuses a version whose file holds more (`WarmupConsts::kMaxNumRecords`)."""

_PACKAGE = "keras_transfer.warmup"  # not tensorflow.serving: a process may hold the real messages as well
_Field = descriptor_pb2.FieldDescriptorProto
# Message -> (field, number, type, repeated), as in tensorflow_serving/apis/{prediction_log,predict,model}.proto.
# A map is on the wire a repeated message of key and value, and a nested message is bytes: so `inputs`, a
# map<string, TensorProto>, needs neither TensorFlow's descriptors nor a map entry here.
_MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "ModelSpec": (("name", 1, "string", False), ("signature_name", 3, "string", False)),
    "Input": (("key", 1, "string", False), ("value", 2, "bytes", False)),
    "PredictRequest": (("model_spec", 1, "ModelSpec", False), ("inputs", 2, "Input", True)),
    "PredictLog": (("request", 1, "PredictRequest", False),),
    "PredictionLog": (("predict_log", 6, "PredictLog", False),),
}


def prediction_log(model_name: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """One request as a serialized `tensorflow.serving.PredictionLog`.

    Args:
        model_name: the name under which the model is served.
        signature: the signature that is asked.
        inputs: by input name; encoded images and texts as arrays of `bytes` (dtype object).
    """
    classes = _classes()
    request = classes["PredictRequest"]()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, value in sorted(inputs.items()):
        request.inputs.add(key=name, value=tf.make_tensor_proto(np.asarray(value)).SerializeToString())
    log = classes["PredictionLog"]()
    log.predict_log.request.CopyFrom(request)
    return log.SerializeToString(deterministic=True)


def write(folder: Path, model_name: str, requests: Mapping[str, Mapping[str, np.ndarray]]) -> Path | None:
    """Writes the warm-up file of a version.

    Args:
        folder: the version's `assets.extra` folder.
        model_name: the name under which the model is served.
        requests: one request a signature, by signature name, then by input name.

    Returns:
        The file, or None where there is no request.

    Raises:
        ValueError: for more requests than TF Serving accepts.
    """
    if not requests:
        return None
    if len(requests) > MOST_REQUESTS:
        raise ValueError(f"requests: expected at most {MOST_REQUESTS}. Received: {len(requests)}. Give fewer")
    path = Path(folder) / WARMUP_FILE
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in sorted(requests.items()):
            writer.write(prediction_log(model_name, signature, inputs))
    return path


def _classes() -> dict[str, Any]:
    """The message classes by name."""
    file = descriptor_pb2.FileDescriptorProto(name="keras_transfer/warmup.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, repeated in fields:
            field = message.field.add(name=name, number=number)
            field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = _Field.TYPE_STRING if kind == "string" else _Field.TYPE_BYTES
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"{_PACKAGE}.{name}")) for name in _MESSAGES}
