"""Images of more than 8 bits: the range of their values, and what a person should know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsweep.data import image_decoding, video_decoding
from cnnsweep.data.image_decoding import Decoding
from cnnsweep.data.video_decoding import VideoDecoding

if TYPE_CHECKING:
    from cnnsweep.data.decoding import FileDecoding

Depth = tuple[float, float] | str | None
"""Of a file, as `image_decoding.deep_values` says."""
Counts = Mapping[str, Sequence[int]]
"""The files of each split: with grey images of more than 8 bits, with coloured ones, and all."""
NAMES = {"train": "training", "val": "validation", "test": "test"}
DEEP = "images of more than 8 bits"


def decoding_of_images(decoding: FileDecoding) -> Decoding | None:
    """The decoding of images or of frames; None where files are sounds."""
    return (
        decoding.image if isinstance(decoding, VideoDecoding) else decoding if isinstance(decoding, Decoding) else None
    )


def with_values(decoding: FileDecoding, image: Decoding, train: Sequence[Depth]) -> FileDecoding:
    """Add the range of values of the grey training images of more than 8 bits, if there are any."""
    grey = [values for values in train if isinstance(values, tuple)]
    if not grey:
        return decoding
    low, high = min(low for low, _ in grey), max(high for _, high in grey)
    image = replace(image, values=image_decoding.value_range(low, high))
    return replace(decoding, image=image) if isinstance(decoding, VideoDecoding) else image


def depth_of(path: Path, most: float) -> Depth:
    """The depth of an image file, or of a video's folder of frames, of at most so many megapixels each."""
    files = video_decoding.frame_files(path) if path.is_dir() else [path]
    found = [_depth_of_file(file, most) for file in files]
    if grey := [values for values in found if isinstance(values, tuple)]:
        return min(low for low, _ in grey), max(high for _, high in grey)
    return next((coloured for coloured in found if coloured), None)


def _depth_of_file(path: Path, most: float) -> Depth:
    try:
        with path.open("rb") as opened:
            start = opened.read(image_decoding.START)
            if not image_decoding.may_be_deep(start):
                return None
            return image_decoding.deep_values(start + opened.read(), most)
    except OSError:
        return None


def count(found: Sequence[Depth]) -> list[int]:
    """`Counts` of one split."""
    grey, coloured = (sum(isinstance(depth, kind) for depth in found) for kind in (tuple, str))
    return [grey, coloured, len(found)]


def depth_notes(decoding: FileDecoding, counts: Counts) -> list[str]:
    """What a person should know of images of more than 8 bits."""
    image, notes = decoding_of_images(decoding), []
    deep = {split: (grey, of) for split, (grey, _, of) in counts.items()}
    shares = ", ".join(f"{grey:,} of {of:,} {NAMES[split]} files" for split, (grey, of) in deep.items())
    if image and image.values:
        low, high = image.values
        some = any(grey < of for grey, of in deep.values())
        others = f"; those of 8 bits are not scaled (more than 8 bits: {shares})" if some else ""
        notes.append(f"grey {DEEP}: values from {low:,g} to {high:,g} become 0 to 255{others}")
    elif any(grey for grey, _ in deep.values()):
        notes.append(f"grey {DEEP} ({shares}): each is scaled by its own depth, as the training images have none")
    if coloured := sum(found for _, found, _ in counts.values()):
        notes.append(f"{DEEP} a colour: {coloured:,}, of which only the upper 8 bits are read")
    return notes
