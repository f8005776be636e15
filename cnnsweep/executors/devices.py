"""The devices of this machine: visible GPUs (from the driver's NVML library) and usable cores."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import logging
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pynvml

from cnnsweep.errors import UserError

NO_CUDA = {
    "tensorflow": "this TensorFlow has no CUDA libraries: install cnnsweep[gpu] to train on the GPU",
    "jax": 'this JAX has no CUDA plugin: pip install "jax[cuda12]" to train on the GPU',
    "torch": "this PyTorch is built without CUDA: install it as https://pytorch.org says to train on the GPU",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a slice of one where it is partitioned (MIG)."""

    visible: str
    """The value of CUDA_VISIBLE_DEVICES with which a process sees this one only."""
    name: str


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; [] where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        gpus: list[Gpu] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            with contextlib.suppress(pynvml.NVMLError):  # it is broken, or another user's: CUDA does not count it
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                gpus += _slices(handle) or [_gpu(handle)]
        return _visible_by(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    finally:
        pynvml.nvmlShutdown()


def _visible_by(gpus: Sequence[Gpu], setting: str | None) -> list[Gpu]:
    """Return what CUDA shows for this CUDA_VISIBLE_DEVICES: the first entry that names none ends the list, and one
    that is there twice empties it.

    An index stays an index for the workers, because CUDA may count in another order than NVML.
    """
    if setting is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.isdecimal():
            named = [Gpu(entry, gpu.name) for gpu in gpus[int(entry) : int(entry) + 1]]
        else:
            named = [gpu for gpu in gpus if entry.startswith(("GPU-", "MIG-")) and gpu.visible.startswith(entry)]
        if len(named) != 1:
            break
        if named[0] in chosen:
            return []
        chosen += named
    return chosen


def expect_installed(backend: str) -> None:
    """Raise UserError where the framework of a Keras backend is not installed; found without importing it."""
    if backend != "none" and importlib.util.find_spec(backend) is None:
        package = "tensorflow" if backend == "tensorflow" else f"cnnsweep[{backend}]"
        raise UserError(f'backend={backend}: {backend} is not installed here: pip install "{package}"')


def chosen_gpus(device: str, count: int | None, backend: str) -> list[Gpu]:
    """Return the GPUs to use: none for "cpu", for "auto" those that are there, else `count` or an error.

    Raises UserError where a GPU is asked for that is not there, or that the backend cannot use.
    """
    if device == "cpu" or (device == "auto" and count == 0):
        return []
    gpus = visible_gpus()
    if len(gpus) < (count or int(device == "gpu")):
        asked = f"executor.device={device}" if count is None else f"executor.gpus={count}"
        raise UserError(f"{asked}, but {_describe(gpus)}. executor=cpu trains on the cores.")
    if gpus and not _can_use_cuda(backend):
        message = NO_CUDA[backend]
        if device == "gpu" or count:
            raise UserError(f"{gpus[0].name} is there, but {message}")
        logging.getLogger("cnnsweep").warning("%s is not used: %s", gpus[0].name, message)
        return []
    return gpus[:count]


def cores() -> int:
    """Return how many cores this process may use: its affinity, and the quota of a container, a user or a job."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _cgroup_quota(Path("/sys/fs/cgroup"))
    return usable if quota is None else max(1, min(usable, int(quota)))


def _cgroup_quota(root: Path, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The least quota of this process's control groups and those around them: of a container, a user's slice, a job."""
    quotas = [quota for folder in _cgroups(root, own) if (quota := _quota(folder))]
    return min(quotas, default=None)


def _cgroups(root: Path, own: Path) -> Iterator[Path]:
    yield from (root, root / "cpu")
    with contextlib.suppress(OSError):  # no control groups here
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                group = root / ("cpu" if controllers else "") / path.lstrip("/")
                yield from (folder for folder in (group, *group.parents) if root in folder.parents)


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no cgroup file here, or "max": no limit
        return None


def _slices(handle: object) -> list[Gpu]:
    """The MIG slices of a partitioned GPU: CUDA shows those, and a process can use one."""
    found = []
    with contextlib.suppress(pynvml.NVMLError):  # no support for partitions, or an index without one
        if pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
            for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                found.append(_gpu(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)))
    return found


def _gpu(handle: object) -> Gpu:
    return Gpu(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle))


def _describe(gpus: Sequence[Gpu]) -> str:
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    within = "" if setting is None else f" with CUDA_VISIBLE_DEVICES={setting!r}"
    names = ", ".join(gpu.name for gpu in gpus)
    count = f"only {len(gpus)} {'is' if len(gpus) == 1 else 'are'}"
    return f"{count} visible{within}: {names}" if gpus else f"no GPU is visible{within}"


def _can_use_cuda(backend: str) -> bool:
    """Whether the installed framework is built for GPUs; found without importing it."""
    if backend == "none":  # the job's own framework knows
        return True
    if backend == "jax":  # it finds its CUDA plugin by an entry point, or in the package jax_plugins
        names = {point.name for point in importlib.metadata.entry_points(group="jax_plugins")}
        names |= {module.name for module in pkgutil.iter_modules(_folders("jax_plugins"))}
        return any("cuda" in name for name in names)
    if backend == "torch":
        return any(any(Path(folder, "lib").glob("*torch_cuda.*")) for folder in _folders("torch"))
    if _folders("nvidia.cudnn"):  # TensorFlow needs cuDNN, from pip or from the system
        return True
    with contextlib.suppress(OSError):
        return bool(ctypes.CDLL("libcudnn.so.9"))
    return False


def _folders(package: str) -> Sequence[str]:
    with contextlib.suppress(ModuleNotFoundError):  # the package that it is part of
        if spec := importlib.util.find_spec(package):
            return [*(spec.submodule_search_locations or ())]
    return ()
