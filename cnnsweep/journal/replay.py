"""Bringing an oracle and a ledger to where a journal ends, without training anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnsweep.errors import UserError
from cnnsweep.journal.journal import damaged
from cnnsweep.journal.state import SweepState
from cnnsweep.search.search import Search


@dataclass
class Replayed:
    """What a journal leaves to go on with."""

    ledger: SweepState
    pending: dict[int, bool] = field(default_factory=dict)
    """Trials that were running or interrupted; whether the search wanted to see more of each."""


def replay(search: Search, ledger: SweepState, events: Sequence[Mapping[str, Any]], path: Path) -> Replayed:
    """Tell a new search and a new ledger what happened, in order. Raises UserError, naming the journal's line."""
    state = Replayed(ledger)
    known: set[str] = set()
    for line, event in enumerate(events, start=1):
        try:
            _step(search, state, event, known)
            ledger.apply(event)
        except UserError as error:
            raise UserError(f"{path}, line {line}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise damaged(path, line, f"its event does not fit those before it ({error!r})") from error
    return state


def _step(search: Search, state: Replayed, event: Mapping[str, Any], known: set[str]) -> None:
    entries, pending = state.ledger.entries, state.pending
    match event["event"]:
        case "trial":
            if event["proposal"] not in known:
                _repeat(search, state.ledger, event)
                known.add(event["proposal"])
                pending[event["trial"]] = True
        case "epoch":
            entry = entries[event["trial"]]
            pending[entry.number] = search.report(entry.proposal, event["epoch"], event["metrics"])
        case "end" if event["status"] != "interrupted":
            entry = entries[event["trial"]]
            del pending[entry.number]
            search.end(entry.proposal, entry.counts(event["status"], state.ledger.objective))
        case "resume":
            search.extend(event["budget"]["trials"])


def _repeat(search: Search, ledger: SweepState, event: Mapping[str, Any]) -> None:
    proposal = search.repeat(event["proposal"], event["values"])
    before = ledger.entries.get(event["trial"])
    if proposal is None or proposal.continues != (before.proposal if before else None):
        raise UserError(
            f"trial {event['trial']} cannot be followed: the search would have gone on otherwise. Was the sweep made "
            "with another version of cnnsweep or of its packages? facts in the journal's first line say which"
        )
