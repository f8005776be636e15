"""The sweep's own record: one JSON line an event, appended before anything else learns of it.

Whatever process dies, the journal says what was proposed, reported and finished; the oracle is rebuilt from it, and
MLflow is a follower that is brought up to date from it. The events, in the order in which they can come:

    sweep   id, name, format, config, command, facts (git, versions, machine, data)
    trial   trial, name, values, seed, epochs (the target), proposal (the oracle's own id), config
    epoch   trial, epoch, metrics
    end     trial, status, reason, epochs, summary     (a promoted trial starts again with `trial` and ends again)
    final   trial, metrics (of the test set), folder (of the model)
    stop    status (completed, interrupted, failed), reason, summary
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1


class Journal:
    """An append-only file of events; `append` returns once the event is on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._file.truncate(_whole(path.read_bytes()))

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Write one event and return it as it will be read back, with the time added (seconds since 1970)."""
        record = {"event": event, "time": round(time.time(), 3), **fields}
        line = json.dumps(record, separators=(",", ":"), allow_nan=True)
        self._file.write(line.encode() + b"\n")
        os.fsync(self._file.fileno())
        return json.loads(line)

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[Mapping[str, Any]]:
    """Return the events of a journal, oldest first; a last one that a crash cut off does not count."""
    content = path.read_bytes()
    return [json.loads(line) for line in content[: _whole(content)].splitlines()]


def _whole(content: bytes) -> int:
    return content.rfind(b"\n") + 1
