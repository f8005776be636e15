"""A folder of images, one sub-folder a class: decoded once, in parallel, and kept on disk ready to be mapped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnsweep.data.arrays import Arrays, refuse
from cnnsweep.data.folder_layout import Layout, read_layout
from cnnsweep.data.image_cache import Decoding, open_decoded
from cnnsweep.data.mapped import open_map
from cnnsweep.errors import UserError


def load(config: Mapping[str, Any]) -> Arrays:
    """Decode the images of `data.dir`, or map what was decoded before.

    Raises one UserError that lists every empty class, every class that is not in all splits, every unreadable file
    and every file that is no image; with `data.skip_bad` they are left out, and counted in `source`.
    """
    layout = read_layout(config["dir"])
    if layout.faults and not config["skip_bad"] and not any(layout.splits.values()):
        refuse(list(layout.faults))
    decoding = Decoding(_size(config["image_size"]), config["color"], config["resize"])
    folder, skipped = open_decoded(Path(config["cache"]), layout, decoding)
    faults = [*layout.faults, *(f"{layout.root / fault}" for fault in skipped)]
    if faults and not config["skip_bad"]:
        refuse(faults, "data.skip_bad=true leaves all of these out")
    return _arrays(folder, layout, len(faults))


def _arrays(folder: Path, layout: Layout, skipped: int) -> Arrays:
    x = {split: open_map(folder / f"{split}.npy") for split in layout.splits}
    y = {split: open_map(folder / f"{split}-labels.npy") for split in layout.splits}
    left_out = f" ({skipped:,} unusable {'entry' if skipped == 1 else 'entries'} skipped)" if skipped else ""
    return Arrays(
        x_train=x["train"],
        y_train=y["train"],
        x_test=x.get("test"),
        y_test=y.get("test"),
        x_val=x.get("val"),
        y_val=y.get("val"),
        class_names=layout.classes,
        source=f"{layout.root}{left_out}",
        scale=1 / 255,
        name=layout.root.resolve().name,
        files={f"{a}_{split}": str(layout.place(split)) for split in layout.splits for a in "xy"},
        digest=folder.name,
    )


def _size(value: Any) -> tuple[int, int]:
    """
    >>> _size(224), _size([96, 128])
    ((224, 224), (96, 128))
    """
    sides = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise UserError(f"data.image_size: '{value}' (a number of pixels, or [height, width])")
    return sides[0], sides[1]
