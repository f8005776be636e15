"""Numeric precision of training: what a device can compute in, and what `auto` takes there."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
"""Keras' dtype policies: weights are float32 in all of them, the mixed ones compute in 16 bits."""
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")
"""Of processors that compute in bfloat16 (Intel and AMD; Arm), as /proc/cpuinfo calls them."""
WORTH_IT = 1.2
"""`auto` takes bfloat16 on a CPU where a convolution is so many times as fast."""
REPEATS = 4


@dataclass(frozen=True)
class Device:
    """A worker's device."""

    name: str
    possible: tuple[str, ...]
    """The precisions that it can compute in."""
    chosen: str
    """What `auto` takes."""
    speedup: float = 1.0
    """How much faster than float32 bfloat16 was seen to be; 1 where it was not measured."""


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bfloat16."""
    with contextlib.suppress(OSError):
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
        return bool({*flags.split()} & {*INSTRUCTIONS})
    return False


def examine(measure: bool) -> Generator[None, bool, Device]:
    """A job: find what the worker's device can compute in; with `measure`, what `auto` takes (well under a second).

    On a GPU that is float32, without a measurement: tensor cores serve both, one small convolution takes no longer than
    its call, and networks that train for a few epochs lose more to compiling in bfloat16 than they gain
    (experiments/benchmarks/gpu.md).
    """
    name, capability = _device()
    if capability is None:
        possible: tuple[str, ...] = ("float32", "mixed_bfloat16")
    else:  # tensor cores compute in float16 from capability 7.0, in bfloat16 from 8.0
        possible = PRECISIONS if capability >= 8 else ("float32", "mixed_float16")
    promising = capability is None and cpu_has_bfloat16()
    speedup = _seconds("float32") / _seconds("bfloat16") if measure and promising else 1.0
    return Device(name, possible, "mixed_bfloat16" if speedup >= WORTH_IT else "float32", round(speedup, 2))
    yield


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Give the Keras layers that are built meanwhile this dtype policy."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _device() -> tuple[str, float | None]:
    """The name of the device, and the compute capability of a GPU; None: the CPU."""
    import keras

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            if gpus := tf.config.list_physical_devices("GPU"):
                details = tf.config.experimental.get_device_details(gpus[0])
                major, minor = details.get("compute_capability", (0, 0))
                return str(details.get("device_name", "GPU")), major + minor / 10
        case "jax":
            import jax

            device = jax.devices()[0]
            if device.platform != "cpu":  # a TPU has no such number, and computes in bfloat16
                return str(device.device_kind), float(getattr(device, "compute_capability", 9))
        case "torch":
            import torch

            if torch.cuda.is_available():
                major, minor = torch.cuda.get_device_capability()
                return torch.cuda.get_device_name(), major + minor / 10
    return f"the CPU ({platform.machine()})", None


def _seconds(dtype: str) -> float:
    """The seconds of a convolution of maps as a small network has them; the shortest of some."""
    from keras import ops

    maps, kernel = ops.ones((64, 14, 14, 64), dtype), ops.ones((3, 3, 64, 64), dtype)
    shortest = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        float(ops.max(ops.conv(maps, kernel, padding="same")))  # waits for the result
        shortest = min(shortest, time.perf_counter() - began)
    return shortest
