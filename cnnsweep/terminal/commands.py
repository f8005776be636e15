"""The commands' help, and how the command line finds the command."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import click

from cnnsweep.config import GROUPS, shipped
from cnnsweep.errors import UserError, unknown

OVERVIEW = """
Overrides (Hydra's grammar):
  +sweep=fashion                            a preset
  search=hyperband                          another choice of a group
  budget.trials=40 seed=1                   any key of the config
  model.kernel_size=3                       fix a key that the space would vary
  'space.model.filters.values=[32,64]'      restrict the values of a searched key
  'space.model.dilation={values: [1, 2]}'   search a key that was fixed

Groups and their choices:
"""
DEBUG = click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[OVERRIDE]...")
WORDS = click.argument("words", nargs=-1, metavar="[SWEEP] [OVERRIDE]...")
CONFIG_DIR = click.option(
    "--config-dir",
    metavar="DIR",
    help="Your own configs; they win over shipped ones of the same name (default: ./conf, where there is one).",
)
TRUST = click.option(
    "--trust", is_flag=True, help="Run code of others that the stored config names, without a config of your own."
)
OF_A_SEARCH = ("space", "search", "budget")
"""Groups of keys that say what is tried, and for how long."""
LENGTH = ("training.epochs", "training.patience", "training.min_delta", "training.target")
"""Keys that say how long a trial is trained."""


def examples(*lines: str) -> str:
    """The end of a command's help: command lines to copy, which click is not to wrap (`\\b`)."""
    return "\n".join(["\b", "Examples:", *(f"  python -m cnnsweep {line}" for line in lines)])


class Command(click.Command):
    """A command with the options that all commands have."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), DEBUG]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for before, argument in pairwise(["", *args]):
            if not argument.strip() or re.fullmatch(r"--[a-z-]+=\s*", argument):
                after = f" after {before}" if before.startswith("--") else ""
                raise UserError(f"cannot read '{argument}'{after}: it is empty")
        return super().parse_args(ctx, args)


class Commands(click.Group):
    """All commands; where the first argument names none, `run`."""

    command_class = Command

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), DEBUG]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = next((argument for argument in args if argument != "--debug"), "")
        if first not in ("-h", "--help", "--version") and is_override(first):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)  # in the order below, not by name

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(OVERVIEW)
        for line in (line for group in GROUPS for line in _choices(group)):
            formatter.write(textwrap.fill(line, formatter.width, subsequent_indent=26 * " ") + "\n")
        super().format_epilog(ctx, formatter)


def is_override(word: str) -> bool:
    """
    >>> [word for word in ("plan", "seed=1", "~budget", "+sweep=digits", "--cfg", "") if not is_override(word)]
    ['plan']
    """
    return not word or "=" in word or word[0] in "+~-"


def split(command: str, words: Iterable[str], most: int | None = None) -> tuple[list[str], list[str]]:
    """The names of sweeps, and the overrides, among a command's words."""
    names: list[str] = []
    overrides: list[str] = []
    for word in words:
        (overrides if is_override(word) else names).append(word)
    if most is not None and len(names) > most:
        raise UserError(f"{command} takes one sweep, not {', '.join(names)}")
    return list(dict.fromkeys(names)), overrides


def refuse(command: str, overrides: Iterable[str]) -> None:
    """Raise `UserError` for an override that `train`, or `export`, has no use for: neither searches."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] in OF_A_SEARCH and override != "space=none":
            advice = "one configuration is trained; set a key of it, such as model.filters=16"
            raise UserError(f"{command}: cannot use '{override}': nothing is searched, {advice}")
        if command == "export" and key in LENGTH:
            advice = "as many epochs as the trial was best at, without early stopping"
            raise UserError(f"export: cannot use '{override}': it trains for {advice}")


def message(error: UserError | click.ClickException) -> str:
    """The text of an error, with the nearest match for an option."""
    if isinstance(error, click.NoSuchOption) and error.ctx:
        options = [name for option in error.ctx.command.get_params(error.ctx) for name in option.opts if name[0] == "-"]
        return str(unknown("option", error.option_name, options))
    return error.format_message() if isinstance(error, click.ClickException) else str(error)


def _choices(group: str) -> list[str]:
    """One line for each choice of a group: its name, and the first comment of its file."""
    files = sorted((shipped() / group).glob("[!_]*.yaml"))
    plus = "+" if group == "sweep" else ""
    return [f"  {f'{plus}{group}={file.stem}':<23} {_first_comment(file)}" for file in files]


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @"):
            return textwrap.shorten(line[2:], 90, placeholder=" …")
    return ""
