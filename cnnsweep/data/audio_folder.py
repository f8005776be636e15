"""A folder of audio files, one sub-folder a class."""

from __future__ import annotations

import importlib.util

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.validation import Float, Int
from cnnsweep.data.arrays import Arrays
from cnnsweep.data.audio_decoding import AudioDecoding
from cnnsweep.data.folder_tree import SOUNDS
from cnnsweep.data.image_files import ClassFolderConfig
from cnnsweep.data.image_folder import folder_arrays
from cnnsweep.data.image_layout import find_images
from cnnsweep.errors import UserError


class AudioFolderConfig(ClassFolderConfig):
    """A folder of audio files."""

    rate: Int = Field(ge=1)
    seconds: Float = Field(gt=0)


@configured_by(AudioFolderConfig)
def load(config: AudioFolderConfig) -> Arrays:
    """Decode train/CLASS/*.wav, with val/ and test/ where they are there, or CLASS/*.wav, or map those decoded before.

    Raises what `folder_arrays` does; a sound that is broken or silent cannot be used.
    """
    if importlib.util.find_spec("soundfile") is None:
        raise UserError("data=audio_folder needs the package soundfile: pip install 'cnnsweep[audio]'")
    files = find_images(config.dir, config.class_depth, SOUNDS)
    decoding = AudioDecoding(config.rate, max(1, round(config.seconds * config.rate)))
    return folder_arrays(files, decoding, config, "signal", 1.0)
