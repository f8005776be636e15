"""The masks that a network predicts, as images of the classes' numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnsweep.config.tasks import Task
from cnnsweep.errors import UserError


def mask_files(folder: Path, inputs: Sequence[str | Path], below: Sequence[str], task: Task) -> dict[str | Path, Path]:
    """Where each input's mask is written. Raises UserError where there are no masks, or two would be one file."""
    if task != "segmentation":
        raise UserError(f"--masks: this network is for task={task}, of which there are no masks")
    images = {os.path.realpath(each) for each in inputs}
    files: dict[str | Path, Path] = {}
    taken: dict[Path, str | Path] = {}
    for each in inputs:
        path = Path(each)
        name = next((path.relative_to(given) for given in below if Path(given) in path.parents), Path(path.name))
        files[each] = file = folder / name.parent / f"{name.stem}.png"
        if Path(taken.setdefault(file, each)) != path:
            both = f"'{taken[file]}' and '{each}' would both be written to '{file}'"
            raise UserError(f"--masks: {both}; call predict for each, with a folder of its own")
        if os.path.realpath(file) in images:
            raise UserError(f"--masks: '{file}' is an image itself; choose another folder")
    return files


def write_masks(files: Sequence[Path], outputs: np.ndarray) -> None:
    """Write the class of each pixel. Raises UserError where a file cannot be written."""
    from PIL import Image

    for path, output in zip(files, outputs, strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(output.argmax(axis=-1).astype(np.uint8)).save(path)
        except OSError as error:
            raise UserError(f"--masks: '{path.parent}' cannot be written ({error.strerror})") from error
