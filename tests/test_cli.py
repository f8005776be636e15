"""The command line: its help, its options, how overrides pass, and the exit codes."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from cnnsweep import __version__, cli
from cnnsweep.config.compose import compose
from cnnsweep.terminal import screen

Run = Callable[..., tuple[int, str, str]]
COMPOSING = ("run", "plan", "resume", "list", "ui", "report", "export", "train")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder; return its exit code, its output and its errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", cli.commands.commands)
def test_every_command_has_help_with_its_options_and_an_example(name: str, run: Run) -> None:
    code, shown, errors = run(name, "--help")
    options = [option for parameter in cli.commands.commands[name].params for option in parameter.opts]
    assert (code, errors) == (0, "")
    assert all(option in shown for option in options if option.startswith("-"))
    assert "--debug" in shown
    assert re.search(r"Examples:\n +python -m cnnsweep", shown)


def test_help_lists_commands_groups_and_examples(run: Run) -> None:
    code, shown, _ = run("--help")
    assert code == 0
    for line in (r"  plan +Show", r"  search=grid +Every", r"  \+sweep=smoke +Does", r"-m cnnsweep +handwritten"):
        assert re.search(line, shown), line
    assert max(map(len, shown.splitlines())) <= 120
    assert run("-h")[1] == shown
    assert "..." not in shown.partition("Commands:")[2].partition("Overrides")[0], "a summary is cut"


@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits_a_narrow_terminal(columns: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    choices = run("--help")[1].partition("their choices:\n")[2].partition("\n\n")[0]
    assert max(map(len, choices.splitlines())) <= columns
    assert "\n                          " in choices


def test_help_answers_within_a_second_and_loads_nothing_heavy() -> None:
    heavy = {"tensorflow", "keras", "keras_tuner", "mlflow", "pandas", "matplotlib", "sklearn", "optuna"}
    heavy |= {"plotly", "hydra", "pydantic", "rich"}
    code = f"import sys; from cnnsweep.cli import main; main(['--help']); assert not {heavy} & {{*sys.modules}}"
    spent = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        spent.append(time.monotonic() - began)
    assert min(spent) < 1


def test_the_version(run: Run) -> None:
    assert run("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "cannot read ''"),
        (["seed=1", ""], "cannot read ''"),
        (["ui", ""], "cannot read ''"),
        (["train", "--from", ""], "cannot read '' after --from: it is empty"),
        (["train", "--from="], "cannot read '--from='"),
        (["report", "--out", ""], "cannot read '' after --out"),
        (["plan", "--json", " "], "cannot read ' ' after --json"),
        (["predict", "", "image.png"], "cannot read ''"),
        (["--config-dir", ""], "cannot read '' after --config-dir"),
        (["ui", "--port", "99999"], "99999 is not in the range"),
        (["rusume"], "unknown command 'rusume', did you mean 'resume'?"),
        (["--confg-dir", "x"], "unknown option '--confg-dir', did you mean '--config-dir'?"),
        (["plan", "--no-forcast"], "unknown option '--no-forcast', did you mean '--no-forecast'?"),
        (["--config-dir"], "Option '--config-dir' requires an argument"),
        (["export", "a", "b"], "export takes one sweep, not a, b"),
        (["list", "seed=1"], "list: cannot use 'seed=1'"),
        (["export", "training.epochs=20"], "export: cannot use 'training.epochs=20': it trains for as many epochs as"),
        (["train", "space.model.filters.values=[8]"], "train: cannot use 'space.model.filters.values=[8]': nothing is"),
        (["train", "--from", "f00", "budget.trials=5"], "train: cannot use 'budget.trials=5': nothing is searched"),
        (["predict", "model.keras"], "Missing argument 'INPUT...'"),
        (["export", "--trial", "best"], "'best' is not a valid integer"),
        (["seed=-1"], "seed"),
        (["+sweep=fasion"], "did you mean 'fashion'?"),
        *(([name, "--config-dir", "nowhere"], "there is no directory 'nowhere'") for name in COMPOSING),
    ],
)
def test_wrong_input_is_one_error_of_a_few_lines(run: Run, arguments: list[str], message: str) -> None:
    code, shown, errors = run(*arguments)
    assert (code, shown) == (2, "")
    assert errors.startswith("cnnsweep: ")
    assert message in errors
    assert len(errors.splitlines()) < 4


def test_a_file_that_hides_a_package_is_named(run: Run) -> None:
    path = Path("keras.py").absolute()
    path.write_text("raise SystemExit")
    code, _, errors = run("--cfg")
    assert (code, errors) == (2, f"cnnsweep: {path} would be imported in place of the package keras: rename it\n")


def test_a_working_folder_that_was_removed_is_named(run: Run) -> None:
    Path.cwd().rmdir()
    code, _, errors = run("list")
    assert (code, errors) == (2, "cnnsweep: the working folder was removed: change to another one (cd)\n")


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="unknown command"):
        cli.main(["--debug", "rusume"])
    with pytest.raises(ValueError, match="seed"):
        cli.main(["seed=-1", "--debug"])


def test_an_interrupt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cnnsweep.config.compose.compose", interrupt)
    code, _, errors = run("plan")
    assert (code, errors.strip()) == (130, "interrupted")


@pytest.mark.parametrize("before", [["--cfg"], ["run", "--cfg"], ["--debug", "--cfg"]])
def test_overrides_pass_to_hydra_as_they_are(run: Run, before: list[str]) -> None:
    overrides = [
        "+sweep=fashion",
        "~budget.minutes",
        "++budget.minutes=7",
        "space.model.filters.values=[1,2]",
        "tracking.tags={note: two words}",
        "tracking.experiment=a b",
    ]
    code, shown, errors = run(*before, *overrides)
    config = yaml.safe_load(shown)
    assert (code, errors) == (0, "")
    assert config["name"] == "fashion"
    assert config["budget"]["minutes"] == 7
    assert config["space"]["model"]["filters"]["values"] == [1, 2]
    assert config["tracking"]["tags"] == {"note": "two words"}
    assert config["tracking"]["experiment"] == "a b"


@pytest.mark.parametrize("folder", ["mlruns", "a b", "[x]?;'é'", "~x"])
def test_printed_commands_can_be_pasted_into_a_shell(run: Run, folder: str) -> None:
    line = run("resume", f"tracking.dir={folder}")[2]
    assert f"there are no sweeps in {Path(folder).absolute()}" in line
    outcome = SimpleNamespace(
        id="x", uri="sqlite:///x", waiting=1, status="interrupted", config=compose([f"tracking.dir={folder}"])
    )
    printed = io.StringIO()
    screen._print_commands(outcome, None, Console(file=printed, width=300, markup=False))  # type: ignore[arg-type]
    for line in printed.getvalue().splitlines():
        words = shlex.split(line.partition(":  ")[2])
        assert words[-2:] == (["x", f"tracking.dir={folder}"] if folder != "mlruns" else [words[-2], "x"])


def test_null_and_negative_numbers(run: Run) -> None:
    overrides = ["model=transfer", "model.cut=null", "space.training.weight_decay={values: [-1, -2.5]}"]
    config = yaml.safe_load(run("--cfg", *overrides)[1])
    assert config["model"]["cut"] is None
    assert config["space"]["training"]["weight_decay"]["values"] == [-1, -2.5]


def test_configs_of_a_folder_of_ones_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine" / "space").mkdir(parents=True)
    (tmp_path / "mine" / "space" / "small.yaml").write_text("model: {blocks: {values: [1]}}\n")
    for option in (["--config-dir", "mine"], [f"--config-dir={tmp_path / 'mine'}"]):
        assert yaml.safe_load(run(*option, "space=small", "--cfg")[1])["space"]["model"] == {"blocks": {"values": [1]}}


@pytest.mark.parametrize("name", ["ui", "report", "export", "train"])
def test_the_store_of_ones_own_tracking_config_is_used(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine" / "tracking").mkdir(parents=True)
    (tmp_path / "mine" / "tracking" / "mine.yaml").write_text("defaults: [local, _self_]\ndir: elsewhere\n")
    run_id = ["--from", "f00"] if name == "train" else []
    code, _, errors = run(name, *run_id, "tracking=mine", "--config-dir", "mine")
    assert code == 2
    assert "elsewhere" in errors


@pytest.mark.slow
def test_a_ctrl_c_while_the_report_is_made_leaves_the_result(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnsweep.report import report

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "make", interrupted)
    code, shown, _ = run("+sweep=smoke", "executor=inline", "budget.trials=1", "training.epochs=1")
    assert code == 0
    assert "best configuration" in shown
    assert "report:" not in shown
