"""The process executor: deaths, surroundings and ends of worker processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import executor_jobs as jobs
import psutil
import pytest
from executor_jobs import run, values

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.executors import launcher
from cnnsweep.executors.base import run_all
from cnnsweep.executors.devices import cores
from cnnsweep.executors.process import ProcessExecutor


@pytest.fixture
def workers() -> Iterator[ProcessExecutor]:
    with closing(ProcessExecutor(device="cpu", workers=2)) as executor:
        yield executor


@pytest.mark.parametrize(
    ("job", "argument", "reason"),
    [
        (jobs.call, partial(signal.raise_signal, signal.SIGKILL), "killed by SIGKILL (signal 9): often the kernel's"),
        (jobs.call, partial(signal.raise_signal, signal.SIGSEGV), "killed by SIGSEGV (signal 11): native code crashed"),
        (jobs.call, os.abort, "killed by SIGABRT (signal 6)"),
        (jobs.call, partial(os._exit, 3), "exited with code 3"),
        (jobs.die_leaving_a_child, None, "killed by SIGKILL (signal 9)"),
        (jobs.fail, SystemExit(4), "SystemExit: 4"),
    ],
)
def test_a_death_is_named_and_costs_one_job(workers: ProcessExecutor, job: Any, argument: Any, reason: str) -> None:
    *_, lost = run(workers, job, argument)
    assert lost.kind == "lost"
    assert lost.value.startswith(reason)
    assert values(run(workers, jobs.instant, 7)) == [7]


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such file")
def test_the_kernel_is_to_kill_a_worker_rather_than_the_process_that_all_are_forked_from(
    workers: ProcessExecutor,
) -> None:
    """Which counts as larger, since the libraries' files are mapped there; with it all running trials would be lost."""
    mine = int(Path("/proc/self/oom_score_adj").read_text())
    (worker,) = values(run(workers, jobs.call, Path("/proc/self/oom_score_adj").read_text))
    assert int(worker) == min(1000, mine + 500)


def test_a_framework_that_this_processor_cannot_run_is_named(tmp_path: Path) -> None:
    """TensorFlow's wheels need AVX. Its import kills the process of which workers are forked."""
    (tmp_path / "tensorflow.py").write_text("import signal; signal.raise_signal(signal.SIGILL)")
    (tmp_path / "driver.py").write_text(
        "from cnnsweep.executors.process import ProcessExecutor\n"
        "executor = ProcessExecutor(device='cpu', workers=1)\n"
        "executor.submit('cpu0', print, 1)\n"
        "print(executor.wait(60).value)\n"
    )
    paths = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))
    command, variables = [sys.executable, str(tmp_path / "driver.py")], {**os.environ, "PYTHONPATH": paths}
    output = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60).stdout
    assert "killed by SIGILL (signal 4): this processor lacks instructions" in output


def test_a_job_whose_process_has_not_started_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    may_start, start = threading.Event(), launcher.Launcher._start
    monkeypatch.setattr(launcher.Launcher, "_start", lambda self, new: (may_start.wait(60), start(self, new)))
    with closing(ProcessExecutor(device="cpu", workers=2)) as executor:
        executor.submit("cpu0", jobs.instant, 7)
        assert executor.notes == {"cpu0": "starting"}
        may_start.set()
        assert executor.wait(60) is not None
        assert executor.notes == {}


def test_what_cannot_be_sent_costs_the_job_and_not_the_worker(workers: ProcessExecutor) -> None:
    (lost,) = run(workers, jobs.report_a_function, None)
    assert lost.kind == "lost"
    assert re.search("pickle|local object", lost.value)
    with pytest.raises(Exception, match=r"pickle|local object"):
        workers.submit("cpu0", lambda _: iter(()), None)
    assert values(run(workers, jobs.instant, 7)) == [7]


def test_a_worker_killed_while_idle_costs_nothing() -> None:
    with closing(ProcessExecutor(device="cpu", workers=1, trials_per_worker=5)) as executor:
        (first,) = values(run(executor, jobs.call, os.getpid))
        os.kill(first, signal.SIGKILL)
        while psutil.pid_exists(first):
            time.sleep(0.01)
        assert values(run(executor, jobs.call, os.getpid)) != [first]


def test_a_hanging_job_is_killed(workers: ProcessExecutor) -> None:
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


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_a_job_starts_can_be_terminated(workers: ProcessExecutor, method: str) -> None:
    """A pool of processes, left by its `with`, waits for that: the trial hung."""
    assert values(run(workers, jobs.use_helpers, method)) == [{-signal.SIGTERM}]


def test_a_report_is_answered_once(workers: ProcessExecutor) -> None:
    workers.submit("cpu0", jobs.count, 1)
    report = workers.wait(60)
    assert report is not None
    report.answer(True)
    with pytest.raises(RuntimeError, match="answered already"):
        report.answer(True)


@pytest.mark.parametrize(("trials", "processes"), [(1, 6), (2, 3), (20, 1)])
def test_a_worker_is_replaced_after_its_trials(trials: int, processes: int) -> None:
    with closing(ProcessExecutor(device="cpu", workers=1, trials_per_worker=trials)) as executor:
        pids = [values(run(executor, jobs.call, os.getpid))[0] for _ in range(6)]
        assert len(set(pids)) == processes
        assert pids == sorted(pids, key=pids.index)


def test_a_worker_is_replaced_once_it_holds_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GROWTH", 60 * 2**20)
    with closing(ProcessExecutor(device="cpu", workers=1, trials_per_worker=20)) as executor:
        pids = [values(run(executor, jobs.keep, 40 * 2**20))[0] for _ in range(5)]
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]


def test_no_worker_starves(workers: ProcessExecutor) -> None:
    counts = Counter[int]()

    def on_report(job: int, _: object) -> bool:
        counts[job] += 1
        return counts.total() < 200

    run_all(workers, [(jobs.count, 200)] * 2, on_report)
    assert len(counts) == 2, counts  # a busy machine may well favour one


def test_the_surroundings_of_a_job() -> None:
    with closing(ProcessExecutor(device="cpu", workers=1, threads=2)) as executor:
        (seen,) = values(run(executor, jobs.surroundings, None))
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["environment"]["OMP_NUM_THREADS"] == "2"
    assert "CNNSWEEP_FORK_SERVER" not in seen["environment"]
    assert (seen["keras"], seen["intra"], seen["inter"]) == ("tensorflow", 2, 1)
    assert seen["survives"] == [True, True]
    assert seen["main"]


def test_what_keras_seldom_needs_is_loaded_at_its_first_use(workers: ProcessExecutor) -> None:
    assert values(run(workers, jobs.use_keras_extras, None)) == [([], True, True)]


def test_every_core_gets_a_worker() -> None:
    with closing(ProcessExecutor(device="cpu")) as executor:
        assert executor.workers == tuple(f"cpu{number}" for number in range(cores()))


def test_workers_write_to_the_log_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(ProcessExecutor(device="cpu", workers=1, log=tmp_path / "log")) as executor:
        run(executor, jobs.shout, None)
        run(executor, jobs.fail, ValueError("bad luck"))
        run(executor, jobs.train, 1)
    assert capfd.readouterr() == ("", "")
    log = (tmp_path / "log").read_text()
    lines = ("to stdout", "to stderr", "from a child", "past Python", "Traceback", "ValueError: bad luck")
    assert all(line in log for line in lines)


def test_keras_trains_in_a_fresh_process_each(workers: ProcessExecutor) -> None:
    first, second = (values(run(workers, jobs.train, 2)) for _ in range(2))
    assert first[-1] != second[-1]
    assert len(first) == len(second) == 3


def test_close_ends_all_processes_soon(workers: ProcessExecutor) -> None:
    (idle,) = values(run(workers, jobs.call, os.getpid))
    workers.submit("cpu1", jobs.sleep, 60)
    report = workers.wait(60)
    assert report is not None
    report.answer(True)
    start = time.monotonic()
    workers.close()
    assert time.monotonic() - start < 3
    assert not any(psutil.pid_exists(pid) for pid in (idle, report.value))
    with pytest.raises(RuntimeError, match="closed"):
        workers.submit("cpu0", jobs.instant, 1)


def test_a_ctrl_c_while_workers_are_closed_leaves_none(
    workers: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python waits at its end for those that live: for as long as their epochs take."""
    found = []
    for worker in workers.workers:
        workers.submit(worker, jobs.sleep, 60)
    for _ in workers.workers:
        report = workers.wait(60)
        assert report is not None
        report.answer(True)
        found.append(psutil.Process(report.value))
    join, asked = BaseProcess.join, []

    def interrupted(process: BaseProcess, timeout: float | None = None) -> None:
        asked.append(process)
        if len(asked) == 1:
            raise KeyboardInterrupt
        join(process, timeout)

    monkeypatch.setattr(BaseProcess, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workers.close()
    assert psutil.wait_procs(found, timeout=5)[1] == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("executor.device=gpus", "did you mean 'gpu'?"),
        ("executor.workers=0", "executor.workers"),
        ("executor.gpus=-1", "executor.gpus"),
        ("executor.trials_per_worker=0", "executor.trials_per_worker"),
        ("executor.threads=two", "executor.threads"),
        ("executor.gpus=2", "executor: gpus=2 has no effect on the CPU; executor=gpu trains on GPUs"),
        ("executor.workers_per_gpu=2", "executor: workers_per_gpu=2 has no effect on the CPU"),
    ],
)
def test_wrong_settings(override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        compose(["executor=cpu", override])
    assert message in str(error.value)


def test_workers_are_not_counted_on_gpus() -> None:
    with pytest.raises(UserError, match="executor: workers=3 has no effect on GPUs"):
        compose(["executor=gpu", "executor.workers=3"])
    assert compose(["executor=auto", "executor.workers=3", "executor.gpus=2"]).executor.settings()["workers"] == 3


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
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
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
    monkeypatch.setattr(launcher, "_server_backend", "another")
    with closing(ProcessExecutor(device="cpu", workers=1, trials_per_worker=2)) as executor:
        assert values(run(executor, jobs.train, 1))[-1] == values(run(executor, jobs.call, os.getpid))[0]
        assert values(run(executor, jobs.instant, 7)) == [7]
        assert run(executor, jobs.call, partial(os._exit, 3))[-1].value == "exited with code 3"


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
            assert time.monotonic() - start < 15
            assert (process.returncode, output, errors) == (0, "", "")
            assert all(not psutil.pid_exists(int(line.split()[1])) for line in rest)
