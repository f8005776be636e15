"""Kill a sweep's driver, its workers and its MLflow server at random moments, resume it, and look for damage.

    python experiments/benchmarks/chaos.py [--drivers 24] [--workers 160] [--servers 20] [--seed 0] [--folder DIR]

All kills are SIGKILL. A killed worker fails its trial, which is what is promised; every other trial must be as in an
undisturbed run. The default takes about 20 minutes on 2 idle cores. Exit code 0 only with zeros in every column.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import real_sweeps as real

from cnnsweep.journal import journal

CONFIG = (
    "+sweep=smoke",
    "data.limit=200",
    "space=cnn",
    "limits.parameters=60k",
    "training.epochs=3",
    "search.max_failures=null",
    *real.FAST,
)
HOUR = 3600
TRIES = 5
KILLED = "killed by SIGKILL"


@dataclass
class Report:
    """What the killer did, and the damage, which should be none."""

    drivers: int = 0
    workers: int = 0
    servers: int = 0
    trials: int = 0
    failed_with_their_worker: int = 0
    seconds: float = 0.0
    trials_lost: list[Any] = field(default_factory=list)
    trials_run_twice: list[Any] = field(default_factory=list)
    runs_left_running: list[Any] = field(default_factory=list)
    disagreements: list[Any] = field(default_factory=list)
    differences: list[Any] = field(default_factory=list)
    """From the undisturbed run's table, but for trials whose worker was killed."""
    orphans: list[Any] = field(default_factory=list)
    """Workers that outlived their driver."""

    @property
    def kills(self) -> int:
        return self.drivers + self.workers + self.servers

    @property
    def damage(self) -> dict[str, list[Any]]:
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), list)}

    def text(self) -> str:
        lines = [f"kills survived: {self.kills} (driver {self.drivers}, worker {self.workers}, server {self.servers})"]
        lines += [
            f"trials: {self.trials}, of which {self.failed_with_their_worker} failed because their worker was killed"
        ]
        for name, found in self.damage.items():
            lines += [f"{name.replace('_', ' ')}: {len(found)}", *(f"    {item}" for item in found[:5])]
        return "\n".join([*lines, f"{self.seconds:.0f} s"])


class Chaos:
    """One sweep and its killer."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.report, self.random = folder, Report(), random.Random(seed)
        self.server = real.Server(folder / "server")
        self.where = ("tracking=server", f"tracking.uri={self.server.uri}")
        self.seen = b""

    def run(self, drivers: int, workers: int, servers: int) -> Report:
        """Deal out the kills over the lives of the drivers, then let the sweep end and compare."""
        began = time.monotonic()
        # Enough that the sweep does not end before the kills do. The number is the same in the undisturbed run: what
        # random search proposes last depends on it.
        self.report.trials = 6 + workers + 4 * drivers + 2 * servers
        self.server.start()
        lives = [self._share(workers, drivers), self._share(servers, drivers)]
        for life, (some, few) in enumerate(zip(*lives, strict=True)):
            deeds = [self.kill_worker] * some + [self.kill_server] * few
            self.random.shuffle(deeds)
            self._live(life, deeds)
            self._progress(f"life {life + 1} of {drivers}")
        self._end()
        self._compare()
        self.server.kill()
        self.report.seconds = time.monotonic() - began
        return self.report

    def _share(self, count: int, lives: int) -> list[int]:
        places = [self.random.randrange(lives) for _ in range(count)]
        return [places.count(life) for life in range(lives)]

    def _live(self, life: int, deeds: Sequence[Any]) -> None:
        """Start or resume the sweep, do the deeds while it trains, and kill it."""
        known = len(real.events(self.folder))
        if life == 0:
            driver = real.start(self.folder, *CONFIG, *self.where, f"budget.trials={self.report.trials}")
        else:
            real.wait_for(self.server.answers, "the server")
            driver = real.start(self.folder, "resume")
        real.wait_for(lambda: len(real.events(self.folder)) > known + 1, "a sign of life", driver)
        for deed in deeds:
            self._pause(driver)
            deed(driver)
        self._pause(driver)
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
        driver.wait()
        self.report.drivers += 1
        self.report.orphans += [p.pid for p in psutil.wait_procs(family, timeout=20)[1]]
        self._check_nothing_lost()

    def _pause(self, driver: Any) -> None:
        """Let something happen, and a random while more."""
        known = len(real.events(self.folder))
        real.wait_for(lambda: len(real.events(self.folder)) > known, "an event", driver)
        time.sleep(self.random.uniform(0, 0.6))

    def kill_worker(self, driver: Any) -> None:
        for process in self.random.sample(found := real.workers(driver.pid), len(found)):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            self.report.workers += 1
            return

    def kill_server(self, driver: Any) -> None:  # noqa: ARG002
        self.server.kill()
        self.report.servers += 1
        time.sleep(self.random.uniform(0, 2))
        self.server.start(wait=False)

    def _check_nothing_lost(self) -> None:
        sweep = real.sweep_folder(self.folder)
        content = (sweep / journal.FILE).read_bytes()
        if not content.startswith(self.seen):
            self.report.trials_lost.append("the journal no longer begins as it did at an earlier kill")
        self.seen = content[: content.rfind(b"\n") + 1]

    def _end(self) -> None:
        for _ in range(TRIES):  # a server that has just started on a busy machine may answer too late
            real.wait_for(self.server.answers, "the server")
            code, output = real.run(self.folder, "resume", patience=HOUR)
            if code != 2:
                break
        if code:
            self.report.trials_lost.append(f"the last resume ended with {code}: {output[-2000:]}")

    def _compare(self) -> None:
        state = real.state(self.folder)
        ended = [e["trial"] for e in real.events(self.folder) if e["event"] == "end"]
        self.report.trials_lost += [n for n in range(1, self.report.trials + 1) if n not in ended]
        self.report.trials_run_twice += sorted({n for n in ended if ended.count(n) > 1})
        self.report.disagreements += real.disagreements(self.folder, self.server.uri)
        self.report.runs_left_running += [d for d in self.report.disagreements if "RUNNING" in d]
        print(self.report.text(), flush=True)
        self._progress("comparing with an undisturbed run")
        quiet = self.folder / "undisturbed"
        code, output = real.run(quiet, *CONFIG, f"budget.trials={self.report.trials}", patience=HOUR)
        assert code == 0, output
        for row, expected in zip(real.table(state), real.table(real.state(quiet)), strict=True):
            if row[3] == "failed" and KILLED in row[4]:
                self.report.failed_with_their_worker += 1
                row, expected = (*row[:3], row[5]), (*expected[:3], expected[5][: len(row[5])])
            if row != expected:
                self.report.differences.append((row, expected))
        if self.report.failed_with_their_worker > self.report.workers:
            self.report.differences.append("more trials failed than workers were killed")

    def _progress(self, what: str) -> None:
        print(f"{what}: {self.report.kills} kills so far", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, count in (("drivers", 24), ("workers", 160), ("servers", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    report = Chaos(folder, options.seed).run(options.drivers, options.workers, options.servers)
    print(report.text())
    return 1 if any(report.damage.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
