"""Devices: GPUs by the driver's library, and cores."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import executor_jobs as jobs
import pynvml
import pytest
from executor_jobs import run, values

from cnnsweep.errors import UserError
from cnnsweep.executors import devices
from cnnsweep.executors.base import Executor
from cnnsweep.executors.devices import Gpu, chosen_gpus, cores, visible_gpus
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.executors.process import ProcessExecutor


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: fail(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML on a machine with three GPUs, for machines that have none."""
    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMigMode": lambda _: fail(pynvml.NVML_ERROR_NOT_SUPPORTED),
        "nvmlDeviceGetUUID": lambda index: f"GPU-{index}f",
        "nvmlDeviceGetName": lambda index: ("H200", "H200", "T4")[index],
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(devices, "_can_use_cuda", lambda _: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def fail_to_load() -> None:
    raise OSError("no such library")


def fail(code: int) -> None:
    raise pynvml.NVMLError(code)


def test_the_real_machine_answers() -> None:
    assert all(gpu.visible for gpu in visible_gpus())
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("setting", "visible"),
    [
        ("0,2", ["0", "2"]),
        ("2", ["2"]),
        ("GPU-1f, 0", ["GPU-1f", "0"]),
        ("GPU-1", ["GPU-1f"]),
        ("GPU-", []),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["1"]),
        ("1,7,0", ["1"]),
        ("none", []),
        ("²", []),
        ("0,0", []),
    ],
)
def test_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch, setting: str, visible: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [gpu.visible for gpu in visible_gpus()] == visible


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("call", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"])
def test_a_gpu_that_does_not_answer_costs_no_other(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    answer = getattr(pynvml, call)
    lost = lambda index: fail(pynvml.NVML_ERROR_GPU_IS_LOST) if index == 1 else answer(index)  # noqa: E731
    monkeypatch.setattr(pynvml, call, lost)
    assert [gpu.visible for gpu in visible_gpus()] == ["GPU-0f", "GPU-2f"]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("device", "count"), [("gpu", None), ("gpu", 2), ("auto", 2)])
def test_no_gpu(device: str, count: int | None) -> None:
    asked = "executor.device=gpu" if count is None else "executor.gpus=2"
    with pytest.raises(UserError, match=f"^{asked}, but no GPU is visible"):
        chosen_gpus(device, count, "tensorflow")
    assert chosen_gpus("auto", None, "tensorflow") == []


@pytest.mark.usefixtures("three_gpus")
def test_fewer_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(UserError, match="only 1 is visible with CUDA_VISIBLE_DEVICES='2': T4"):
        chosen_gpus("auto", 2, "tensorflow")


@pytest.mark.usefixtures("three_gpus")
def test_auto_takes_all_that_are_visible() -> None:
    assert chosen_gpus("auto", None, "tensorflow") == visible_gpus()
    assert chosen_gpus("auto", 2, "jax") == [Gpu("GPU-0f", "H200"), Gpu("GPU-1f", "H200")]
    assert chosen_gpus("cpu", None, "tensorflow") == chosen_gpus("auto", 0, "tensorflow") == []


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("backend", "advice"),
    [("tensorflow", "install cnnsweep[gpu]"), ("jax", 'pip install "jax[cuda12]"'), ("torch", "https://pytorch.org")],
)
def test_a_framework_without_cuda(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, backend: str, advice: str
) -> None:
    monkeypatch.setattr(devices, "_can_use_cuda", lambda _: False)
    assert chosen_gpus("auto", None, backend) == []
    assert "H200 is not used: " in caplog.text
    assert advice in caplog.text
    for device, count in (("gpu", None), ("auto", 2)):
        with pytest.raises(UserError, match=f"H200 is there, but .*{re.escape(advice)}"):
            chosen_gpus(device, count, backend)


@pytest.mark.parametrize("executor", [ProcessExecutor, InlineExecutor])
@pytest.mark.parametrize(
    ("backend", "package"), [("torch", "cnnsweep[torch]"), ("jax", "cnnsweep[jax]"), ("tensorflow", "tensorflow")]
)
def test_a_backend_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, executor: type[Executor], backend: str, package: str
) -> None:
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda _: None)
    message = f'^backend={backend}: {backend} is not installed here: pip install "{re.escape(package)}"$'
    with pytest.raises(UserError, match=message):
        executor(backend=backend)


@pytest.mark.parametrize(
    ("backend", "files"),
    [
        ("jax", "jax_plugins/xla_cuda12/__init__.py"),
        ("jax", "jax_cuda13_plugin-0.9.dist-info/entry_points.txt"),
        ("torch", "torch/lib/libtorch_cuda.so"),
        ("tensorflow", "nvidia/cudnn/__init__.py"),
    ],
)
def test_the_files_of_a_framework_with_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, files: str
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda _: fail_to_load())
    assert not devices._can_use_cuda(backend)
    (tmp_path / files).parent.mkdir(parents=True)
    (tmp_path / files).write_text("[jax_plugins]\nxla_cuda13 = jax_cuda13_plugin\n" if "dist-info" in files else "")
    (tmp_path / "torch" / "__init__.py").write_text("") if backend == "torch" else None
    importlib.invalidate_caches()
    assert devices._can_use_cuda(backend)


@pytest.mark.usefixtures("three_gpus")
def test_a_worker_sees_its_gpu_only_and_says_so_when_it_does_not() -> None:
    with closing(ProcessExecutor(device="gpu", workers_per_gpu=2, gpus=2)) as executor:
        assert executor.workers == ("gpu0.0", "gpu1.0", "gpu0.1", "gpu1.1")
        (reason,) = values(run(executor, jobs.instant, 1))
        assert reason == "RuntimeError: tensorflow sees no GPU (CUDA_VISIBLE_DEVICES=GPU-0f)"


def test_a_container_quota(tmp_path: Path) -> None:
    assert devices._cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert devices._cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert devices._cgroup_quota(tmp_path) == 1.5


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("1:net_cls:/\n0::/user.slice/1.scope", {"user.slice/cpu.max": "200000 100000", "cpu.max": "max 100000"}),
        ("0::/slurm/job/step", {"slurm/job/cpu.max": "200000 100000", "slurm/cpu.max": "900000 100000"}),
        ("4:cpu,cpuacct:/1\n0::/", {"cpu/1/cpu.cfs_quota_us": "200000", "cpu/1/cpu.cfs_period_us": "100000"}),
    ],
    ids=["a-user", "a-job", "version-1"],
)  # fmt: skip
def test_a_quota_of_a_group_around_this_process(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(content)
    assert devices._cgroup_quota(tmp_path / "root", tmp_path / "own") == 2


def test_nothing_here_loads_a_framework() -> None:
    code = (
        "import sys, cnnsweep.executors.process, cnnsweep.executors.inline, cnnsweep.executors.ray.executor;"
        "print([m for m in ('tensorflow', 'keras', 'jax', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
