"""The folder of the fork server's sockets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cnnsweep.executors import sockets

CODE = """
import tempfile
from multiprocessing import connection, util
from cnnsweep.executors.sockets import make_socket_folder
make_socket_folder()
connection.Listener(family="AF_UNIX").close()
print(util.get_temp_dir(), tempfile.gettempdir(), sep="\\n")
"""


@pytest.mark.parametrize("length", [20, 69, 70, 71, 79, 200])
def test_a_socket_can_be_made_however_long_the_temporary_folder_is(tmp_path: Path, length: int) -> None:
    folder = Path(str(tmp_path / "x").ljust(length, "x")) if length > 70 else tmp_path.parents[1] / "x"
    folder = Path(str(folder)[:250])
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", CODE], env={"TMPDIR": str(folder)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made, given = done.stdout.splitlines()
    assert given == str(folder), "all other temporary files stay where the user wants them"
    assert (Path(made).parent == folder) == (len(str(folder)) <= sockets.MOST)
