"""Kinds of input: images, signals, texts, videos, and several inputs of any numbers at once."""

from __future__ import annotations

from typing import Literal

from cnnsweep.errors import UserError

Kind = Literal["image", "signal", "text", "video", "multi_input"]
NOUNS = {"image": "images", "signal": "signals", "text": "texts", "video": "videos",
         "multi_input": "examples"}  # fmt: skip
TAKEN_BY = {
    "image": "cnn or transfer",
    "signal": "cnn1d or cnn_rnn",
    "text": "text_cnn, cnn1d or cnn_rnn",
    "video": "cnn3d, cnn_rnn or transfer_rnn",
    "multi_input": "function or keras_tuner",
}
"""The model families for each kind of input."""


def refuse_input(kind: str, takes: tuple[str, ...]) -> None:
    """Raise UserError where a model family does not take inputs of this kind."""
    if kind not in takes:
        nouns = " and ".join(NOUNS[each] for each in takes)
        several = " with several inputs" if kind == "multi_input" else ""
        raise UserError(f"model: takes {nouns}, but the data are {NOUNS[kind]}{several}: choose model={TAKEN_BY[kind]}")
