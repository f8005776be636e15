"""The decodings of each kind of input: how a file or a text becomes numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cnnsweep.config.components import locate

if TYPE_CHECKING:
    from cnnsweep.data.audio_decoding import AudioDecoding
    from cnnsweep.data.image_decoding import Decoding
    from cnnsweep.data.text_decoding import TextDecoding
    from cnnsweep.data.video_decoding import VideoDecoding

    FileDecoding = AudioDecoding | Decoding | VideoDecoding
    AnyDecoding = FileDecoding | TextDecoding

DECODINGS = {
    "image": "cnnsweep.data.image_decoding.Decoding",
    "signal": "cnnsweep.data.audio_decoding.AudioDecoding",
    "text": "cnnsweep.data.text_decoding.TextDecoding",
    "video": "cnnsweep.data.video_decoding.VideoDecoding",
}


def decoding_of(kind: str, stored: Mapping[str, Any]) -> AnyDecoding:
    """The decoding that is stored as plain values. Raises KeyError, TypeError or ValueError for others."""
    return cast("AnyDecoding", locate("data", DECODINGS[kind]).of(stored))


def copy_modules(modules: Iterable[Path], folder: Path) -> None:
    """Copy modules so that they import each other from beside them, not from the package."""
    folder.mkdir(parents=True, exist_ok=True)
    for module in modules:
        text = module.read_text(encoding="utf-8").replace("from cnnsweep.data.", "from ")
        (folder / module.name).write_text(text, encoding="utf-8")
