"""Devices: the strategy that a training runs under, and the precision that its devices gain from."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from keras_transfer.recipe import DeviceSpec

# By the numbers of malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD, each with its values in bytes, the first
# that glibc takes: before 2.35 it refuses to keep blocks above 32 MiB.
_MALLOC_OPTIONS = ((-1, (2**31 - 1,)), (-2, (2**28,)), (-3, (2**30, 2**25)))


@dataclass(frozen=True)
class Devices:
    """Where a training runs."""

    strategy: tf.distribute.Strategy
    precision: str
    fast: bool = False
    """Whether features and training steps are computed in bfloat16; see `fast_math`."""

    @property
    def count(self) -> int:
        """Replicas that share each batch."""
        return int(self.strategy.num_replicas_in_sync)

    def __str__(self) -> str:
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        faster = " (features and training steps in bfloat16)" if self.fast else ""
        return f"{self.count} {kind}{'s' if self.count > 1 else ''}, {self.precision}{faster}"


def set_up(spec: DeviceSpec) -> Devices:
    """The strategy and precision of a recipe; sets Keras's global precision policy.

    Raises:
        ValueError: `mirrored` with a single device; `xla` with several.
    """
    keep_freed_memory()
    precision = _precision(spec)
    # By default TensorFlow rounds float32 products to 10 bits of mantissa on newer GPUs (TF32): an export, checked on
    # the processor, then differed from the training side by 0.003 (H100), and a cache of features held other values.
    tf.config.experimental.enable_tensor_float_32_execution(precision != "float32")
    keras.mixed_precision.set_global_policy(precision)
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if spec.strategy == "mirrored" and len(devices) < 2:
        raise ValueError(
            f"devices.strategy: mirrored needs at least two devices. Received: {len(devices)} visible. "
            "Use devices.strategy one, or make more devices visible (CUDA_VISIBLE_DEVICES)."
        )
    if spec.strategy == "mirrored" or (spec.strategy == "auto" and len(gpus) > 1):
        if spec.xla:
            raise ValueError(
                "devices.xla: expected one device, since XLA compiles no step that several share. Received: "
                f"{len(devices)}. Use devices.strategy one, or leave devices.xla out."
            )
        names = [device.name for device in devices]
        # Without NCCL (CPU devices) the default collectives break on a second strategy in one process.
        operations = None if gpus else tf.distribute.ReductionToOneDevice()
        return Devices(tf.distribute.MirroredStrategy(names, cross_device_ops=operations), precision, fast_math(spec))
    return Devices(tf.distribute.get_strategy(), precision, fast_math(spec))


def keep_freed_memory() -> bool:
    """Lets glibc keep the memory that a step frees for the next one, unless the user has tuned it (`MALLOC_…`).

    By default it gives large tensors back to the kernel at once, and each operation then has its pages made and zeroed
    anew: on two CPU cores a forward pass of MiniLM took half as long again, and a whole training 134 s instead of 105.

    Returns:
        Whether it was set; never but with glibc.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return all(
        any(set_option(ctypes.c_int(option), ctypes.c_int(value)) for value in values)
        for option, values in _MALLOC_OPTIONS
    )


def fast_math(spec: DeviceSpec) -> bool:
    """Whether features and training steps are computed in bfloat16: asked for, and on a processor with AMX."""
    if not spec.fast_math or tf.config.list_logical_devices("GPU"):
        return False
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False


@contextlib.contextmanager
def in_bfloat16(layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Layers of float32 compute in bfloat16 wherever they are traced meanwhile; their weights stay float32."""
    policies = [(layer, layer.dtype_policy) for layer in layers if layer.dtype_policy.name == "float32"]
    try:
        for layer, _ in policies:
            layer.dtype_policy = "mixed_bfloat16"
        yield
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy


def _precision(spec: DeviceSpec) -> str:
    """`auto` as the first GPU advises: bfloat16 needs compute capability 8 or more."""
    if spec.precision != "auto":
        return spec.precision
    for gpu in tf.config.list_physical_devices("GPU"):
        capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    return "float32"
