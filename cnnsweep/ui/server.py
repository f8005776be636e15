"""MLflow's UI on the right store, opened where a sweep's trials are seen at once, best first."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError, unknown
from cnnsweep.tracking.credentials import DATABASES, redact
from cnnsweep.tracking.store import ENVIRONMENT, connect, find_experiment, find_store
from cnnsweep.ui import view

PORT = 5000
START_SECONDS = 90


def address(
    base: str,
    experiment_id: str,
    sweep_id: str | None,
    objective: str,
    maximise: bool = True,
    chart: bool = True,
) -> str:
    """Return the address that shows a sweep's trials (all sweeps' where None), best first.

    `chart` opens the charts, else the table. The experiment alone would open in its GenAI view, with the
    trials folded away.
    """
    query = {"searchFilter": view.filter_of(sweep_id), "orderByKey": f"metrics.`best_{objective}`"}
    query |= {"orderByAsc": str(not maximise).lower(), "workflowType": "machine_learning"}
    if chart:
        query["compareRunsMode"] = "CHART"
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{_encode(query)}"


def view_address(base: str, experiment_id: str, key: str, chart: bool = True) -> str:
    """Return the address of a saved view. It alone: beside a filter in the address MLflow leaves the view out."""
    query = {"viewStateShareKey": key, "workflowType": "machine_learning"}
    if chart:
        query["compareRunsMode"] = "CHART"
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{_encode(query)}"


def compare_address(base: str, experiment_id: str, runs: Iterable[str]) -> str:
    """Return the address of the page that compares runs: parallel coordinates, scatter, box, contour."""
    query = {"runs": json.dumps(list(runs)), "experiments": json.dumps([experiment_id])}
    query["workflowType"] = "machine_learning"
    return f"{base.rstrip('/')}/#/compare-runs?{_encode(query)}"


def serve(
    uri: str,
    page: Callable[[str], str] = str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    out: Callable[[str], None] = print,
) -> None:
    """Run the UI until Ctrl-C, or where `uri` is a server only open it; `page` makes the address from a base.

    Listens on this machine only unless `host` says otherwise. Raises UserError where the port is taken or the
    UI does not start.
    """
    if uri.startswith(("http://", "https://")):
        _show(page(uri), open_browser, out)
        return
    with contextlib.suppress(KeyboardInterrupt), _ended_by_sigterm(), server(uri, host=host, port=port) as base:
        _show(page(base), open_browser, out)
        out("Ctrl-C stops it")
        while True:
            time.sleep(3600)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: else the server, in a session of its own, would outlive this process."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def server(uri: str, *, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Start the UI on a database, yield its base address once it answers, stop it at the end."""
    if urlsplit(uri).scheme.split("+")[0] not in DATABASES:
        raise UserError(f"'{redact(uri)}' is no database that the UI could show")
    port = _choose_port(host, port)
    base = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env=_environment(uri),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(base, process, log)
            yield base
        finally:
            _stop(process)


def _encode(query: dict[str, str]) -> str:
    return "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())


def _show(where: str, open_browser: bool, out: Callable[[str], None]) -> None:
    out(f"MLflow UI: {where}")
    if open_browser:
        webbrowser.open(where)


def _environment(uri: str) -> dict[str, str]:
    """The store goes by the environment: a command line, with a password in it, is for every user to see."""
    store = {**ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_TRACKING_URI": uri}
    if uri.startswith("sqlite:///"):  # else an experiment made in the UI puts its files into the working directory
        store["MLFLOW_ARTIFACTS_DESTINATION"] = str(Path(uri.removeprefix("sqlite:///")).parent / "artifacts")
    return {**os.environ, **store}


def _choose_port(host: str, port: int | None) -> int:
    for candidate in (PORT, 0) if port is None else (port,):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                reason = error
            else:
                return int(probe.getsockname()[1])
    raise UserError(f"the UI cannot listen on {host}:{port} ({reason.strerror}); choose another port")


def _wait(base: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{base}/health", timeout=2).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    log.seek(0)
    lines = redact(log.read().decode(errors="replace")).strip().splitlines() or ["it wrote nothing"]
    raise UserError("the MLflow UI did not start; it wrote last:\n" + "\n".join(lines[-4:]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers; they are a process group of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def command(arguments: Sequence[str]) -> int:
    """Open the UI: `ui [SWEEP] [tracking.dir=DIR | tracking=server tracking.uri=URI] [--port N] [--host H]`.

    SWEEP is a sweep's id or its name (its latest), by default the latest of all; `all` shows all sweeps' trials.
    """
    parser = argparse.ArgumentParser(prog="cnnsweep ui", description="Open MLflow's UI on a sweep's trials.")
    parser.add_argument("sweep", nargs="?", help="id or name; the latest sweep by default; 'all'")
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="where the store is")
    parser.add_argument("--port", type=int, help=f"default: {PORT}, or any free one")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    options = parser.parse_intermixed_args(list(arguments))
    words = [word for word in (options.sweep, *options.overrides) if word]
    overrides = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise UserError(f"ui shows one sweep or all of them, not {', '.join(names)}")
    tracking = compose(overrides)["tracking"]
    aim = find(tracking, names[0] if names else None)
    serve(
        aim.uri,
        aim.address,
        host=options.host,
        port=options.port,
        open_browser=not options.no_browser,
    )
    return 0


@dataclass(frozen=True)
class Aim:
    """What is to be shown, and where it is kept."""

    uri: str
    experiment: str
    sweep: str | None
    """All sweeps where None."""
    objective: Objective
    view: str | None = None
    """The key of the sweep's saved view, where it has one."""

    def address(self, base: str) -> str:
        """Where an MLflow server shows it."""
        if self.view:
            return view_address(base, self.experiment, self.view)
        rising = self.objective.direction == "max"
        return address(base, self.experiment, self.sweep, self.objective.metric, rising)


def find(tracking: Mapping[str, Any], name: str | None) -> Aim:
    """Find a sweep by its id or its name, the latest where None, and save its view; "all" stands for all sweeps.

    Where no store is named, the sweeps are those that have a journal here, and it says which store they went to.
    """
    if tracking["uri"] is None:
        sweep, config = _find_here(Path(tracking["dir"]), name)
        uri = find_store({**tracking, "uri": config["tracking"]["uri"]})
        experiment = find_experiment(connect(uri), config["tracking"]["experiment"])
    else:
        uri = find_store(tracking)
        sweep, config, experiment = _find_there(tracking, uri, name)
    saved = view.save(connect(uri), experiment, sweep, config) if sweep else None
    return Aim(uri, experiment, sweep, Objective.of(config["objective"]), saved)


def _find_there(tracking: Mapping[str, Any], uri: str, name: str | None) -> tuple[str | None, Mapping[str, Any], str]:
    """The id, the config and the experiment of the sweep that is meant, in a store elsewhere."""
    from cnnsweep.tracking.frames import read_yaml
    from cnnsweep.tracking.reader import find_sweep, open_reader

    sweep = find_sweep(open_reader(tracking), None if name == "all" else name)
    run = connect(uri).get_run(sweep.run)
    config = {"objective": run.data.params["objective"], **read_yaml(uri, sweep.run, run.info.artifact_uri)}
    return (None if name == "all" else sweep.id), config, sweep.experiment


def _find_here(root: Path, name: str | None) -> tuple[str | None, Mapping[str, Any]]:
    """The id and the config of the sweep that is meant, among those that were begun on this machine."""
    begun = {path.parent.name: path for path in (root / "sweeps").glob("*/journal.jsonl")}
    latest = sorted(begun, key=lambda sweep: begun[sweep].stat().st_mtime, reverse=True)
    first = {sweep: event for sweep in latest if (event := _first_event(begun[sweep]))}
    if not first:
        raise UserError(f"there is no sweep in {root / 'sweeps'} yet")
    if name in (None, "all"):
        sweep = next(iter(first))
        return (sweep if name is None else None), first[sweep]["config"]
    meant = [sweep for sweep in first if sweep == name] or [s for s, event in first.items() if event["name"] == name]
    if not meant:
        raise unknown("sweep", str(name), {*first, *(event["name"] for event in first.values())})
    return meant[0], first[meant[0]]["config"]


def _first_event(journal: Path) -> dict[str, Any] | None:
    """What the sweep began with; None where the journal is damaged."""
    try:
        with journal.open("rb") as file:
            event = dict(json.loads(file.readline()))
    except (OSError, ValueError, TypeError):
        return None
    return event if {"name", "config"} <= event.keys() else None
