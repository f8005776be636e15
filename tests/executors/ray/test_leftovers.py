"""What a driver that was killed leaves on a node is removed by the next, and nothing that is in use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cnnsweep.executors.ray.leftovers import MARK, PREFIX, occupy, remove_abandoned

HOLD = """
import sys, time
from pathlib import Path
from cnnsweep.executors.ray.leftovers import occupy
file = occupy(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_only_folders_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    killed, mine, other = (tmp_path / f"{PREFIX}{name}" for name in ("killed", "mine", "plan-x"))
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(killed)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    (killed / "data").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(killed)
    other.mkdir()
    with occupy(mine), occupy(mine):  # two workers on one node
        remove_abandoned(tmp_path)
        assert {path.name for path in (killed, mine, other) if path.exists()} == {killed.name, mine.name, other.name}
        process.kill()
        process.communicate()
        remove_abandoned(tmp_path)
        assert [path.exists() for path in (killed, mine, other)] == [False, True, True]
    remove_abandoned(tmp_path)
    assert not mine.exists()


def test_a_folder_that_is_removed_while_it_is_taken_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}x"
    with occupy(folder) as first:
        pass
    assert first.closed
    remove_abandoned(tmp_path)
    with occupy(folder):
        assert (folder / MARK).exists()
