"""The restricted reader of legacy PyTorch weight files, on files written here byte by byte."""

import collections
import pickle
import struct

import numpy as np
import pytest

from keras_transfer import torch_file

MAGIC = 119547037146038801333356


def _text(value):
    """Pickle opcode BINUNICODE."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value):
    """Pickle opcode BININT."""
    return b"J" + struct.pack("<i", value)


def _numbers(values):
    return b"(" + b"".join(_number(v) for v in values) + b"t"


def _tensor(storage_type, key, count, offset, shape, strides):
    """The opcodes of one `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())`."""
    storage = b"(" + _text("storage") + b"ctorch\n" + storage_type + b"\n" + _text(key) + _text("cpu")
    storage += _number(count) + b"NtQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    body = storage + _number(offset) + _numbers(shape) + _numbers(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + body + b"tR"


def _file(tensors, storages, magic=MAGIC, keys=None):
    """A legacy file: three pickles, the state dict, the storage keys, then each storage's count and values."""
    data = b"".join(pickle.dumps(head, protocol=2) for head in (magic, 1001, {"little_endian": True}))
    state = b"\x80\x02ccollections\nOrderedDict\n)R("
    for name, opcodes in tensors.items():
        state += _text(name) + opcodes
    data += state + b"u."
    data += pickle.dumps(list(storages) if keys is None else keys, protocol=2)
    for values in storages.values():
        data += struct.pack("<q", values.size) + values.tobytes()
    return data


def _write(tmp_path, data):
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    return path


def test_reads_names_values_shapes_and_types(tmp_path):
    weight, steps = np.arange(6, dtype="<f4"), np.array([7], "<i8")
    tensors = {
        "conv.weight": _tensor(b"FloatStorage", "a", 6, 0, (2, 3), (3, 1)),
        "bn.steps": _tensor(b"LongStorage", "b", 1, 0, (), ()),
    }
    read = torch_file.read(_write(tmp_path, _file(tensors, {"a": weight, "b": steps})))
    assert list(read) == ["conv.weight", "bn.steps"]
    np.testing.assert_array_equal(read["conv.weight"], weight.reshape(2, 3))
    assert read["conv.weight"].dtype == np.float32
    assert read["bn.steps"].shape == () and read["bn.steps"] == 7


def test_reads_a_transposed_view_with_an_offset(tmp_path):
    values = np.arange(8, dtype="<f4")
    tensors = {"w": _tensor(b"FloatStorage", "a", 8, 2, (2, 3), (1, 2))}
    read = torch_file.read(_write(tmp_path, _file(tensors, {"a": values})))
    np.testing.assert_array_equal(read["w"], values[2:].reshape(3, 2).T)


def test_refuses_any_other_name_without_calling_it(tmp_path):
    harmful = b"cos\nsystem\n(" + _text(f"touch {tmp_path}/ran") + b"tR"
    path = _write(tmp_path, _file({"w": harmful}, {}))
    with pytest.raises(ValueError, match=r"weights\.pth.*os\.system"):
        torch_file.read(path)
    assert not (tmp_path / "ran").exists()


def test_refuses_a_harmful_name_in_the_leading_pickles(tmp_path):
    path = _write(tmp_path, b"\x80\x02cbuiltins\neval\n(" + _text("1") + b"tR.")
    with pytest.raises(ValueError, match=r"builtins\.eval"):
        torch_file.read(path)


@pytest.mark.parametrize(
    "offset, shape, strides",
    [(0, (3, 3), (3, 1)), (1, (6,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2,), ()), (0, (10**9,), (0,))],
)
def test_refuses_a_view_beyond_its_storage(tmp_path, offset, shape, strides):
    tensors = {"w": _tensor(b"FloatStorage", "a", 6, offset, shape, strides)}
    path = _write(tmp_path, _file(tensors, {"a": np.arange(6, dtype="<f4")}))
    with pytest.raises(ValueError, match=r"weights\.pth.*\bw\b.*storage"):
        torch_file.read(path)


def test_a_cut_file_is_named(tmp_path):
    tensors = {"w": _tensor(b"FloatStorage", "a", 6, 0, (6,), (1,))}
    path = _write(tmp_path, _file(tensors, {"a": np.arange(6, dtype="<f4")})[:-4])
    with pytest.raises(ValueError, match=r"weights\.pth.*ends"):
        torch_file.read(path)


def test_a_count_that_differs_from_the_state_dict_is_refused(tmp_path):
    tensors = {"w": _tensor(b"FloatStorage", "a", 5, 0, (5,), (1,))}
    path = _write(tmp_path, _file(tensors, {"a": np.arange(6, dtype="<f4")}))
    with pytest.raises(ValueError, match="5.*6"):
        torch_file.read(path)


def test_a_missing_storage_is_refused(tmp_path):
    tensors = {"w": _tensor(b"FloatStorage", "a", 6, 0, (6,), (1,))}
    path = _write(tmp_path, _file(tensors, {}))
    with pytest.raises(ValueError, match=r"w.*storage 'a'"):
        torch_file.read(path)


@pytest.mark.parametrize(
    "data, words",
    [
        (b"PK\x03\x04rest", "zip"),
        (b"", "legacy"),
        (b"nonsense", "legacy"),
        (pickle.dumps(5, protocol=2), "legacy"),
        (pickle.dumps(collections.OrderedDict(), protocol=2), "legacy"),
    ],
)
def test_other_files_are_refused_with_what_was_expected(tmp_path, data, words):
    with pytest.raises(ValueError, match=rf"weights\.pth.*{words}"):
        torch_file.read(_write(tmp_path, data))
