"""A folder of images with a mask beside each: the class of every pixel."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cnnsweep.config.components import configured_by
from cnnsweep.data.arrays import Array, Arrays, refuse
from cnnsweep.data.folder_tree import IMAGES as IMAGE_FILES
from cnnsweep.data.folder_tree import Folder, composed, read_folder, show
from cnnsweep.data.groups import find_groups
from cnnsweep.data.image_cache import Decoded, ImageFile, ImageFiles, open_decoded
from cnnsweep.data.image_decoding import any_size
from cnnsweep.data.image_depth import depth_notes
from cnnsweep.data.image_files import ImageFilesConfig, skipped
from cnnsweep.data.image_layout import data_dir, split_of
from cnnsweep.data.storage import open_map
from cnnsweep.errors import UserError

IMAGES = ("images", "image", "imgs", "img", "x")
MASKS = ("masks", "mask", "labels", "annotations", "segmentation", "groundtruth", "gt", "y")
"""Names of the two folders, in any case."""
ENDINGS = ("_mask", "_label", "_labels", "_seg", "_gt", "-mask", "-seg")
"""What the name of a mask may have after that of its image."""
MARGIN = "the margin of data.resize=pad is 0: name it as a class, or choose data.resize=crop or stretch"
ONE_PALETTE = "one value has to be one class in all masks: give them one palette, or save them as grey"
EXPECTED = "a folder with images/ and masks/, files of the same names"


class MaskFolderConfig(ImageFilesConfig):
    """A folder of images and masks."""

    classes: list[str] | dict[str, int] | None


@configured_by(MaskFolderConfig)
def load(config: MaskFolderConfig) -> Arrays:
    """Decode the images and masks of `data.dir`, or map those decoded before.

    Raises one UserError that lists every image without a mask, every mask of another size than its image, and every
    mask with a value that is no class; `data.skip_bad` skips images without a mask and unreadable ones.
    """
    root = data_dir(config.dir, EXPECTED)
    _check_values(config.classes)
    splits = _find_splits(read_folder(root))
    pairs, faults = _find_pairs(splits)
    if faults and not config.skip_bad:
        refuse(faults, "data.skip_bad=true skips all of these")
    if not pairs.get("train"):
        refuse([f"'{show(root)}': no image with a mask for training, expected {EXPECTED}"])
    files = {split: [ImageFile(image, 0) for image, _ in found] for split, found in pairs.items()}
    images = ImageFiles(root, (), files, {s: folders[0].path for s, folders in splits.items()}, tuple(faults), ())
    images = _leave_out(images, {split: len(found) for split, found in pairs.items()}, config.skip_bad)
    decoded = open_decoded(Path(config.cache), images, config.decoding)
    if decoded.skipped and not config.skip_bad:
        refuse([f"{show(root)}/{fault}" for fault in decoded.skipped], "data.skip_bad=true skips all of these")
    kept = {split: len(decoded.array(split, "kept")) for split in images.splits}
    if (left := _leave_out(images, kept, config.skip_bad)) is not images:
        images, decoded = left, open_decoded(Path(config.cache), left, config.decoding)
    return _arrays(config, images, decoded, {split: pairs[split] for split in images.splits})


def _find_splits(tree: Folder) -> dict[str, tuple[Folder, Folder]]:
    """The folders of images and of masks of each split."""
    if both := _both(tree):
        return {"train": both}
    found = {split: both for f in tree.folders if (split := split_of(f.name)) and (both := _both(f))}
    if "train" not in found:
        names = ", ".join(f"{show(folder.name)}/" for folder in tree.folders[:5]) or "no folder"
        raise UserError(f"data.dir '{show(tree.path)}': has {names}, expected {EXPECTED}, or train/images/ and so on")
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _both(folder: Folder) -> tuple[Folder, Folder] | None:
    by_name = {each.name.lower(): each for each in folder.folders}
    images, masks = ([by_name[name] for name in names if name in by_name] for names in (IMAGES, MASKS))
    return (images[0], masks[0]) if images and masks else None


def _find_pairs(splits: dict[str, tuple[Folder, Folder]]) -> tuple[dict[str, list[tuple[Path, Path]]], list[str]]:
    """Each image with its mask, in the order of their names, and the faults."""
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    faults: list[str] = []
    for split, (images, masks) in splits.items():
        by_name = _by_name(masks)
        names = {path: _name(path, images.path) for path in images.walk()}
        found = [(path, by_name.get(name, [])) for path, name in names.items()]
        for path, several in [(path, of_it) for path, of_it in found if len(of_it) != 1]:
            none = f"no mask of this name in {show(masks.path)}"
            listed = f"{len(several)} masks of this name ({', '.join(show(mask.name) for mask in several)})"
            faults.append(f"{show(path)}: {listed if several else none}")
        pairs[split] = sorted((path, of_it[0]) for path, of_it in found if len(of_it) == 1)
    return pairs, faults


def _by_name(masks: Folder) -> dict[str, list[Path]]:
    """The masks by the names of their images; a file with another suffix counts where there is no image."""
    found: dict[str, list[Path]] = {}
    for path in sorted(masks.walk(), key=lambda path: not IMAGE_FILES.fits(path)):
        if IMAGE_FILES.fits(path) or _key(path, masks.path) not in found:
            found.setdefault(_key(path, masks.path), []).append(path)
    return found


def _name(path: Path, root: Path) -> str:
    """The name of a file below a folder, without its suffix."""
    return composed(path.relative_to(root).with_suffix("").as_posix())


def _leave_out(images: ImageFiles, counts: Mapping[str, int], skip_bad: bool) -> ImageFiles:
    """Leave out splits with no image. Raises `UserError` for them unless bad ones are skipped, and for training."""
    lost = [split for split in images.splits if not counts[split]]
    reasons = [f"{show(images.folders[split])}: no image with a mask can be used" for split in lost]
    if "train" in lost or (lost and not skip_bad):
        refuse(reasons, "" if "train" in lost else "data.skip_bad=true leaves such a split out")
    kept = {split: files for split, files in images.splits.items() if split not in lost}
    notes = (*images.notes, *(f"skipped: {reason}" for reason in reasons))
    return replace(images, splits=kept, notes=notes) if lost else images


def _key(mask: Path, root: Path) -> str:
    """The name that a mask's image has."""
    name = _name(mask, root)
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def _arrays(
    config: MaskFolderConfig, images: ImageFiles, decoded: Decoded, pairs: dict[str, list[tuple[Path, Path]]]
) -> Arrays:
    kept = {split: [found[i] for i in decoded.array(split, "kept")] for split, found in pairs.items()}
    read = {split: _read_masks(decoded, split, found, config) for split, found in kept.items()}
    _, faults = _joined([colours for _, colours in read.values()], [show(images.folders[split]) for split in read])
    if faults:
        refuse(faults, ONE_PALETTE)
    raw = {split: masks for split, (masks, _) in read.items()}
    names, values = _classes(config.classes, raw["train"])
    advice = MARGIN if config.resize == "pad" else ""
    y = {split: _numbered(masks, values, names, kept[split], advice) for split, masks in raw.items()}
    content = hashlib.sha256(decoded.folder.name.encode() + repr(names).encode())
    for masks in y.values():
        content.update(masks.data)
    file_names = images.kept(decoded)
    return Arrays.of_splits(
        {split: decoded.array(split) for split in y},
        y,
        class_names=names,
        source=f"{show(images.root)}{skipped(images, decoded)}",
        scale=1 / 255,
        name=show(images.root.resolve().name),
        files={f"{a}_{split}": show(images.folders[split]) for split in y for a in "xy"},
        digest=content.hexdigest()[:16],
        decoding=decoded.decoding,
        notes=(*images.notes, *depth_notes(decoded.decoding, decoded.deep)),
        names=file_names,
        prints={split: decoded.array(split, "prints") for split in y},
        groups=find_groups(config.group, file_names),
    )


def _read_masks(
    decoded: Decoded, split: str, pairs: Sequence[tuple[Path, Path]], config: MaskFolderConfig
) -> tuple[Array, Array]:
    """The values of the masks, uint8 (images, height, width), and their colours: decoded, or as decoded before."""
    contents = [mask.read_bytes() for _, mask in pairs]
    key = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()[:16]
    path, palette = (decoded.folder / f"{split}-upright-{name}-{key}.npy" for name in ("masks", "colours"))
    if not path.exists():
        with any_size():
            found = [_read_mask(image, mask, config) for image, mask in pairs]
        if faults := [fault for fault in found if isinstance(fault, str)]:
            refuse(faults)
        read = [each for each in found if not isinstance(each, str)]
        colours, faults = _joined([of_mask for _, of_mask in read], [show(mask) for _, mask in pairs])
        if faults:
            refuse(faults, ONE_PALETTE)
        for array, place in ((colours, palette), (np.stack([values for values, _ in read]), path)):
            partial = place.with_suffix(f".{os.getpid()}.npy")
            np.save(partial, array)
            os.replace(partial, place)
    return open_map(path), open_map(palette)


def _read_mask(image: Path, mask: Path, config: MaskFolderConfig) -> tuple[Array, Array] | str:
    """The values of a mask at the size of the images that networks get, and their colours, or why it cannot be used."""
    try:
        with Image.open(image) as opened, Image.open(mask) as found:
            size = ImageOps.exif_transpose(opened).size if opened.getexif() else opened.size
            turned = ImageOps.exif_transpose(found) if found.getexif() else found
            if turned.size != size:
                sizes = (f"{width}×{height}" for width, height in (turned.size, size))
                return f"{show(mask)}: {' pixels, its image has '.join(sizes)}"
            if found.format == "JPEG":
                return f"{show(mask)}: is a JPEG, whose compression changes values: save masks as PNG"
            if turned.mode not in ("1", "L", "P"):
                return f"{show(mask)}: mode {turned.mode}, expected one number a pixel (grey or palette)"
            grey, colours = Image.fromarray(np.asarray(turned).astype(np.uint8)), _colours(turned)
    except Exception as error:  # decoders of broken files raise errors of many types
        return f"{show(mask)}: cannot be decoded ({error})"
    wanted, method = (config.size[1], config.size[0]), Image.Resampling.NEAREST
    if config.resize == "stretch":
        return np.asarray(grey.resize(wanted, method)), colours
    fit = ImageOps.fit if config.resize == "crop" else ImageOps.pad
    return np.asarray(fit(grey, wanted, method)), colours


def _colours(mask: Image.Image) -> Array:
    """The colour of each value of a palette mask, int32 (256,), as 0xRRGGBB; -1: it has no such value."""
    colours = np.full(256, -1, np.int32)
    if mask.mode == "P":
        palette = np.zeros((256, 3), np.int32)
        given = np.reshape(mask.getpalette("RGB") or [], (-1, 3))
        palette[: len(given)] = given
        used = np.unique(np.asarray(mask))
        colours[used] = palette[used] @ (1 << 16, 1 << 8, 1)
    return colours


def _joined(several: Sequence[Array], places: Sequence[str]) -> tuple[Array, list[str]]:
    """The colours of all these masks, and a fault for each that gives a value another colour."""
    joined, faults = np.full(256, -1, np.int32), []
    for colours, place in zip(several, places, strict=True):
        if (other := np.flatnonzero((joined >= 0) & (colours >= 0) & (colours != joined))).size:
            first = other[0]
            faults.append(f"{place}: value {first} is #{colours[first]:06x}, #{joined[first]:06x} in masks before it")
        joined = np.where(joined < 0, colours, joined)
    return joined, faults


def _classes(setting: list[str] | dict[str, int] | None, masks: Array) -> tuple[tuple[str, ...], list[int]]:
    """The classes' names and their values in the masks: those given, or all values of the training masks."""
    if isinstance(setting, dict):
        return (*setting,), [*setting.values()]
    found = np.unique(masks).tolist()
    if setting is None:
        if found == [0, 1, 255] and not ((masks == 1).any(axis=(1, 2)) & (masks == 255).any(axis=(1, 2))).any():
            raise UserError(
                "data.classes: some training masks have the values 0 and 1, others 0 and 255: save all of them alike, "
                "or say that these are three classes: data.classes={NAME: 0, NAME: 1, NAME: 255}"
            )
        return tuple(map(str, found)), found
    consecutive = max(found) < len(setting)
    if not consecutive and len(found) != len(setting):
        raise UserError(
            f"data.classes: {len(setting)} names for the values {', '.join(map(str, found[:9]))} of the training "
            "masks; say which is which: data.classes={NAME: VALUE}"
        )
    return (*setting,), [*range(len(setting))] if consecutive else found


def _check_values(classes: list[str] | dict[str, int] | None) -> None:
    """Raise `UserError` for values that masks cannot have, or that two classes have."""
    seen: dict[int, str] = {}
    for name, value in classes.items() if isinstance(classes, dict) else ():
        if not 0 <= value <= 255:
            raise UserError(f"data.classes: {name} is {value}; the values of masks are 0 to 255")
        if (other := seen.setdefault(value, name)) != name:
            raise UserError(f"data.classes: {other} and {name} are both {value}")


def _numbered(
    masks: Array, values: list[int], names: tuple[str, ...], pairs: Sequence[tuple[Path, Path]], advice: str
) -> Array:
    """Masks with the classes' numbers in place of their values. Raises `UserError` for values that are no class."""
    table = np.full(256, 255, np.uint8)
    table[values] = range(len(values))
    known = np.isin(np.arange(256), values)
    faults = []
    for mask, (_, path) in zip(masks, pairs, strict=True):
        if (strange := np.flatnonzero(np.bincount(mask.reshape(-1), minlength=256) * ~known)).size:
            listed = ", ".join(f"{value} {name}" for name, value in zip(names, values, strict=True))
            faults.append(f"{show(path)}: value {strange[0]} is no class ({listed})")
    if faults:
        refuse(faults, "" if known[0] else advice)
    return table[masks]
