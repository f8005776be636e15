"""A folder of images, sounds or videos, one sub-folder a class: decoded once, in parallel, and kept on disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.inputs import NOUNS, Kind
from cnnsweep.data.arrays import Arrays, refuse
from cnnsweep.data.folder_tree import IMAGES, show
from cnnsweep.data.groups import find_groups
from cnnsweep.data.image_cache import Decoded, ImageFiles, open_decoded
from cnnsweep.data.image_decoding import is_image
from cnnsweep.data.image_depth import depth_notes
from cnnsweep.data.image_files import ClassFolderConfig, ImageFolderConfig, skipped
from cnnsweep.data.image_layout import find_images
from cnnsweep.data.storage import open_map

if TYPE_CHECKING:
    from cnnsweep.data.decoding import FileDecoding


@configured_by(ImageFolderConfig)
def load(config: ImageFolderConfig) -> Arrays:
    """Decode the images of `data.dir`, or map those decoded before; raises what `folder_arrays` does."""
    files = find_images(config.dir, config.class_depth)
    return folder_arrays(files, config.decoding, config, "image", 1 / 255)


def folder_arrays(
    files: ImageFiles, decoding: FileDecoding, config: ClassFolderConfig, kind: Kind, scale: float
) -> Arrays:
    """Decode the files, or map those decoded before.

    Raises one UserError that lists every empty class, every class that only val/ or test/ has, every val/ or test/
    with less than two classes, every unreadable file and every file that cannot be used; `data.skip_bad` skips these,
    and counts them in `source`.
    """
    _refuse_one_class(files)
    if kind == "image" and not config.skip_bad:
        _refuse_others(files)
    decoded = open_decoded(Path(config.cache), files, decoding)
    while config.skip_bad and (without := _leave_out(files, decoded, NOUNS[kind])) is not files:
        files = without
        _refuse_one_class(files)
        decoded = open_decoded(Path(config.cache), files, decoding)
    faults = [*files.faults, *(f"{show(files.root)}/{fault}" for fault in decoded.skipped)]
    if faults and not config.skip_bad:
        refuse(faults, "data.skip_bad=true skips all of these")
    return _arrays(files, decoded, config, kind, scale)


def _refuse_one_class(images: ImageFiles) -> None:
    if len(images.classes) < 2:
        found = f"{len(images.classes)} class{''.join(f' ({name})' for name in images.classes) or 'es'}"
        refuse([*images.faults, f"{show(images.folders['train'])}: {found}, at least 2 are needed"])


def _refuse_others(images: ImageFiles) -> None:
    """Refuse a folder most of whose files are no images, such as a home folder, before all are read."""
    paths = [file.path for found in images.splits.values() for file in found]
    fitting = [path for path in paths if IMAGES.fits(path)]
    if 2 * len(fitting) >= len(paths):
        return
    others = [path for path in paths if not IMAGES.fits(path) and not is_image(path)]
    if 2 * len(others) <= len(paths):
        return
    places = Counter(path.parent.parent for path in fitting)
    likely = next((place for place, _ in places.most_common(1) if place not in images.folders.values()), None)
    hint = "" if likely is None else f"; the classes look to be in '{show(likely)}'"
    expected = f"expected train/CLASS/{IMAGES.example} or CLASS/{IMAGES.example}{hint}"
    count = f"{len(others):,} of {len(paths):,} files are no images ({show(images.relative(others[0]))} …)"
    refuse([f"{show(images.root)}: {count}, {expected}"], "data.skip_bad=true skips those that are no images")


def _leave_out(images: ImageFiles, decoded: Decoded, nouns: str) -> ImageFiles:
    """Leave out classes of which no training file can be decoded, and splits with fewer than 2 classes."""
    counts = {
        split: np.bincount(open_map(decoded.folder / f"{split}-labels.npy"), minlength=len(images.classes))
        for split in images.splits
    }
    kept = counts["train"] > 0
    lost = [name for name, is_kept in zip(images.classes, kept, strict=True) if not is_kept]
    few = [split for split, count in counts.items() if split != "train" and np.count_nonzero(count[kept]) < 2]
    reasons = [f"{show(images.folders[split])}: {nouns} of fewer than 2 classes can be decoded" for split in few]
    for split in [split for split in counts if split not in few]:
        text = "no file in it can be decoded" if split == "train" else f"{nouns} of a class that train/ does not have"
        with_it = {images.classes[file.label] for file in images.splits[split]}
        reasons += [f"{show(images.folders[split] / name)}: {text}" for name in lost if name in with_it]
    return images.without(lost, few, reasons) if reasons else images


def _arrays(images: ImageFiles, decoded: Decoded, config: ClassFolderConfig, kind: Kind, scale: float) -> Arrays:
    x = {split: open_map(decoded.folder / f"{split}.npy") for split in images.splits}
    y = {split: open_map(decoded.folder / f"{split}-labels.npy") for split in images.splits}
    return Arrays.of_splits(
        x,
        y,
        class_names=images.classes,
        source=f"{show(images.root)}{skipped(images, decoded)}",
        scale=scale,
        name=show(images.root.resolve().name),
        files={f"{a}_{split}": show(images.folders[split]) for split in images.splits for a in "xy"},
        digest=decoded.folder.name,
        names=(names := images.kept(decoded)),
        prints={split: decoded.array(split, "prints") for split in images.splits},
        groups=find_groups(config.group, names),
        decoding=decoded.decoding,
        kind=kind,
        notes=(
            *images.notes,
            *(f"skipped: {fault}" for fault in images.faults),
            *depth_notes(decoded.decoding, decoded.deep),
        ),
    )
