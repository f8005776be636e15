"""MLflow's UI, opened on a sweep's trials, best first."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Tracking
from cnnsweep.errors import UserError, unknown
from cnnsweep.journal.events import Plain, SweepStarted, from_json
from cnnsweep.tracking.credentials import DATABASES, redact, shown
from cnnsweep.tracking.locations import FOLDER, database_file
from cnnsweep.tracking.reader import find_sweep, open_reader, read_yaml
from cnnsweep.tracking.store import ENVIRONMENT, connect, find_experiment, find_store
from cnnsweep.ui import hosts, view

PORT = 5000
START_SECONDS = 90
ANOTHER_SERVER = tuple(
    f"MLFLOW_{name}"
    for name in ("STATIC_PREFIX", "ARTIFACTS_ONLY", "REGISTRY_STORE_URI", "READ_REPLICA_BACKEND_STORE_URI")
)
"""Variables that may be set for a server that runs beside the UI, with other stores under another address."""


@dataclass(frozen=True)
class Target:
    """The sweep that the UI opens on, and its store."""

    uri: str
    experiment: str
    sweep: str | None
    """All sweeps where None."""
    objective: Objective
    view: str | None = None
    """The key of the sweep's saved view, where it has one."""

    def address(self, base: str) -> str:
        """The address of the trials on an MLflow server.

        The workflow type is given because the experiment alone would open in its GenAI view, with the trials folded
        away. The saved view is given alone: MLflow ignores it beside a filter.
        """
        if self.view:
            query = {"viewStateShareKey": self.view}
        else:
            query = {
                "searchFilter": view.filter_of(self.sweep),
                "orderByKey": f"metrics.`best_{self.objective.metric}`",
                "orderByAsc": str(self.objective.direction == "min").lower(),
            }
        query |= {"workflowType": "machine_learning", "compareRunsMode": "CHART"}
        encoded = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        return f"{base.rstrip('/')}/#/experiments/{self.experiment}/runs?{encoded}"


def find(tracking: Tracking, name: str | None) -> Target:
    """Find a sweep by its id or its name, the latest where None, and save its view; "all" stands for all sweeps.

    Where no store is named, the sweeps are those that have a journal in `tracking.dir`, and the store is the one that
    the journal names. Raises UserError.
    """
    if tracking.uri is None:
        sweep, config = _find_here(Path(tracking.dir), name)
        uri = find_store(tracking.replace(uri=config["tracking"]["uri"]))
        experiment = find_experiment(connect(uri), config["tracking"]["experiment"])
    else:
        uri = find_store(tracking)
        sweep, config, experiment = _find_in_store(tracking, uri, name)
    saved = view.save(connect(uri), experiment, sweep, config) if sweep else None
    return Target(uri, experiment, sweep, Objective.of(config["objective"]), saved)


def serve(
    uri: str,
    page: Callable[[str], str] = str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
) -> None:
    """Run the UI until Ctrl-C, or where `uri` is a server only open it; `page` makes the address from a base.

    Listens on this machine only unless `host` says otherwise; MLFLOW_SERVER_ALLOWED_HOSTS adds names by which others
    call it. Raises UserError where the port is taken or the UI does not start.
    """
    if uri.startswith(("http://", "https://")):
        _show(page(uri), open_browser).join()
        return
    # These end it like Ctrl-C: otherwise the server, in a session of its own, would outlive this process.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), server(uri, host=host, port=port) as base:
        _show(page(base), open_browser)
        if not hosts.is_local(host):
            print("whoever can reach this address may read, change and delete all runs")
        print("Ctrl-C stops it", flush=True)
        while True:
            time.sleep(3600)


@contextlib.contextmanager
def server(uri: str, *, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Start the UI on a database, yield its base address once it answers, stop it at the end."""
    if urlsplit(uri).scheme.split("+")[0] not in DATABASES:
        raise UserError(f"'{shown(uri)}' is no database that the UI could show")
    port = _choose_port(host, port)
    options = ["--host", host, "--port", str(port), "--workers", "1"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            env=_environment(uri, host, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(hosts.health_address(host, port), process, log)
            yield hosts.base_address(host, port)
        finally:
            _stop(process)


def _show(address: str, open_browser: bool) -> threading.Thread:
    """Print the address; the thread opens it, until its end where the browser stays in the foreground."""
    print(f"MLflow UI: {address}", flush=True)
    opening = threading.Thread(target=webbrowser.open if open_browser else str, args=(address,), daemon=True)
    opening.start()
    return opening


def _environment(uri: str, host: str, port: int) -> dict[str, str]:
    """The store goes by the environment: every user could read a command line, with a password in it."""
    store = {**ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_TRACKING_URI": uri}
    store["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight more processes, for evaluations by language models
    if file := database_file(uri):  # else an experiment made in the UI puts its files into the working directory
        store["MLFLOW_ARTIFACTS_DESTINATION"] = str(file.absolute().parent / FOLDER)
    given = {name: value for name, value in os.environ.items() if name not in ANOTHER_SERVER}
    return {**given, **store, **hosts.variables(host, port, os.environ)}


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
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # http_proxy is for other machines
    while process.poll() is None and time.monotonic() < deadline:
        try:
            direct.open(f"{base}/health", timeout=2).close()
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


def _find_in_store(tracking: Tracking, uri: str, name: str | None) -> tuple[str | None, Plain, str]:
    """The id, the config and the experiment of a sweep in a store that is named."""
    sweep = find_sweep(open_reader(tracking), None if name == "all" else name)
    run = connect(uri).get_run(sweep.run)
    config = {"objective": run.data.params["objective"], **read_yaml(uri, run.info.artifact_uri)}
    return (None if name == "all" else sweep.id), config, sweep.experiment


def _find_here(root: Path, name: str | None) -> tuple[str | None, Plain]:
    """The id and the config of a sweep among those that were started on this machine."""
    journals = {path.parent.name: path for path in (root / "sweeps").glob("*/journal.jsonl")}
    latest = sorted(journals, key=lambda sweep: journals[sweep].stat().st_mtime, reverse=True)
    first = {sweep: event for sweep in latest if (event := _first_event(journals[sweep]))}
    if not first:
        raise UserError(f"there is no sweep in {root / 'sweeps'} yet")
    if name in (None, "all"):
        sweep = next(iter(first))
        return (sweep if name is None else None), first[sweep].config
    found = [sweep for sweep in first if sweep == name] or [s for s, event in first.items() if event.sweep == name]
    if not found:
        raise unknown("sweep", str(name), {*first, *(event.sweep for event in first.values())})
    return found[0], first[found[0]].config


def _first_event(journal: Path) -> SweepStarted | None:
    """The event that started a sweep; None where the journal is damaged."""
    try:
        with journal.open("rb") as file:
            event = from_json(json.loads(file.readline()))
    except (OSError, ValueError, TypeError, AttributeError):  # unreadable, or not an event at all
        return None
    return event if isinstance(event, SweepStarted) else None
