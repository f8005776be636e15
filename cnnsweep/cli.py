"""The command line. Exit codes: 0 fine, 1 no trial completed, 2 wrong input, 130 interrupted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cnnsweep.config.compose import GROUPS, compose, shipped
from cnnsweep.errors import UserError, unknown

USAGE = """\
cnnsweep {version}: hyperparameter sweeps for convolutional networks, every trial tracked in MLflow

usage: python -m cnnsweep [COMMAND] [OVERRIDE ...] [--config-dir DIR] [--cfg]

commands
{commands}

overrides (Hydra's grammar)
  +sweep=fashion                       a preset
  search=hyperband                     another choice of a group
  budget.trials=40 seed=1              any key of the config
  model.kernel_size=3                  fix a key that the space would vary
  'space.model.filters.values=[32,64]' narrow what a key may be
  'space.model.dilation={{values: [1, 2]}}'   search a key that was fixed

groups and their choices
{groups}

options
  --cfg              print the composed config and stop
  --config-dir DIR   your own configs (default: ./conf, where there is one); they are found beside the shipped ones
  --debug            show the traceback of an error
  --version, --help

examples
  python -m cnnsweep                                      handwritten digits, nothing to download, a minute or two
  python -m cnnsweep +sweep=fashion                       Fashion-MNIST
  python -m cnnsweep +sweep=digits search=grid 'space.model.filters.values=[16,32]'
  python -m cnnsweep space=none model.blocks=3            one configuration, no search
  python -m cnnsweep plan +sweep=fashion                  what that would try, and how long it would take
  python -m cnnsweep resume                               go on with a sweep that was interrupted, in whatever way
  python -m cnnsweep ui                                   the MLflow UI on the last sweep's trials
  python -m cnnsweep report fashion-random fashion-asha   two sweeps side by side
  python -m cnnsweep export fashion                       the best network, to take home
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; `argv` is without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        return _dispatch(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"cnnsweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(_help())
        return 0
    if "--version" in arguments:
        from cnnsweep import __version__

        print(__version__)
        return 0
    if arguments and not arguments[0].startswith("-") and "=" not in arguments[0] and arguments[0][0] not in "+~":
        name = arguments.pop(0)
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS)
    else:
        name = "run"
    # A component of the user's own may stand in a module beside the configs.
    sys.path.insert(0, os.getcwd())
    return COMMANDS[name](arguments)


def _help() -> str:
    from cnnsweep import __version__

    commands = "\n".join(f"  {name:<9} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items())
    groups = "\n".join(_group_help(group) for group in GROUPS)
    return USAGE.format(version=__version__, commands=commands, groups=groups)


def _group_help(group: str) -> str:
    files = [f for f in sorted((shipped() / group).glob("*.yaml")) if not f.name.startswith("_")]
    return "\n".join(f"  {f'{group}={f.stem}':<22} {_first_comment(f)}" for f in files)


def _first_comment(path: Path) -> str:
    for line in path.read_text().splitlines():
        if line.startswith("# ") and not line.startswith("# @"):
            text = line[2:]
            return text if len(text) <= 100 else f"{text[:99]}…"
    return ""


def _take(arguments: list[str], option: str) -> str | None:
    """Remove `--option VALUE` or `--option=VALUE` and return the value."""
    for index, argument in enumerate(arguments):
        if argument == option and index + 1 < len(arguments):
            del arguments[index]
            return arguments.pop(index)
        if argument.startswith(f"{option}="):
            return arguments.pop(index).partition("=")[2]
        if argument == option:
            raise UserError(f"{option} needs a value")
    return None


def _take_flag(arguments: list[str], flag: str) -> bool:
    found = flag in arguments
    arguments[:] = [a for a in arguments if a != flag]
    return found


def _compose(arguments: list[str]) -> dict[str, Any]:
    config_dir = _take(arguments, "--config-dir")
    for argument in arguments:
        if argument.startswith("-"):
            raise unknown("option", argument, ["--cfg", "--config-dir", "--debug", "--help", "--version"])
    return compose(arguments, config_dir)


def _run(arguments: list[str]) -> int:
    """search (the default: what `python -m cnnsweep +sweep=fashion` does)"""
    command = [Path(sys.argv[0]).name if sys.argv[0].endswith("cnnsweep") else "python -m cnnsweep", *arguments]
    show = _take_flag(arguments, "--cfg")
    config = _compose(arguments)
    if show:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(config), end="")
        return 0
    from cnnsweep.sweep import session
    from cnnsweep.terminal.screen import Screen
    from cnnsweep.terminal.summary import print_outcome

    screen = Screen()
    return _exit_code(print_outcome(session.start(config, screen, command), screen.console))


def _exit_code(status: str) -> int:
    return {"completed": 0, "interrupted": 130}.get(status, 1)


def _resume(arguments: list[str]) -> int:
    """go on with a sweep, the last unfinished by default: resume [SWEEP] [budget.trials=40 executor=cpu ...]"""
    from cnnsweep.sweep import resume
    from cnnsweep.terminal.screen import Screen
    from cnnsweep.terminal.summary import print_outcome

    command = ["python -m cnnsweep resume", *arguments]
    config_dir = _take(arguments, "--config-dir")
    named = [arguments.pop(0)] if arguments and "=" not in arguments[0] else []
    screen = Screen()
    wish = resume.read(named, arguments, config_dir)
    outcome = resume.resume(wish, screen, command)
    return _exit_code(print_outcome(outcome, screen.console)) if outcome else 0


def _list(arguments: list[str]) -> int:
    """show the sweeps with their state, trials, best value and age: list [tracking.dir=DIR]"""
    from cnnsweep.terminal import sweep_list as listing

    for argument in arguments:
        if not argument.startswith(("tracking.dir=", "--config-dir")):
            raise UserError(f"list: cannot use '{argument}' (allowed: tracking.dir=DIR, --config-dir DIR)")
    listing.show(Path(_compose(arguments)["tracking"]["dir"]).absolute())
    return 0


def _plan(arguments: list[str]) -> int:
    """what a sweep would try and cost, without training: plan [OVERRIDE ...] [--json FILE] [--no-forecast]"""
    file, forecast = _take(arguments, "--json"), not _take_flag(arguments, "--no-forecast")
    config = _compose(arguments)
    from cnnsweep.plan import plan as planning
    from cnnsweep.plan import view as plan_view
    from cnnsweep.terminal.screen import Screen

    screen = Screen()
    report = planning.plan(config, screen, forecast)
    plan_view.show(report, screen.console)
    if file:
        planning.write(report, Path(file))
    return 0


def _ui(arguments: list[str]) -> int:
    """open the MLflow UI on a sweep's trials, best first: ui [SWEEP]"""
    from cnnsweep.ui import server as ui

    return ui.command(arguments)


def _report(arguments: list[str]) -> int:
    """write a sweep's report, or compare several: report [SWEEP ...] [--out DIR]"""
    from cnnsweep.report import report

    return report.command(arguments)


def _export(arguments: list[str]) -> int:
    """train the best again on all training data, test, register: export [SWEEP] [--trial N] [--out DIR]"""
    from cnnsweep.export import export

    return export.command(arguments)


def _predict(arguments: list[str]) -> int:
    """classify image files with an exported model: predict MODEL IMAGE ..."""
    from cnnsweep.export import predict

    return predict.command(arguments)


def _train(arguments: list[str]) -> int:
    """train one configuration as its own run: train [--from RUN_ID] [OVERRIDE ...]"""
    from cnnsweep.sweep import single

    return single.command(arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "plan": _plan,
    "resume": _resume,
    "list": _list,
    "ui": _ui,
    "report": _report,
    "export": _export,
    "predict": _predict,
    "train": _train,
}
