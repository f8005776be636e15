"""A real PostgreSQL from the system's packages, in a folder and on a port of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import real_sweeps as real

PASSWORD = "s3/cr3tpg"


def programs() -> Path | None:
    """The folder of the newest server's programs, which Debian does not put on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    elsewhere = shutil.which("initdb")
    return found[-1].parent if found else Path(elsewhere).parent if elsewhere else None


class Postgres:
    """An empty database cluster on loopback, reached with a password; to be killed and started again."""

    def __init__(self, programs: Path) -> None:
        self.programs, self.port = programs, real.free_port()
        self.uri = f"postgresql+psycopg2://mlflow:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        # Short, because a socket's path must be, and not below pytest's folder, which is its owner's alone.
        self.folder = Path(tempfile.mkdtemp(prefix="cnnsweep-postgres-"))
        users = {user.pw_name: user for user in pwd.getpwall()}
        self._user = None if os.geteuid() else users.get("postgres") or users["nobody"]  # it refuses to run as root
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        if self._user:
            for path in (self.folder, secret):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        options = ("--username=mlflow", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C")
        self._call("initdb", *options, f"--pwfile={secret}", f"--pgdata={self.folder}/data")

    def start(self) -> None:
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        options = f"--options={settings} -c fsync=off -c shared_buffers=32MB"
        self._call("pg_ctl", "start", "--wait", f"--pgdata={self.folder}/data", f"--log={self.folder}/log", options)

    def stop(self) -> None:
        """As a crash: connections are cut, and the next start recovers from the log."""
        self._call("pg_ctl", "stop", "--mode=immediate", f"--pgdata={self.folder}/data")

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    def _call(self, program: str, *arguments: str) -> None:
        user = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}
        output_file = self.folder / "output"
        with output_file.open("wb") as output:  # no pipe: the server that pg_ctl leaves behind would hold it open
            done = subprocess.run(
                [self.programs / program, *arguments],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                timeout=real.PATIENCE,
                check=False,
                **user,  # type: ignore[call-overload]
            )
        assert done.returncode == 0, output_file.read_text()
