"""Kinds of input: images, signals, texts and videos."""

from __future__ import annotations

from typing import Literal

from cnnsweep.errors import UserError

Kind = Literal["image", "signal", "text", "video"]
NOUNS = {"image": "images", "signal": "signals", "text": "texts", "video": "videos"}
TAKEN_BY = {
    "image": "cnn or transfer",
    "signal": "cnn1d or cnn_rnn",
    "text": "text_cnn, cnn1d or cnn_rnn",
    "video": "cnn3d, cnn_rnn or transfer_rnn",
}
"""The model families for each kind of input."""


def refuse_input(kind: str, takes: tuple[str, ...]) -> None:
    """Raise UserError where a model family does not take inputs of this kind."""
    if kind not in takes:
        nouns = " and ".join(NOUNS[each] for each in takes)
        raise UserError(f"model: takes {nouns}, but the data are {NOUNS[kind]}: choose model={TAKEN_BY[kind]}")
