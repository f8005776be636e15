"""Decoding of one video to so many frames: a file, by PyAV, or a folder of numbered images.

Training, `predict` and the example of an exported network all decode with it; `export` puts a copy of this file and of
image_decoding.py beside the network, so it imports nothing else of the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cnnsweep.data.image_decoding import MODES, BadImageError, Decoding, decode, fit

if TYPE_CHECKING:
    from av.container import InputContainer
    from PIL import Image

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".gif")
"""Of the names that video files mostly have; any other may hold a video too."""
FRAMES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Of the names of a folder's frames."""
FORMATS = "mov,mp4,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif"
"""Files that hold a video themselves: others, such as playlists, name files and addresses that would be opened."""


class BadVideoError(ValueError):
    """It is no video, is broken or too short; the text says which, without the file's name."""


@dataclass(frozen=True)
class VideoDecoding:
    """Settings of the decoding."""

    dtype: ClassVar[type] = np.uint8
    frames: int
    """So many are taken of each video."""
    fps: float | None
    """So many a second, from the start; None: spread evenly over the whole video."""
    image: Decoding
    """What becomes of each frame."""

    @staticmethod
    def of(stored: Mapping[str, object]) -> VideoDecoding:
        """Settings that were stored as JSON."""
        match stored:
            case {"frames": int(frames), "fps": (None | int() | float()) as fps, "image": dict(image)}:
                return VideoDecoding(frames, fps, Decoding.of(image))
        raise TypeError("not the settings of a video's decoding")

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, height, width, channels)"""
        return (self.frames, *self.image.shape)

    def read(self, path: str | Path) -> NDArray[np.uint8]:
        """Decode a file or a folder of frames: uint8 (frames, height, width, 3 for "rgb" or 1 for "grey").

        A folder's frames are taken in the order of the numbers in their names, one after the other with `fps`.
        Raises BadVideoError, and OSError where the file cannot be read.
        """
        path = Path(path)
        return self._read_folder(path) if path.is_dir() else self._read_file(path)

    def _read_folder(self, folder: Path) -> NDArray[np.uint8]:
        files = frame_files(folder)
        wanted = self._places(len(files)) if self.fps is None else np.arange(self.frames)
        if self.frames > len(files):
            raise BadVideoError(_too_few(len(files), self.frames))
        found = []
        for file in (files[place] for place in wanted):
            try:
                found.append(decode(file.read_bytes(), self.image))
            except BadImageError as error:
                raise BadVideoError(f"its frame {file.name} {error}") from error
        return np.stack(found)

    def _read_file(self, path: Path) -> NDArray[np.uint8]:
        times = _packet_times(path)
        for _ in range(2):
            wanted = self._wanted(times)
            found, times = self._decode(path, {*wanted.tolist()})
            if wanted.max() in found:
                return np.stack([found[place] for place in wanted])
            # A decoder may leave out frames whose packets are there: choose once more, among those that it gives.
        raise BadVideoError("cannot be decoded to its end")

    def _decode(self, path: Path, wanted: set[int]) -> tuple[dict[int, NDArray[np.uint8]], NDArray[np.float64]]:
        """The frames at some places, up to the last of these, and the times of all before it."""
        found, times, last = {}, list[float](), max(wanted)
        with _opened(path) as container:
            for place, frame in enumerate(container.decode(video=0)):
                times.append(place if frame.time is None else frame.time)
                if place in wanted:
                    found[place] = self._picture(frame.to_image(), frame.rotation)
                if place == last:
                    break
        return found, np.array(times)

    def _picture(self, frame: Image.Image, turn: float) -> NDArray[np.uint8]:
        upright = frame.rotate(turn, expand=True) if turn else frame
        pixels = np.asarray(fit(upright.convert(MODES[self.image.color]), self.image.size, self.image.resize))
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]

    def _wanted(self, times: NDArray[np.float64]) -> NDArray[np.intp]:
        """The places of the frames to take, of those that are shown at these times in seconds."""
        if self.fps is None or len(times) < 2:
            if len(times) < self.frames:
                raise BadVideoError(_too_few(len(times), self.frames))
            return self._places(len(times))
        shown = times - times[0]
        seconds = float(shown[-1] + np.median(np.diff(shown)))
        needed = (self.frames - 1) / self.fps
        if needed >= seconds:
            raise BadVideoError(f"is {seconds:.2g} s long, too short for {self.frames} frames at {self.fps:g} a second")
        moments = np.arange(self.frames) / self.fps
        return np.searchsorted(shown, moments + 1e-3, side="right") - 1

    def _places(self, count: int) -> NDArray[np.intp]:
        """The middles of equal parts.

        >>> VideoDecoding(4, None, None)._places(10).tolist()
        [1, 3, 6, 8]
        """
        return ((np.arange(self.frames) + 0.5) * count / self.frames).astype(np.intp)


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder, in the order of the numbers in their names."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in FRAMES and not path.name.startswith(".")]
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, str]]:
    """A key by which "frame2" comes before "frame10".

    >>> sorted(["f10.png", "f2.png"], key=natural_key)
    ['f2.png', 'f10.png']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)] + [(0, name)]


def _too_few(found: int, frames: int) -> str:
    return f"has {found} frame{'' if found == 1 else 's'}, fewer than data.frames={frames}"


def _packet_times(path: Path) -> NDArray[np.float64]:
    """The times at which the frames are shown, without decoding them."""
    times = list[float]()
    with _opened(path) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.size:
                stamp = packet.dts if packet.pts is None else packet.pts
                times.append(len(times) if stamp is None else float(stamp * packet.time_base))
    return np.sort(np.array(times))


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """A video file. Raises BadVideoError for what is none, also where that shows during decoding."""
    import av

    with path.open("rb") as file:  # an opened file, since FFmpeg would take some names for addresses and patterns
        try:
            with av.open(file, options={"format_whitelist": FORMATS}) as container:
                if not container.streams.video:
                    raise BadVideoError("has no pictures, only sound")
                container.streams.video[0].codec_context.thread_count = 1  # files are decoded in parallel
                yield container
        except av.FFmpegError as error:
            raise BadVideoError(f"is no video that can be decoded ({error.strerror})") from error
