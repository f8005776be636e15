"""A whole sweep where the folder, the locale, the temporary folder and the terminal are not what one hopes for."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import real_sweeps as real

pytestmark = pytest.mark.timeout(900)
ODD = """a (b) [/c] [red]d[/red] ?%20 #,'&=;{}"!~ :100:"""


def expect_complete(folder: Path) -> None:
    state = real.state(folder)
    assert state.stop.status == "completed"
    assert state.final is not None
    assert {trial.status for trial in state.trials.values()} == {"completed"}
    assert (real.sweep_folder(folder) / "report" / "report.html").exists()


@pytest.mark.slow
def test_a_sweep_in_an_odd_folder_and_locale_with_nobody_to_read_it(tmp_path: Path) -> None:
    folder, long = tmp_path / ODD, tmp_path / ("long" * 25)
    (folder / "conf" / "sweep").mkdir(parents=True)
    (folder / "conf" / "sweep" / "mine.yaml").write_text("# @package _global_\ndefaults: [smoke, _self_]\nseed: 1\n")
    long.mkdir()
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TMPDIR": str(long)}
    root = Path(real.__file__).parents[1]
    sweep = ["+sweep=mine", "data.limit=200", "executor=cpu", "executor.workers=1", "budget.trials=2"]
    for words in (sweep, ["resume", "smoke", "--config-dir", "conf"]):
        line = ["bash", "-c", '"$@" > /dev/full 2>&-', "bash", sys.executable, "-m", "cnnsweep", *words]
        done = subprocess.run(line, cwd=folder, env={**os.environ, **locale, "PYTHONPATH": str(root)}, timeout=600)
        assert done.returncode == 0
    expect_complete(folder)
    assert {path.name for path in tmp_path.iterdir()} == {ODD.split("/")[0], long.name}, "nothing is written beside it"
    assert {path.name for path in folder.iterdir()} == {"conf", "mlruns"}
    config = next((folder / "mlruns" / "artifacts").rglob("config.yaml"))
    assert "seed: 1" in config.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_sweep_goes_on_when_its_terminal_is_closed(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ |= {"TERM": "dumb", "PYTHONPATH": str(Path(real.__file__).parents[1])}
        os.execv(sys.executable, [sys.executable, "-m", "cnnsweep", *real.TINY, "tracking.report=true"])
    shown = b""
    while b"001 \xc2\xb7" not in shown:  # such a terminal gets a line for each trial
        shown += os.read(terminal, 4096)
    assert real.state(tmp_path).stop is None
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    expect_complete(tmp_path)
    assert real.disagreements(tmp_path) == []
