"""Keras' global settings, and the environment in which it is imported."""

from __future__ import annotations

import os

SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""The environment of workers that share a GPU: its memory is taken as it is needed."""
MATRIX_PRODUCTS = "--xla_gpu_enable_triton_gemm=false"
"""Matrix products by cuBLAS: XLA compiles many kernels of Triton for each, to time them, which takes a fifth of the
seconds in which a small CNN is compiled, and makes its epochs no shorter (experiments/benchmarks/gpu.md).
"""


def environment(backend: str) -> dict[str, str]:
    """The environment in which Keras is to be imported with a backend; what the user has set stays.

    TensorFlow turns oneDNN on by itself only on processors with instructions for neural networks, but it is faster on
    others too (experiments/benchmarks/training_speed.md).
    """
    defaults = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "1"}
    chosen = {} if backend == "none" else {"KERAS_BACKEND": backend}
    return chosen | {name: os.environ.get(name, value) for name, value in defaults.items()}


def on_gpu(backend: str, shared: bool) -> dict[str, str]:
    """What is set besides where Keras trains on a GPU; of XLA's flags those that the user has set decide."""
    settings = dict(SHARED_GPU) if shared else {}
    if backend == "jax":
        settings["XLA_FLAGS"] = f"{MATRIX_PRODUCTS} {os.environ.get('XLA_FLAGS', '')}".strip()
    return settings


def use_defaults() -> None:
    """Put Keras' own defaults in place of what keras.json, the environment or an earlier job of the process set."""
    from keras import config

    config.set_image_data_format("channels_last")
    config.set_floatx("float32")
    config.set_epsilon(1e-7)
    config.set_dtype_policy("float32")
    if hasattr(config, "set_max_epochs"):  # Keras 3.11
        config.set_max_epochs(None)
        config.set_max_steps_per_epoch(None)
