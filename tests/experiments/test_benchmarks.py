"""Short versions of the benchmarks that look for damage."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_of_driver_workers_and_server_leave_no_damage(tmp_path: Path) -> None:
    report = load("chaos").Chaos(tmp_path, seed=1).run(drivers=1, workers=2, servers=1)
    assert report.drivers == 1
    assert report.kills >= 2, "a worker may be gone before it can be killed"
    assert not any(report.damage.values()), report.text()


@pytest.mark.slow
def test_malformed_input_is_answered_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_input = load("bad_input")
    monkeypatch.delenv("CNNSWEEP_DATA_DIR", raising=False)
    with contextlib.chdir(tmp_path):
        cases = list(bad_input.cases(tmp_path))
        assert len(cases) >= 100
        faults = {}
        for case in random.Random(0).sample(cases, 40):
            if found := bad_input.fault(case, *bad_input.run(case.arguments)):
                faults[" ".join(case.arguments)] = found
    assert faults == {}
