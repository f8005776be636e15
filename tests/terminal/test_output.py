"""Output that nobody can read: the streams, the locale, and whole commands whose terminal goes."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cnnsweep
from cnnsweep.terminal.output import Output

PACKAGE = Path(cnnsweep.__file__).parent
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}


def shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which `cnnsweep` is the program; its exit code is the program's."""
    line = f'set -o pipefail; cnnsweep() {{ {sys.executable} -m cnnsweep "$@"; }}; {line}'
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=240
    )


def test_what_cannot_be_written_is_dropped_and_so_is_all_that_follows(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as broken, Path("/dev/full").open("w", encoding="utf-8") as full:
        for stream in (broken, full):
            output = Output(stream)
            assert [output.write("a" * 100_000) for _ in range(3)] == [100_000] * 3
            output.flush()
            assert os.path.samefile(f"/proc/self/fd/{output.fileno()}", os.devnull)
    closed = (tmp_path / "closed").open("w", encoding="utf-8")
    closed.close()
    for nothing in (closed, None):
        output = Output(nothing)
        assert (output.write("a"), output.isatty(), output.encoding) == (1, False, "utf-8")
        output.flush()


def test_what_the_encoding_does_not_have_becomes_a_question_mark() -> None:
    written = io.BytesIO()
    output = Output(io.TextIOWrapper(written, encoding="ascii", write_through=True))
    output.write("3 × 3 \udce9")
    assert written.getvalue() == b"3 ? 3 ?"


def test_text_files_are_utf_8_whatever_the_locale() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            given = {k.arg: k.value for k in call.keywords}
            mode = [a.value for a in (*call.args[:2], given.get("mode")) if isinstance(a, ast.Constant)]
            opens_text = name == "open" and any(m in ("r", "w", "a", "x", "r+") for m in mode)
            as_text = "text" in given and name in ("run", "Popen", "check_output")
            if (
                name in ("read_text", "write_text", "FileHandler") or opens_text or as_text
            ) and "encoding" not in given:
                wrong.append(f"{path.relative_to(PACKAGE)}:{call.lineno} {name}")
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("cnnsweep --help | head -1", {}),
        ("cnnsweep --help >&-", {}),
        ("cnnsweep --cfg seed=2 <&- >&- 2>&-", {}),
        (
            "cnnsweep --help > help; LC_ALL=C.UTF-8 grep -c CNN help",
            C_LOCALE,
        ),
    ],
)
def test_help_and_configs_end_well_whatever_happens_to_what_they_print(
    tmp_path: Path, line: str, variables: dict[str, str]
) -> None:
    done = shell(line, tmp_path, **variables)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("line", ["cnnsweep seed=-1 2>&-", "cnnsweep seed=-1 2> /dev/full", "cnnsweep rusume 2>&- >&-"])
def test_the_exit_code_tells_of_an_error_that_cannot_be_printed(tmp_path: Path, line: str) -> None:
    done = shell(line, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_result_that_cannot_be_written_is_a_failure_and_a_reader_that_goes_is_none(tmp_path: Path) -> None:
    full = shell("cnnsweep --cfg > /dev/full", tmp_path)
    assert (full.returncode, full.stderr) == (1, "cnnsweep: the output cannot be written: No space left on device\n")
    gone = shell("cnnsweep --cfg | head -n 1", tmp_path)
    assert (gone.returncode, gone.stderr) == (0, "")
    sweep = "cnnsweep +sweep=smoke budget.trials=1 training.epochs=1 tracking.report=false > /dev/full"
    assert shell(sweep, tmp_path).returncode == 0  # what it shows is an extra


SLOW = """
import pathlib, time
def load(config):
    pathlib.Path("begun").touch()
    time.sleep(100)
"""


def test_a_sigterm_before_the_first_trial_ends_as_ctrl_c_does_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    line = [sys.executable, "-m", "cnnsweep", "+sweep=smoke", "data._target_=slow.load"]
    process = subprocess.Popen(line, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, encoding="utf-8")
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")
    assert not [*tmp_path.glob("mlruns/sweeps/*")]


def test_a_mapping_that_hydra_cannot_read_without_assertions_is_named(tmp_path: Path) -> None:
    line = [sys.executable, "-O", "-m", "cnnsweep", "--cfg", "space.model.dilation={values: [1, 2]}"]
    found = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=60)
    assert (found.returncode, found.stderr) == (
        2, "cnnsweep: Hydra reads no {key: value} under python -O; start without -O and PYTHONOPTIMIZE\n"
    )  # fmt: skip
