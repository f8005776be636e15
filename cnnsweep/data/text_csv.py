"""Texts with a class each, in CSV files: a column of texts and a column of labels."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cnnsweep.config.components import configured_by
from cnnsweep.data.arrays import Arrays, refuse
from cnnsweep.data.folder_tree import composed, is_clutter
from cnnsweep.data.image_layout import by_split
from cnnsweep.data.text_decoding import fault_of
from cnnsweep.data.texts import LabelledText, TextFilesConfig, skipped, text_arrays
from cnnsweep.errors import UserError, nearest

LARGEST = 10**8  # letters of one field
SUFFIXES = (".csv", ".tsv")
DELIMITERS = (",", ";", "\t", "|")
OPEN = "a quote mark opens a text that no mark ends: such a text has to be in quotes, its own marks doubled"


class TextCsvConfig(TextFilesConfig):
    """CSV files with a header."""

    text: str
    label: str


@configured_by(TextCsvConfig)
def load(config: TextCsvConfig) -> Arrays:
    """Read train.csv and, where they are there, val.csv and test.csv of the folder `data.dir`, or one file.

    Fields are divided by commas, semicolons, tabs or vertical bars, as the header is. Raises one UserError that lists a
    missing column, empty texts and labels, lines of more fields than the header and bytes of another encoding, each
    with its file and line; `data.skip_bad` leaves out such texts, labels and lines and counts them.
    """
    paths, splits, faults, broken = _paths(config.dir), {}, list[str](), list[str]()
    for split, path in paths.items():
        try:
            splits[split] = list(_rows(path, config, faults))
        except UserError as error:  # of the whole file, which is not skipped
            broken.append(str(error))
    if broken:
        raise UserError("\n".join([*dict.fromkeys(broken), *faults]))
    if faults and not config.skip_bad:
        refuse(faults, "data.skip_bad=true skips all of these")
    source = f"{Path(config.dir or '')}{skipped(faults, 'texts')}"
    return text_arrays(splits, config, source, {split: str(path) for split, path in paths.items()})


def _paths(setting: str | None) -> dict[str, Path]:
    """The file of each split."""
    if not setting:
        raise UserError("data.dir is not set: data.dir=PATH, a folder with train.csv (and test.csv), or one CSV file")
    root = Path(setting).expanduser()
    if root.is_file():
        return {"train": root}
    if not root.is_dir():
        beside = [p.name for p in root.parent.glob("*") if p.is_dir() or p.suffix == ".csv"]
        raise UserError(f"data.dir '{root}' does not exist{nearest(root.name, beside)}")
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES and not is_clutter(path.name))
    several = {split: paths for split, paths in by_split(found, lambda path: path.stem).items() if paths}
    for split, (path, *more) in several.items():
        if more:
            names = " and ".join(each.name for each in (path, *more))
            raise UserError(f"data.dir '{root}' has {names}: only one file can be the {split} split; "
                            "put them together, or keep one")  # fmt: skip
    named = {split: path for split, (path,) in several.items()}
    if len(found) == 1 and set(named) <= {"train"}:
        return {"train": found[0]}
    if "train" not in named:
        has = ", ".join(path.name for path in found) or "no CSV file"
        raise UserError(f"data.dir '{root}' has {has}; expected train.csv, and test.csv and val.csv if there are any")
    return named


def _rows(path: Path, config: TextCsvConfig, faults: list[str]) -> Iterator[LabelledText]:
    """The rows of a file that can be used; what is wrong with the others is added to `faults`."""
    csv.field_size_limit(LARGEST)
    try:
        with path.open(encoding=_with_mark(config.encoding), newline="") as file:
            delimiter = _delimiter(next((line for line in file if line.strip("\r\n")), ""), config)
            file.seek(0)
            lines: list[str] = []
            reader = csv.DictReader(_kept(file, lines), delimiter=delimiter)
            while reader.fieldnames == []:  # of a blank line
                reader.fieldnames = None
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            _check_columns(path, config, list(reader.fieldnames))
            lines.clear()
            for row in reader:
                place, merged = f"{path}, line {reader.line_num}", _merged(lines, delimiter)
                lines.clear()
                if merged:
                    first = reader.line_num - merged + 1
                    faults.append(f"{path}, line {first}: {OPEN}")
                    faults += [f"{path}, line {n}: is within its quotes" for n in range(first + 1, first + merged)]
                    continue
                if more := row.get(None):
                    count = len(reader.fieldnames or [])
                    fields = f"{count + len(more)} fields, but {count} columns"
                    faults.append(f"{place}: {fields}: a text with '{delimiter}' in it has to be in quotes")
                    continue
                text, label = (row[key] or "" for key in (config.text, config.label))
                if fault := fault_of(text):
                    faults.append(f"{place}: '{config.text}' {fault}")
                elif not label.strip():
                    faults.append(f"{place}: '{config.label}' is empty")
                else:
                    yield LabelledText(text, composed(label.strip()), place)
    except (UnicodeDecodeError, LookupError, csv.Error) as error:
        raise unreadable(path, config.encoding, error) from error


def _kept(file: Iterable[str], lines: list[str]) -> Iterator[str]:
    """The lines of a file, those of a row from its first one on also in `lines`."""
    for line in file:
        if lines or line.strip("\r\n"):
            lines.append(line)
        yield line


def _merged(lines: Sequence[str], delimiter: str) -> int:
    """How many lines were taken for one row by a quote mark that does not belong there; 0 where each mark does."""
    if len(lines) > 1:
        try:
            [*csv.reader(lines, delimiter=delimiter, strict=True)]
        except csv.Error:
            return len(lines)
    return 0


def _with_mark(encoding: str) -> str:
    """The encoding, without the mark that spreadsheets put at the start of a file."""
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


def _delimiter(header: str, config: TextCsvConfig) -> str:
    """What divides the header into columns, two of which are the ones that are wanted; else a comma."""
    rows = {d: [name.strip().strip('"') for name in header.split(d)] for d in DELIMITERS}
    return next((d for d, names in rows.items() if {config.text, config.label} <= set(names)), ",")


def unreadable(path: Path, encoding: str, error: Exception) -> UserError:
    """The error of a file of texts that cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"data cannot be used: {path}: {undecodable(encoding, error)}")
    if isinstance(error, LookupError):
        return UserError(f"data.encoding: '{encoding}' is no encoding (utf-8, latin-1, utf-16 …)")
    return UserError(f"data cannot be used: {path}: is no CSV file ({error})")


def undecodable(encoding: str, error: UnicodeDecodeError) -> str:
    """What is wrong with a file of another encoding, and which it may be: a mark at the start says utf-16."""
    likely = "utf-16" if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin-1"
    return f"is not {encoding} (byte 0x{error.object[error.start]:02x}); try data.encoding={likely}"


def _check_columns(path: Path, config: TextCsvConfig, columns: Sequence[str]) -> None:
    wanted = {"text": config.text, "label": config.label}
    if missing := {key: name for key, name in wanted.items() if name not in columns}:
        has = ", ".join(columns) or "none"
        faults = [f"no column '{name}'{nearest(name, columns)} (it has {has})" for name in missing.values()]
        refuse([f"{path}: {fault}" for fault in faults], " ".join(f"data.{key}=NAME" for key in missing))
    if twice := [name for name in wanted.values() if columns.count(name) > 1]:
        refuse([f"{path}: the header has '{name}' twice" for name in twice])
