"""Tests of `devices`."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest
import tensorflow as tf

from keras_transfer import devices
from keras_transfer.recipe import DeviceSpec


def test_one_device_is_the_default_on_a_cpu() -> None:
    placed = devices.set_up(DeviceSpec())
    assert placed.count == 1
    assert placed.precision == "float32"
    assert str(placed) == "1 CPU, float32"


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
