"""What kind of fault a lost trial's reason tells of, as far as the sweep answers it in a way of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cnnsweep.journal.journal import FULL

OUT_OF_MEMORY = ("OOM", "out of memory", "RESOURCE_EXHAUSTED", "ResourceExhausted", "MemoryError", "OutOfMemory")
"""In the errors of TensorFlow, JAX, PyTorch and Python, and in what `launch` says of the kernel's killer."""

LEAST_FREE = 1 << 20
"""Bytes: with less, not even a checkpoint can be written, and a worker may die without a word about it."""


def is_out_of_memory(reason: str) -> bool:
    """
    >>> is_out_of_memory("ResourceExhaustedError: OOM when allocating tensor with shape[4096,64,28,28]")
    True
    >>> is_out_of_memory("killed by SIGSEGV (signal 11): native code crashed")
    False
    """
    return any(word in reason for word in OUT_OF_MEMORY)


def is_full_disk(reason: str | None, folder: Path) -> bool:
    """Whether a trial that writes to `folder` was lost to a disk, or a quota, that has no room left."""
    if any(os.strerror(code) in (reason or "") for code in FULL):
        return True
    try:
        return shutil.disk_usage(folder).free < LEAST_FREE
    except OSError:
        return False
