"""A folder of videos, files or folders of numbered frames, one sub-folder a class."""

from __future__ import annotations

import importlib.util

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.validation import Float, Int
from cnnsweep.data.arrays import Arrays
from cnnsweep.data.folder_tree import VIDEOS
from cnnsweep.data.image_files import ImageFolderConfig
from cnnsweep.data.image_folder import folder_arrays
from cnnsweep.data.image_layout import find_images
from cnnsweep.data.video_decoding import VideoDecoding
from cnnsweep.errors import UserError


class VideoFolderConfig(ImageFolderConfig):
    """A folder of videos; the settings of images are those of each frame."""

    frames: Int = Field(ge=1)
    fps: Float | None = Field(gt=0)


@configured_by(VideoFolderConfig)
def load(config: VideoFolderConfig) -> Arrays:
    """Decode train/CLASS/*.mp4 or train/CLASS/VIDEO/0001.png …, with val/ and test/ where they are there, or CLASS/….

    Raises what `folder_arrays` does; a video that is broken or too short cannot be used.
    """
    files = find_images(config.dir, config.class_depth, VIDEOS)
    has_files = any(not file.path.is_dir() for found in files.splits.values() for file in found)
    if has_files and importlib.util.find_spec("av") is None:
        raise UserError("data=video_folder needs the package av to read video files: pip install 'cnnsweep[video]'")
    return folder_arrays(files, VideoDecoding(config.frames, config.fps, config.decoding), config, "video", 1 / 255)
