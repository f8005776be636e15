"""One suite for every executor, then what is particular to worker processes and to devices."""

from __future__ import annotations

import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import executor_jobs as jobs
import psutil
import pynvml
import pytest
import ray_cluster

from cnnsweep.errors import UserError
from cnnsweep.executors import devices
from cnnsweep.executors import worker_pool as launch
from cnnsweep.executors.base import Event, Executor
from cnnsweep.executors.devices import Gpu, chosen_gpus, cores, visible_gpus
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.executors.process import ProcessExecutor
from cnnsweep.executors.ray.executor import RayExecutor
from cnnsweep.executors.worker import in_one_line

# A new executor joins the suite by being listed here.
EXECUTORS: dict[str, Callable[[], Executor]] = {
    "inline": InlineExecutor,
    "process": lambda: ProcessExecutor(device="cpu", workers=2),
    "process-staying": lambda: ProcessExecutor(device="cpu", workers=2, trials_per_worker=20),
}


def closing(executor: Any) -> Iterator[Any]:
    yield executor
    executor.close()
    executor.close()


@pytest.fixture(scope="module")
def on_ray() -> Iterator[Executor]:
    """A cluster takes seconds to start, and its workers as long to import TensorFlow: one for all tests."""
    ray_cluster.ray.init("local", **ray_cluster.SMALL, num_cpus=2)
    executor = RayExecutor()
    for worker in executor.workers:
        executor.submit(worker, jobs.instant, None)
    while executor.wait() is not None:
        pass
    yield from closing(executor)
    ray_cluster.leave()


@pytest.fixture(params=[*EXECUTORS, pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param in EXECUTORS:
        yield from closing(EXECUTORS[request.param]())
        return
    shared: Executor = request.getfixturevalue("on_ray")
    yield shared
    for worker in shared.workers:
        shared.kill(worker, "the test is over")
    while shared.wait() is not None:
        pass


@pytest.fixture
def workers() -> Iterator[ProcessExecutor]:
    yield from closing(ProcessExecutor(device="cpu", workers=2))


def run(executor: Executor, job: Any, argument: Any, answers: Sequence[bool] = ()) -> list[Event]:
    """Run a job on the first worker; reports beyond the given answers are answered "keep on"."""
    executor.submit(executor.workers[0], job, argument)
    events: list[Event] = []
    replies = iter(answers)
    while not events or events[-1].kind == "report":
        event = executor.wait(60)
        assert event is not None
        event.answer(next(replies, True))
        events.append(event)
    return events


def told(events: Sequence[Event]) -> list[Any]:
    return [event.value for event in events]


class TestEveryExecutor:
    def test_reports_arrive_in_order_and_the_result_last(self, executor: Executor) -> None:
        events = run(executor, jobs.count, 3)
        assert told(events) == [1, 2, 3, "counted to 3"]
        assert [event.kind for event in events] == ["report"] * 3 + ["result"]
        assert {event.worker for event in events} == {executor.workers[0]}

    def test_an_answer_false_stops(self, executor: Executor) -> None:
        assert told(run(executor, jobs.count, 5, [True, False])) == [1, 2, "stopped at 2"]

    def test_a_job_without_reports(self, executor: Executor) -> None:
        assert told(run(executor, jobs.instant, {"a": 1})) == [{"a": 1}]

    def test_an_exception_costs_the_job_and_not_the_slot(self, executor: Executor) -> None:
        *_, lost = run(executor, jobs.fail, ValueError("bad luck\nand more"))
        assert (lost.kind, lost.value) == ("lost", "ValueError: bad luck")
        assert told(run(executor, jobs.instant, 7)) == [7]

    def test_a_killed_job_is_lost_for_that_reason(self, executor: Executor) -> None:
        worker = executor.workers[0]
        executor.submit(worker, jobs.count, 3)
        report = executor.wait(60)
        assert report is not None
        executor.kill(worker, "too slow")
        lost = executor.wait(60)
        assert lost is not None
        assert (lost.kind, lost.worker, lost.value) == ("lost", worker, "too slow")
        report.answer(True)  # too late, and harmless
        executor.kill(worker, "not running")
        assert told(run(executor, jobs.instant, 7)) == [7]

    def test_every_job_ends_exactly_once(self, executor: Executor) -> None:
        results, free, waiting = Counter[str](), list(executor.workers), list(range(1, 21))
        seen = Counter[str]()
        while waiting or len(free) < len(executor.workers):
            while waiting and free:
                executor.submit(free.pop(), jobs.count, waiting.pop())
            event = executor.wait(60)
            assert event is not None
            event.answer(True)
            if event.kind != "report":
                results[event.value] += 1
                seen[event.worker] += 1
                free.append(event.worker)
        assert results == Counter(f"counted to {number}" for number in range(1, 21))
        assert set(seen) == set(executor.workers)

    def test_nothing_to_wait_for(self, executor: Executor) -> None:
        assert executor.wait() is None
        assert executor.wait(0) is None

    def test_a_busy_slot_takes_no_second_job(self, executor: Executor) -> None:
        executor.submit(executor.workers[0], jobs.count, 1)
        with pytest.raises(RuntimeError, match="busy"):
            executor.submit(executor.workers[0], jobs.count, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
class TestRay:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"num_gpus": 0.5}, "executor.num_cpus=1 with executor.num_gpus=0.5: no node of the cluster has so much ("),
            ({"num_cpus": 64}, "executor.num_cpus=64: no node of the cluster has so much ("),
            ({"storage": "/proc/nowhere"}, "executor.storage: '/proc/nowhere' is not writable, or not shared with"),
            ({"storage": "s4://bucket"}, "executor.storage: 's4://bucket' cannot be used: Protocol not known: s4"),
            ({"address": "127.0.0.1:1"}, "executor.address=127.0.0.1:1, but this process has joined the Ray cluster"),
            ({"backend": "tensorflw"}, "did you mean 'tensorflow'?"),
        ],
    )
    def test_wrong_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as error:
            RayExecutor(**arguments)
        assert message in str(error.value)

    def test_a_death_is_named_as_locally_and_costs_one_job(self, on_ray: Executor) -> None:
        *_, lost = run(on_ray, jobs.signal_itself, signal.SIGKILL)
        assert (lost.kind, lost.value.partition(":")[0]) == ("lost", "killed by SIGKILL (signal 9)")
        assert told(run(on_ray, jobs.instant, 7)) == [7]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "executor.address=127.0.0.1:1: no Ray cluster answers there"),
        ("ray://127.0.0.1:1", "executor.address=ray://127.0.0.1:1: no Ray cluster answers there"),
        ("somewhere", "executor.address=somewhere: give HOST:PORT, ray://HOST:PORT, auto, or null"),
    ],
)
def test_an_address_without_a_cluster(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)
    with pytest.raises(UserError) as error:
        RayExecutor(address=address)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_something_else_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = address.format(server.server_port)
        with pytest.raises(UserError) as error:
            RayExecutor(address=address)
        server.shutdown()
    assert str(error.value) == f"executor.address={address}: no Ray cluster answers there"


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'executor=ray needs Ray: pip install "cnnsweep\[ray\]"'):
        RayExecutor()


class TestInline:
    def test_an_interrupt_passes_through_and_frees_the_slot(self) -> None:
        executor = InlineExecutor()
        executor.submit("inline", jobs.fail, KeyboardInterrupt())
        report = executor.wait()
        assert report is not None
        report.answer(True)
        with pytest.raises(KeyboardInterrupt):
            executor.wait()
        assert told(run(executor, jobs.instant, 7)) == [7]

    def test_noise_and_tracebacks_go_to_the_log(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        executor = InlineExecutor(log=tmp_path / "log")
        run(executor, jobs.shout, None)
        run(executor, jobs.fail, ValueError("bad luck"))
        log = (tmp_path / "log").read_text()
        assert "past Python" in log
        assert "Traceback" in log
        assert capfd.readouterr().err == ""


class TestProcess:
    @pytest.mark.parametrize(
        ("job", "argument", "reason"),
        [
            (jobs.signal_itself, signal.SIGKILL, "killed by SIGKILL (signal 9): often the kernel's"),
            (jobs.signal_itself, signal.SIGSEGV, "killed by SIGSEGV (signal 11): native code crashed"),
            (jobs.abort, None, "killed by SIGABRT (signal 6)"),
            (jobs.leave, 3, "exited with code 3"),
            (jobs.die_leaving_a_child, None, "killed by SIGKILL (signal 9)"),
            (jobs.fail, SystemExit(4), "SystemExit: 4"),
        ],
    )
    def test_a_death_is_named_and_costs_one_job(
        self, workers: ProcessExecutor, job: Any, argument: Any, reason: str
    ) -> None:
        *_, lost = run(workers, job, argument)
        assert lost.kind == "lost"
        assert lost.value.startswith(reason)
        assert told(run(workers, jobs.instant, 7)) == [7]

    def test_a_report_that_cannot_be_sent_costs_the_job(self, workers: ProcessExecutor) -> None:
        (lost,) = run(workers, jobs.report_a_function, None)
        assert lost.kind == "lost"
        assert re.search("pickle|local object", lost.value)
        assert told(run(workers, jobs.instant, 7)) == [7]

    def test_a_worker_killed_while_idle_costs_nothing(self) -> None:
        for executor in closing(ProcessExecutor(device="cpu", workers=1, trials_per_worker=5)):
            (first,) = told(run(executor, jobs.process_id, None))
            os.kill(first, signal.SIGKILL)
            while psutil.pid_exists(first):
                time.sleep(0.01)
            assert told(run(executor, jobs.process_id, None)) != [first]

    def test_a_hanging_job_is_killed(self, workers: ProcessExecutor) -> None:
        workers.submit("cpu0", jobs.sleep, 60)
        report = workers.wait(60)
        assert report is not None
        report.answer(True)
        assert workers.wait(0.1) is None
        workers.kill("cpu0", "no epoch in 0.1 s")
        lost = workers.wait(5)
        assert lost is not None
        assert lost.value == "no epoch in 0.1 s"
        assert not psutil.pid_exists(report.value)

    def test_a_job_that_cannot_be_sent_leaves_the_slot_free(self, workers: ProcessExecutor) -> None:
        with pytest.raises(Exception, match=r"pickle|local object"):
            workers.submit("cpu0", lambda _: iter(()), None)
        assert told(run(workers, jobs.instant, 7)) == [7]

    def test_a_report_is_answered_once(self, workers: ProcessExecutor) -> None:
        workers.submit("cpu0", jobs.count, 1)
        report = workers.wait(60)
        assert report is not None
        report.answer(True)
        with pytest.raises(RuntimeError, match="answered already"):
            report.answer(True)

    @pytest.mark.parametrize(("trials", "processes"), [(1, 6), (2, 3), (20, 1)])
    def test_a_worker_is_replaced_after_its_trials(self, trials: int, processes: int) -> None:
        for executor in closing(ProcessExecutor(device="cpu", workers=1, trials_per_worker=trials)):
            pids = [told(run(executor, jobs.process_id, None))[0] for _ in range(6)]
            assert len(set(pids)) == processes
            assert pids == sorted(pids, key=pids.index)

    def test_no_slot_starves(self) -> None:
        for executor in closing(ProcessExecutor(device="cpu", workers=2)):
            for worker in executor.workers:
                executor.submit(worker, jobs.count, 200)
            first = [executor.wait(60) for _ in executor.workers]
            for event in first:
                event.answer(True)
            counts = Counter[str]()
            while counts.total() < 200:
                event = executor.wait(60)
                event.answer(True)
                counts[event.worker] += 1
            assert len(counts) == 2, counts  # a busy machine may well favour one

    def test_the_surroundings_of_a_job(self) -> None:
        for executor in closing(ProcessExecutor(device="cpu", workers=1, threads=2)):
            (seen,) = told(run(executor, jobs.surroundings, None))
        assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == ""
        assert seen["environment"]["OMP_NUM_THREADS"] == "2"
        assert "CNNSWEEP_FORK_SERVER" not in seen["environment"]
        assert (seen["keras"], seen["intra"], seen["inter"]) == ("tensorflow", 2, 1)
        assert seen["ignores"] == [True, True]
        assert seen["main"]

    def test_every_core_gets_a_worker(self) -> None:
        for executor in closing(ProcessExecutor(device="cpu")):
            assert executor.workers == tuple(f"cpu{number}" for number in range(cores()))

    def test_workers_write_to_the_log_only(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        for executor in closing(ProcessExecutor(device="cpu", workers=1, log=tmp_path / "log")):
            run(executor, jobs.shout, None)
            run(executor, jobs.fail, ValueError("bad luck"))
            run(executor, jobs.train, 1)
        assert capfd.readouterr() == ("", "")
        log = (tmp_path / "log").read_text()
        for line in (
            "to stdout",
            "to stderr",
            "from a child",
            "past Python",
            "Traceback",
            "ValueError: bad luck",
        ):
            assert line in log

    def test_keras_trains_in_a_fresh_process_each(self, workers: ProcessExecutor) -> None:
        first, second = (told(run(workers, jobs.train, 2)) for _ in range(2))
        assert first[-1] != second[-1]
        assert len(first) == len(second) == 3

    def test_close_ends_all_processes_soon(self) -> None:
        executor = ProcessExecutor(device="cpu", workers=2)
        pids = [told(run(executor, jobs.process_id, None))[0]]
        executor.submit("cpu1", jobs.sleep, 60)
        report = executor.wait(60)
        assert report is not None
        report.answer(True)
        start = time.monotonic()
        executor.close()
        assert time.monotonic() - start < 3
        assert not any(psutil.pid_exists(pid) for pid in [*pids, report.value])
        with pytest.raises(RuntimeError, match="closed"):
            executor.submit("cpu0", jobs.instant, 1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"device": "gpus"}, "unknown executor.device 'gpus', did you mean 'gpu'?"),
            ({"workers": 0}, "executor.workers=0: give 1 or more"),
            ({"gpus": -1}, "executor.gpus=-1: give 1 or more, or null for all"),
            ({"backend": "tensorflw"}, "did you mean 'tensorflow'?"),
        ],
    )
    def test_wrong_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as error:
            ProcessExecutor(**arguments)
        assert message in str(error.value)


DRIVER = """
import sys, time
import executor_jobs as jobs
from cnnsweep.executors.process import ProcessExecutor

def main():
    start = time.perf_counter()
    executor = ProcessExecutor(device="cpu", workers=2)
    print("constructed", time.perf_counter() - start, flush=True)
    if sys.argv[1] == "leave":
        time.sleep(1)  # now the fork server is importing
        return
    for worker in executor.workers:
        executor.submit(worker, jobs.sleep, 60)
    for _ in executor.workers:
        event = executor.wait(60)
        event.answer(True)
        print("worker", event.value, flush=True)
    if sys.argv[1] == "stay":
        time.sleep(60)

if __name__ == "__main__":
    main()
"""


def driver(folder: Path, doing: str) -> subprocess.Popen[str]:
    (folder / "driver.py").write_text(DRIVER)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    return subprocess.Popen(
        [sys.executable, "-Werror", "-Wignore::ImportWarning", str(folder / "driver.py"), doing],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


@pytest.mark.slow
def test_workers_are_spawned_where_they_cannot_be_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_server_backend", "another")
    for executor in closing(ProcessExecutor(device="cpu", workers=1, trials_per_worker=2)):
        assert told(run(executor, jobs.train, 1))[-1] == told(run(executor, jobs.process_id, None))[0]
        assert told(run(executor, jobs.instant, 7)) == [7]
        assert run(executor, jobs.leave, 3)[-1].value == "exited with code 3"


@pytest.mark.slow
class TestDriver:
    def test_workers_end_with_a_killed_driver(self, tmp_path: Path) -> None:
        with driver(tmp_path, "stay") as process:
            assert process.stdout is not None
            lines = [process.stdout.readline().split() for _ in range(3)]
            family = psutil.Process(process.pid).children(recursive=True)
            assert {int(line[1]) for line in lines[1:]} <= {child.pid for child in family}
            assert len(family) == 4  # a fork server, its two workers, and multiprocessing's tracker
            process.kill()
            assert psutil.wait_procs(family, timeout=5)[1] == []

    @pytest.mark.parametrize("doing", ["leave", "finish"])
    def test_a_driver_that_forgets_to_close_ends_at_once(self, tmp_path: Path, doing: str) -> None:
        with driver(tmp_path, doing) as process:
            assert process.stdout is not None
            first = process.stdout.readline().split()
            assert float(first[1]) < 0.5
            rest = [process.stdout.readline() for _ in range(2)] if doing == "finish" else []
            start = time.monotonic()
            output, errors = process.communicate(timeout=30)
            assert time.monotonic() - start < 5
            assert (process.returncode, output, errors) == (0, "", "")
            assert all(not psutil.pid_exists(int(line.split()[1])) for line in rest)


class FakeNvml:
    """NVML on a machine with three GPUs, for machines that have none."""

    def __init__(self, names: Sequence[str] = ("H200", "H200", "T4")) -> None:
        self.names = names

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, answer in {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.names),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetMigMode": self.no_partitions,
            "nvmlDeviceGetUUID": lambda index: f"GPU-{index}f",
            "nvmlDeviceGetName": lambda index: self.names[index],
        }.items():
            monkeypatch.setattr(pynvml, name, answer)
        monkeypatch.setattr(devices, "_tensorflow_can_use_cuda", lambda: True)

    def no_partitions(self, _: int) -> list[int]:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml().install(monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


class TestDevices:
    def test_the_real_machine_answers(self) -> None:
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
        ],
    )
    def test_cuda_visible_devices(self, monkeypatch: pytest.MonkeyPatch, setting: str, visible: list[str]) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
        assert [gpu.visible for gpu in visible_gpus()] == visible

    @pytest.mark.usefixtures("no_gpu")
    @pytest.mark.parametrize(("device", "count"), [("gpu", None), ("gpu", 2), ("auto", 2)])
    def test_no_gpu_where_one_is_asked_for(self, device: str, count: int | None) -> None:
        asked = "executor.device=gpu" if count is None else "executor.gpus=2"
        with pytest.raises(UserError, match=f"^{asked}, but no GPU is visible"):
            chosen_gpus(device, count, "tensorflow")

    @pytest.mark.usefixtures("no_gpu")
    def test_auto_without_a_gpu(self) -> None:
        assert chosen_gpus("auto", None, "tensorflow") == []

    @pytest.mark.usefixtures("three_gpus")
    def test_fewer_than_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
        with pytest.raises(UserError, match="only 1 is visible with CUDA_VISIBLE_DEVICES='2': T4"):
            chosen_gpus("auto", 2, "tensorflow")

    @pytest.mark.usefixtures("three_gpus")
    def test_auto_takes_all_that_are_visible(self) -> None:
        assert chosen_gpus("auto", None, "tensorflow") == visible_gpus()
        assert chosen_gpus("auto", 2, "jax") == [Gpu("GPU-0f", "H200"), Gpu("GPU-1f", "H200")]
        assert chosen_gpus("cpu", None, "tensorflow") == chosen_gpus("auto", 0, "tensorflow") == []

    @pytest.mark.usefixtures("three_gpus")
    def test_a_tensorflow_without_cuda(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        monkeypatch.setattr(devices, "_tensorflow_can_use_cuda", lambda: False)
        assert chosen_gpus("auto", None, "tensorflow") == []
        assert "cnnsweep[gpu]" in caplog.text
        with pytest.raises(UserError, match=r"cnnsweep\[gpu\]"):
            chosen_gpus("gpu", None, "tensorflow")

    @pytest.mark.usefixtures("three_gpus")
    def test_a_worker_sees_its_gpu_only_and_says_so_when_it_does_not(self) -> None:
        for executor in closing(ProcessExecutor(device="gpu", workers_per_gpu=2, gpus=2)):
            assert executor.workers == ("gpu0.0", "gpu1.0", "gpu0.1", "gpu1.1")
            (reason,) = told(run(executor, jobs.instant, 1))
            assert reason == "RuntimeError: tensorflow sees no GPU (CUDA_VISIBLE_DEVICES=GPU-0f)"

    def test_a_container_quota(self, tmp_path: Path) -> None:
        assert devices._cgroup_quota(tmp_path) is None
        (tmp_path / "cpu.max").write_text("max 100000\n")
        assert devices._cgroup_quota(tmp_path) is None
        (tmp_path / "cpu.max").write_text("150000 100000\n")
        assert devices._cgroup_quota(tmp_path) == 1.5

    def test_nothing_here_loads_a_framework(self) -> None:
        code = (
            "import sys, cnnsweep.executors.process, cnnsweep.executors.inline, cnnsweep.executors.preload;"
            "print([m for m in ('tensorflow', 'keras', 'jax', 'torch', 'numpy') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_line_that_tells_of_lost_memory() -> None:
    class ResourceExhaustedError(Exception):
        pass

    error = ResourceExhaustedError(
        "Graph execution error:\n\nDetected at node a/b defined at (most recent call last):\n"
        "<stack traces unavailable>\nOOM when allocating tensor with shape[9] by allocator GPU_0_bfc\n\t[[a]]"
    )
    expected = "ResourceExhaustedError: OOM when allocating tensor with shape[9] by allocator GPU_0_bfc"
    assert in_one_line(error) == expected
