"""A folder of text files, one sub-folder a class."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.validation import Int
from cnnsweep.data.arrays import Arrays, refuse
from cnnsweep.data.folder_tree import TEXTS, show
from cnnsweep.data.image_layout import find_images
from cnnsweep.data.text_csv import undecodable, unreadable
from cnnsweep.data.text_decoding import fault_of
from cnnsweep.data.texts import LabelledText, TextFilesConfig, skipped, text_arrays
from cnnsweep.errors import UserError


class TextFolderConfig(TextFilesConfig):
    """A folder of text files."""

    class_depth: Int | None = Field(ge=1)


@configured_by(TextFolderConfig)
def load(config: TextFolderConfig) -> Arrays:
    """Read train/CLASS/*.txt, with val/ and test/ where they are there, or CLASS/*.txt.

    Raises one UserError that lists every empty class, every empty file and every file of another encoding;
    `data.skip_bad` leaves these out and counts them.
    """
    files, faults = find_images(config.dir, config.class_depth, TEXTS), list[str]()
    faults.extend(files.faults)
    splits: dict[str, list[LabelledText]] = {}
    for split, found in files.splits.items():
        splits[split] = []
        for path, label in found:
            place = show(path)
            try:
                text = path.read_text(encoding=config.encoding)
            except LookupError as error:
                raise unreadable(path, config.encoding, error) from error
            except UnicodeDecodeError as error:
                faults.append(f"{place}: {undecodable(config.encoding, error)}")
            except OSError as error:
                faults.append(f"{place}: cannot be read ({error.strerror})")
            else:
                if fault := fault_of(text):
                    faults.append(f"{place}: {fault}")
                else:
                    splits[split].append(LabelledText(text, files.classes[label], place))
    if faults and not config.skip_bad:
        refuse(faults, "data.skip_bad=true skips all of these")
    if not splits["train"]:
        raise UserError(f"data.dir '{show(files.root)}': no text in it that can be read")
    source = f"{show(Path(files.root))}{skipped(faults, 'files')}"
    return text_arrays(splits, config, source, {split: show(path) for split, path in files.folders.items()})
