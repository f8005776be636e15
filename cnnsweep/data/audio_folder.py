"""A folder of audio files, one sub-folder a class: decoded once and kept on disk to be mapped."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.config.validation import Float, Int
from cnnsweep.data.arrays import Arrays, refuse
from cnnsweep.data.audio_decoding import AudioDecoding, BadAudioError
from cnnsweep.data.folder_tree import SOUNDS, show
from cnnsweep.data.groups import find_groups
from cnnsweep.data.image_cache import ImageFiles
from cnnsweep.data.image_layout import find_images
from cnnsweep.data.storage import Writer, new_folder, open_map
from cnnsweep.errors import UserError

FORMAT = 1  # raised when the decoding changes


class AudioFolderConfig(DataConfig):
    """A folder of audio files; `test` and `validation` are the shares of splits that the folder does not have."""

    test: Float = Field(gt=0, lt=1)
    rate: Int = Field(ge=1)
    seconds: Float = Field(gt=0)
    class_depth: Int | None = Field(ge=1)
    skip_bad: bool
    cache: str


@configured_by(AudioFolderConfig)
def load(config: AudioFolderConfig) -> Arrays:
    """Decode train/CLASS/*.wav, with val/ and test/ where they are there, or CLASS/*.wav, or map those decoded before.

    Raises one UserError that lists every empty class and every file that is no audio, is broken or silent;
    `data.skip_bad` skips these, and counts them in `source`.
    """
    if importlib.util.find_spec("soundfile") is None:
        raise UserError("data=audio_folder needs the package soundfile: pip install 'cnnsweep[audio]'")
    files = find_images(config.dir, config.class_depth, SOUNDS)
    decoding = AudioDecoding(config.rate, max(1, round(config.seconds * config.rate)))
    folder, skipped = _decoded(Path(config.cache), files, decoding)
    faults = [*files.faults, *skipped]
    if faults and not config.skip_bad:
        refuse(faults, "data.skip_bad=true skips all of these")
    names = {split: json.loads((folder / f"{split}-names.json").read_text(encoding="utf-8")) for split in files.splits}
    x = {split: open_map(folder / f"{split}.npy") for split in files.splits}
    y = {split: open_map(folder / f"{split}-labels.npy") for split in files.splits}
    note = f" ({len(faults):,} unusable files skipped)" if faults else ""
    return Arrays.of_splits(
        x,
        y,
        class_names=files.classes,
        source=f"{show(files.root)}{note}",
        scale=1.0,
        name=show(files.root.resolve().name),
        files={f"{a}_{split}": show(files.folders[split]) for split in files.splits for a in "xy"},
        digest=folder.name,
        decoding=decoding,
        notes=files.notes,
        kind="signal",
        names=names,
        groups=find_groups(config.group, names),
    )


def _decoded(cache: Path, files: ImageFiles, decoding: AudioDecoding) -> tuple[Path, list[str]]:
    """The folder with the waveforms of each split, and a line for each file that could not be decoded."""
    key = json.dumps([FORMAT, files.classes, files.stat_key(), astuple(decoding)])
    folder = cache.expanduser().absolute() / "audio" / hashlib.sha256(key.encode()).hexdigest()[:16]
    try:
        if not (folder / "skipped.json").exists():
            with new_folder(folder) as new:
                skipped = [line for split in files.splits for line in _decode_split(new, split, files, decoding)]
                (new / "skipped.json").write_text(json.dumps(skipped), encoding="utf-8")
                new.rename(folder)
        return folder, json.loads((folder / "skipped.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"data.cache '{cache}' cannot be used: {error}") from error


def _decode_split(new: Path, split: str, files: ImageFiles, decoding: AudioDecoding) -> list[str]:
    found, labels, names, skipped = files.splits[split], list[int](), list[str](), list[str]()
    with Writer(new / f"{split}.npy", (len(found), decoding.samples, 1), np.float32) as writer:
        for path, label in found:
            try:
                writer.append(decoding.read(path)[None])
            except BadAudioError as error:
                skipped.append(f"{show(path)}: {error}")
            except OSError as error:
                skipped.append(f"{show(path)}: cannot be read ({error.strerror})")
            else:
                labels.append(label)
                names.append(show(files.relative(path)))
    np.save(new / f"{split}-labels.npy", np.array(labels, np.int32))
    (new / f"{split}-names.json").write_text(json.dumps(names), encoding="utf-8")
    return skipped
