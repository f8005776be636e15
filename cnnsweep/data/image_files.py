"""What sources of image, sound and video files have: settings, and remarks on what was decoded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cnnsweep.config.schema import DataConfig
from cnnsweep.config.validation import Float, Int
from cnnsweep.data.image_cache import Decoded, ImageFiles
from cnnsweep.data.image_decoding import Decoding


def _check_size(value: object) -> object:
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise ValueError(f"'{value}' (a number of pixels, or [height, width])")
    return value


class FilesConfig(DataConfig):
    """Files that are decoded once; `test` and `validation` are the shares of splits that the data do not have."""

    test: Float = Field(gt=0, lt=1)
    skip_bad: bool
    cache: str


class ClassFolderConfig(FilesConfig):
    """A folder of files, one sub-folder a class."""

    class_depth: Int | None = Field(ge=1)


class ImageFilesConfig(FilesConfig):
    """Image files."""

    image_size: Annotated[int | list[int], BeforeValidator(_check_size)]
    resize: Literal["crop", "pad", "stretch"]
    color: Literal["rgb", "grey"]
    max_megapixels: Float = Field(gt=0)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.image_size if isinstance(self.image_size, list) else [self.image_size] * 2
        return height, width

    @property
    def decoding(self) -> Decoding:
        return Decoding(self.size, self.color, self.resize, self.max_megapixels)


class ImageFolderConfig(ImageFilesConfig, ClassFolderConfig):
    """A folder of images, one sub-folder a class."""


def skipped(images: ImageFiles, decoded: Decoded) -> str:
    """A remark on what was skipped, for the source's name; nothing where that is nothing."""
    count = len(images.faults) + len(decoded.skipped)
    return f" ({count:,} unusable {'entry' if count == 1 else 'entries'} skipped)" if count else ""
