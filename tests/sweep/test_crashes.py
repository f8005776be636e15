"""A real SIGKILL to the driver at a random moment, and what `resume` makes of it."""

from __future__ import annotations

import random
from pathlib import Path

import psutil
import pytest
import real_sweeps as real

from cnnsweep.config.compose import compose
from cnnsweep.sweep import session
from cnnsweep.sweep.session import Watcher

OVERRIDES = (*real.TINY, "training.epochs=3", "budget.trials=3", "data.augment.shift=0.1", "model.dropout=0.2")

pytestmark = pytest.mark.timeout(900)  # several starts of a driver, on a machine that may be busy


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> session.Outcome:
    folder = tmp_path_factory.mktemp("undisturbed")
    return session.start(compose([*OVERRIDES, f"tracking.dir={folder / 'mlruns'}"]), Watcher())


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_table(undisturbed: session.Outcome, tmp_path: Path) -> None:
    moment = random.randrange(2, 12)
    driver = real.start(tmp_path, *OVERRIDES)
    real.wait_for(lambda: len(real.events(tmp_path)) >= moment, f"event {moment}", driver)
    family = real.workers(driver.pid)
    driver.kill()
    driver.wait()
    assert not psutil.wait_procs(family, timeout=10)[1], "a worker outlived its driver"
    driver = real.start(tmp_path, "resume")
    assert driver.wait(real.PATIENCE) == 0, (tmp_path / "output.txt").read_text()
    state = real.state(tmp_path)
    assert real.table(state) == real.table(undisturbed.state), f"killed after event {moment}"
    assert state.final.metrics == undisturbed.state.final.metrics
    ends = [e["trial"] for e in real.events(tmp_path) if e["event"] == "end"]
    assert sorted(ends) == [1, 2, 3], "a trial ended twice, or never"
    assert real.disagreements(tmp_path) == []
