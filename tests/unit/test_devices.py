"""Tests of `devices`."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from keras_transfer import devices
from keras_transfer.recipe import DeviceSpec


def test_one_device_is_the_default_on_a_cpu() -> None:
    placed = devices.set_up(DeviceSpec())
    assert placed.count == 1
    assert placed.precision == "float32"
    assert str(placed) == "1 CPU, float32"
    fast = devices.fast_math(DeviceSpec(fast_math=True))
    more = " (features and training steps in bfloat16)" if fast else ""
    assert str(devices.set_up(DeviceSpec(fast_math=True))) == f"1 CPU, float32{more}"


@pytest.mark.parametrize(
    ("flags", "fast"),
    [("flags: avx512_bf16 amx_bf16 amx_tile", True), ("flags: avx2 avx512_bf16", False), (None, False)],
)
def test_fast_math_needs_to_be_asked_for_and_a_processor_that_has_it(
    flags: str | None, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, encoding: str) -> str:
        assert str(path) == "/proc/cpuinfo"
        if flags is None:
            raise FileNotFoundError(path)
        return flags

    monkeypatch.setattr(Path, "read_text", read)
    assert devices.fast_math(DeviceSpec(fast_math=True)) is fast
    assert not devices.fast_math(DeviceSpec())
    gpu = tf.config.LogicalDevice("/device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [gpu] if kind == "GPU" else [])
    assert not devices.fast_math(DeviceSpec(fast_math=True)), "a GPU has its own precision"


def test_layers_compute_in_bfloat16_only_while_asked_and_keep_their_own_precision() -> None:
    layers = [keras.layers.Dense(2), keras.layers.Dense(2, dtype="float64")]
    inputs = tf.constant([[1.001, 2.002]])
    exact = layers[0](inputs)
    with pytest.raises(KeyError), devices.in_bfloat16(layers):
        assert layers[0](inputs).dtype == tf.bfloat16
        assert layers[0].variables[0].dtype == "float32"
        assert layers[1].dtype_policy.name == "float64"
        raise KeyError
    assert [layer.dtype_policy.name for layer in layers] == ["float32", "float64"]
    assert (layers[0](inputs).numpy() == exact.numpy()).all()


def test_mirroring_over_one_device_is_refused() -> None:
    with pytest.raises(ValueError, match="devices.strategy: mirrored needs at least two devices"):
        devices.set_up(DeviceSpec(strategy="mirrored"))


def test_float32_is_not_rounded_on_newer_gpus() -> None:
    try:
        devices.set_up(DeviceSpec(precision="mixed_bfloat16"))
        assert tf.config.experimental.tensor_float_32_execution_enabled()
        devices.set_up(DeviceSpec(precision="float32"))
        assert not tf.config.experimental.tensor_float_32_execution_enabled()
    finally:
        devices.set_up(DeviceSpec())


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_memory_is_kept_unless_the_user_tuned_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MALLOC_"):
            monkeypatch.delenv(name)
    assert devices.keep_freed_memory()
    monkeypatch.setenv("MALLOC_TOP_PAD_", "0")
    assert not devices.keep_freed_memory()


def test_other_systems_keep_their_own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not devices.keep_freed_memory()
