"""What kind of fault a lost trial's reason tells of, as far as the sweep answers it in a way of its own."""

from __future__ import annotations

import os

from cnnsweep.journal import FULL

OUT_OF_MEMORY = ("OOM", "out of memory", "RESOURCE_EXHAUSTED", "ResourceExhausted", "MemoryError", "OutOfMemory")
"""In the errors of TensorFlow, JAX, PyTorch and Python, and in what `launch` says of the kernel's killer."""


def is_out_of_memory(reason: str) -> bool:
    """
    >>> is_out_of_memory("ResourceExhaustedError: OOM when allocating tensor with shape[4096,64,28,28]")
    True
    >>> is_out_of_memory("killed by SIGSEGV (signal 11): native code crashed")
    False
    """
    return any(word in reason for word in OUT_OF_MEMORY)


def is_full_disk(reason: str | None) -> bool:
    """
    >>> is_full_disk("OSError: [Errno 28] No space left on device")
    True
    """
    return any(os.strerror(code) in (reason or "") for code in FULL)
