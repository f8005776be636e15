"""A folder and all that is in it, without what systems and programs leave in folders."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cnnsweep.data import video_decoding
from cnnsweep.data.image_decoding import SUFFIXES
from cnnsweep.formatting import counted

CLUTTER = (
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "@recycle", "#recycle",
    "#snapshot", "$recycle.bin", "system volume information", "lost+found",
)  # fmt: skip
"""What systems and programs leave in folders, beside names that begin with a dot."""


class FileKind(NamedTuple):
    """The files that a folder is to hold."""

    noun: str
    """Of one of them."""
    suffixes: tuple[str, ...]
    parts: tuple[str, ...] = ()
    """A folder of files with one of these suffixes is one of them too: a video as numbered frames."""

    @property
    def example(self) -> str:
        """A pattern of their names."""
        return f"*{self.suffixes[0]}"

    def fits(self, path: Path) -> bool:
        """Whether a path that was found looks like one of them, by its suffix, or as a folder of parts."""
        return path.suffix.lower() in self.suffixes or bool(self.parts and path.is_dir())

    def counted(self, number: int) -> str:
        """
        >>> TEXTS.counted(1), TEXTS.counted(2000)
        ('1 text', '2,000 texts')
        """
        return counted(number, self.noun)


IMAGES, TEXTS = FileKind("image", SUFFIXES), FileKind("text", (".txt",))
SOUNDS = FileKind("sound", (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3"))
VIDEOS = FileKind("video", video_decoding.SUFFIXES, video_decoding.FRAMES)


@dataclass(frozen=True)
class Folder:
    """A folder with all that is in it but clutter, sorted by name."""

    path: Path
    folders: tuple[Folder, ...]
    files: tuple[Path, ...]
    """With folders that are one input, such as a video's frames."""
    kind: FileKind = IMAGES

    @property
    def name(self) -> str:
        """Composed, since some systems decompose the accents of names."""
        return composed(self.path.name)

    @property
    def filled(self) -> list[Folder]:
        """The sub-folders with a file at any depth."""
        return [folder for folder in self.folders if next(folder.walk(), None)]

    def walk(self) -> Iterator[Path]:
        """All files at any depth."""
        yield from self.files
        for folder in self.folders:
            yield from folder.walk()

    def at(self, depth: int) -> list[Folder]:
        """The folders so many levels below."""
        return [self] if depth == 0 else [found for folder in self.folders for found in folder.at(depth - 1)]

    def images(self, depth: int = 1) -> int:
        """The number of files with a suffix of their kind less than `depth` levels below."""
        files = (p for level in range(depth) for folder in self.at(level) for p in folder.files)
        return sum(self.kind.fits(p) for p in files)

    @property
    def is_input(self) -> bool:
        """Whether the folder is one input itself: it has its parts, and neither folders nor whole inputs."""
        suffixes = {path.suffix.lower() for path in self.files}
        return not self.folders and bool(suffixes & {*self.kind.parts}) and not suffixes & {*self.kind.suffixes}


def read_folder(path: Path, kind: FileKind = IMAGES, above: frozenset[str] = frozenset()) -> Folder:
    """Look at a folder of such files and all below it; `above` are the folders that hold it."""
    above |= {os.path.realpath(path)}
    folders, files = [], []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_clutter(entry.name):
                continue
            if entry.is_dir():
                # A link to a folder above would never end.
                if not (entry.is_symlink() and os.path.realpath(entry.path) in above):
                    found = read_folder(path / entry.name, kind, above)
                    if found.is_input:
                        files.append(found.path)
                    else:
                        folders.append(found)
            elif entry.is_file() or entry.is_symlink():  # a link that leads nowhere is a broken file
                files.append(path / entry.name)
    return Folder(path, tuple(folders), tuple(files), kind)


def composed(name: str) -> str:
    """A name with composed accents, as it is compared."""
    return unicodedata.normalize("NFC", name)


def show(path: Path | str) -> str:
    """A path or a name as text that can be printed and stored, undecodable bytes included."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_clutter(name: str) -> bool:
    """Whether a file or a folder is one of those that systems and programs leave."""
    return name.startswith(".") or name.lower() in CLUTTER
