"""The command line. Exit codes: 0 success, 1 no trial completed, 2 wrong input, 130 interrupted."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnsweep import __version__
from cnnsweep.config.components import program
from cnnsweep.errors import UserError
from cnnsweep.formatting import counted, score
from cnnsweep.terminal.commands import CONFIG_DIR, OVERRIDES, TRUST, WORDS, Commands, examples, message, refuse, split
from cnnsweep.terminal.output import lost, outlive_terminal, protect
from cnnsweep.terminal.own_modules import import_from_working_folder

if TYPE_CHECKING:
    from cnnsweep.config.schema import Config
    from cnnsweep.config.trust import Trusted
    from cnnsweep.sweep.session import Outcome
    from cnnsweep.terminal.screen import Screen


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=examples(
        "                                     handwritten digits, nothing to download, a minute or two",
        "+sweep=fashion                       Fashion-MNIST",
        "space=none model.blocks=3            one configuration, no search",
        "plan +sweep=fashion                  list what that would try, and predict its duration",
        "resume                               continue the last unfinished sweep",
        "report fashion-random fashion-asha   compare two sweeps",
        "COMMAND --help                       the options of a command; the default command is run",
    ),
    options_metavar=None,
    subcommand_metavar="[COMMAND] [OVERRIDE]... [OPTIONS]",
)
@click.version_option(__version__, message="%(version)s")
def commands() -> None:
    """Hyperparameter sweeps for convolutional networks, every trial tracked in MLflow."""
    import_from_working_folder()


@commands.command(
    epilog=examples(
        "+sweep=digits search=grid 'space.model.filters.values=[16,32]'",
        "+sweep=fashion executor=cpu executor.workers=2 seed=1",
        "--cfg +sweep=fashion",
    )
)
@OVERRIDES
@CONFIG_DIR
@click.option("--cfg", is_flag=True, help="Print the composed config and stop.")
@click.pass_obj
def run(typed: Sequence[str], overrides: tuple[str, ...], config_dir: str | None, cfg: bool) -> int:
    """Run a sweep (the default command).

    The config is composed from the shipped configs, your own, and the overrides.
    """
    config = _compose(overrides, config_dir)
    if cfg:
        from omegaconf import OmegaConf

        from cnnsweep.tracking.credentials import redact

        click.echo(OmegaConf.to_yaml(redact(config.plain())), nl=False)
        return 0
    from cnnsweep.sweep import session
    from cnnsweep.terminal.screen import Screen

    outlive_terminal()
    screen = Screen()
    return _conclude(session.start(config, screen, typed), screen)


@commands.command(epilog=examples("plan +sweep=fashion", "plan +sweep=transfer data.dir=PATH --json plan.json"))
@OVERRIDES
@CONFIG_DIR
@click.option("--json", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan as JSON too.")
@click.option("--no-forecast", is_flag=True, help="Measure nothing: no forecast of time and memory.")
def plan(overrides: tuple[str, ...], config_dir: str | None, file: Path | None, no_forecast: bool) -> int:
    """Show what a sweep would try and cost, without training."""
    config = _compose(overrides, config_dir)
    from cnnsweep.plan import plan as planning
    from cnnsweep.plan import view
    from cnnsweep.terminal.screen import Screen

    screen = Screen()
    report = planning.plan(config, screen, not no_forecast)
    view.show(report, screen.console)
    if file:
        planning.write(report, file)
    return 0


@commands.command(epilog=examples("resume", "resume digits budget.trials=40 executor=cpu", "resume digits --failed"))
@WORDS
@CONFIG_DIR
@TRUST
@click.option("--failed", is_flag=True, help="Train the trials that failed again.")
@click.pass_obj
def resume(typed: Sequence[str], words: tuple[str, ...], config_dir: str | None, trust: bool, failed: bool) -> int:
    """Continue an interrupted sweep, or one with a larger budget.

    SWEEP is an id or a name (its last unfinished sweep); by default the last unfinished sweep. It goes on with the
    config that it was started with, except for budget.*, executor.*, tracking.dir and tracking.uri.
    """
    names, overrides = split("resume", words, most=1)
    from cnnsweep.sweep.resume import resume as go_on
    from cnnsweep.terminal.screen import Screen

    outlive_terminal()
    screen = Screen()
    outcome = go_on(names, overrides, screen, typed, config_dir, failed, trust)
    return _conclude(outcome, screen) if outcome else 0


@commands.command("list", epilog=examples("list", "list tracking.dir=DIR"))
@OVERRIDES
@CONFIG_DIR
def list_(overrides: tuple[str, ...], config_dir: str | None) -> int:
    """List the sweeps with their state, trials, best value and age."""
    for override in overrides:
        if not override.startswith("tracking"):
            raise UserError(f"list: cannot use '{override}' (allowed: tracking.dir=DIR, tracking=NAME)")
    from cnnsweep.terminal import sweep_list

    sweep_list.show(Path(_compose(overrides, config_dir).tracking.dir).absolute())
    return 0


@commands.command(epilog=examples("ui", "ui fashion --port 8080", "ui tracking=server tracking.uri=http://host:5000"))
@WORDS
@CONFIG_DIR
@click.option("--port", type=click.IntRange(1, 65535), help="The port to listen on (default: 5000, or any free one).")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def ui(words: tuple[str, ...], config_dir: str | None, port: int | None, host: str, no_browser: bool) -> int:
    """Open the MLflow UI on a sweep's trials, best first.

    SWEEP is an id or a name (its latest sweep), or 'all'; by default the latest sweep. Overrides of tracking say where
    the store is.
    """
    names, overrides = split("ui", words, most=1)
    tracking = _compose(overrides, config_dir).tracking
    from cnnsweep.ui import server

    aim = server.find(tracking, next(iter(names), None))
    server.serve(aim.uri, aim.address, host=host, port=port, open_browser=not no_browser)
    return 0


@commands.command(epilog=examples("report", "report fashion-random fashion-asha --out comparison"))
@click.argument("words", nargs=-1, metavar="[SWEEP]... [OVERRIDE]...")
@CONFIG_DIR
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The folder to write to.")
def report(words: tuple[str, ...], config_dir: str | None, out: Path | None) -> int:
    """Write a sweep's report, or compare several sweeps.

    SWEEP is an id or a name (its latest sweep); by default the latest sweep. Overrides of tracking say where the store
    is. The report is written beside the sweep's journal unless --out names a folder.
    """
    names, overrides = split("report", words)
    tracking = _compose(overrides, config_dir).tracking
    from cnnsweep.report import report as reports

    page, logged = reports.make(tracking, names, out)
    click.echo(f"report: {page}\nalso:   {page.with_name(reports.TABLE)}, {page.with_name(reports.SUMMARY)}")
    if logged:
        click.echo("all are among the artifacts of the sweep's run in MLflow as well")
    return 0


@commands.command(epilog=examples("export fashion", "export fashion --trial 7 --out best export.seeds=5"))
@WORDS
@CONFIG_DIR
@click.option("--trial", type=int, metavar="N", help="The trial's number (default: the best).")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The folder to write to.")
@TRUST
def export(words: tuple[str, ...], config_dir: str | None, trial: int | None, out: Path | None, trust: bool) -> int:
    """Retrain the best network on all training data and register it.

    It is trained with several seeds (export.seeds), tested once, and registered in MLflow under the sweep's name.

    SWEEP is an id or a name (its latest sweep); by default the latest sweep.
    """
    names, overrides = split("export", words, most=1)
    refuse("export", overrides)
    config = _compose(overrides, config_dir)
    from cnnsweep.export import export as exporting

    outlive_terminal()
    trusted = _trusted(trust, config, config_dir)
    made = exporting.export(next(iter(names), None), trial, out, config, overrides, click.echo, trusted)
    click.echo(made.describe())
    if made.argument:
        click.echo(f"try:   {program()} predict {shlex.quote(str(made.folder))} {made.argument}")
    return 0


@commands.command(epilog=examples("predict mlruns/exports/fashion-20260101-120000 image.png"))
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--masks", metavar="FOLDER", type=click.Path(path_type=Path), help="Where masks are written.")
def predict(model: Path, inputs: tuple[str, ...], masks: Path | None) -> int:
    """Apply an exported network to images, texts, sounds or videos.

    MODEL is a folder that `export` wrote, that of a sweep, or a .keras file. An INPUT is of the kind that the network
    was trained on and decoded as the training data were: a JPEG, PNG, TIFF, WebP … of any size; a sentence in quotes,
    or a .txt file; a WAV or FLAC file; an MP4 file or a folder of frames; a .npy file with one signal or video, where
    these were arrays; or a folder of these. Classes come with their probabilities, labels with those above 0.5, targets
    with their values, and masks with the share of each class.
    """
    from cnnsweep.export.predict import inputs_in
    from cnnsweep.export.predict import predict as predicted

    for given, found in predicted(model, inputs_in(model, inputs), masks, inputs):
        click.echo(f"{given}: " + ("  ".join(f"{name} {score(value)}" for name, value in found) or "no label"))
    return 0


@commands.command(epilog=examples("train --from RUN_ID", "train model.blocks=3 training.epochs=20"))
@OVERRIDES
@CONFIG_DIR
@click.option("--from", "run_id", metavar="RUN_ID", help="The MLflow run of a trial to train again with the same seed.")
@TRUST
def train(overrides: tuple[str, ...], config_dir: str | None, run_id: str | None, trust: bool) -> int:
    """Train one configuration as a run of its own.

    The exit code is 1 where it fails.
    """
    refuse("train", overrides)
    config = _compose(overrides if run_id else [*overrides, "space=none"], config_dir)
    from cnnsweep.sweep import single_trial

    outlive_terminal()
    if run_id:
        trained = single_trial.train_again(run_id, config, overrides, click.echo, _trusted(trust, config, config_dir))
    else:
        trained = single_trial.train_once(config, click.echo)
    result = trained.result
    click.echo(
        f"{result.status}{f': {result.reason}' if result.reason else ''} after {counted(result.epochs, 'epoch')}"
    )
    click.echo(f"run {trained.run} in MLflow · files: {trained.folder}")
    return 0 if result.status == "completed" else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; `argv` is without the program's name."""
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    if argv is None:
        protect()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    name = "cnnsweep" if Path(sys.argv[0]).name == "cnnsweep" else "python -m cnnsweep"
    typed = [*name.split(), *(argument for argument in arguments if argument != "--debug")]
    try:
        code = commands.main(arguments, name, standalone_mode=False, obj=typed) or 0
        if reason := not code and lost():
            print(f"cnnsweep: the output cannot be written: {reason}", file=sys.stderr)
        return code or bool(reason)
    except (UserError, click.ClickException) as error:
        if "--debug" in arguments:
            raise
        print(f"cnnsweep: {message(error)}", file=sys.stderr)
        return 2
    except click.Abort:
        print("interrupted", file=sys.stderr)
        return 130


def _compose(overrides: Sequence[str], config_dir: str | None) -> Config:
    from cnnsweep.config.compose import compose  # takes a third of a second

    return compose(overrides, config_dir)


def _trusted(trust: bool, config: Config, config_dir: str | None) -> Trusted:
    from cnnsweep.config.trust import trusted_by

    return None if trust else trusted_by(config, config_dir)


def _conclude(outcome: Outcome, screen: Screen) -> int:
    """Make a sweep's report, print its summary and return the exit code."""
    from cnnsweep.api import make_report
    from cnnsweep.terminal.screen import print_outcome

    try:
        page = make_report(outcome)
    except KeyboardInterrupt:  # the sweep has ended; `report` makes it
        page = None
    print_outcome(outcome, page, screen.console)
    return {"completed": 0, "interrupted": 130}.get(outcome.status, 1)
