"""Texts from CSV files and folders: what becomes of them, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import data_sets
import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import DataConfig
from cnnsweep.data import storage
from cnnsweep.data.loading import load
from cnnsweep.data.text_decoding import TextDecoding, split_words
from cnnsweep.errors import UserError

GOOD, BAD = ["good film", "a good film !", "so good", "good good good"], ["bad film", "a bad film", "bad", "not good"]


def config(source: str, **changes: object) -> DataConfig:
    base = {"validation": 0.25, "test": 0.25, "words": None, "length": None, "encoding": "utf-8", "skip_bad": False}
    own = {"text": "text", "label": "label"} if source == "text_csv" else {"class_depth": None}
    return data_sets.config(f"cnnsweep.data.{source}.load", **{**base, **own, **changes})


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(f'"{text}",{label}' for text, label in rows)]) + "\n", encoding="utf-8")
    return path


def rows() -> list[tuple[str, str]]:
    return [*((text, "pos") for text in GOOD), *((text, "neg") for text in BAD)]


def test_two_files_are_the_training_and_the_test_set(tmp_path):
    write_csv(tmp_path / "train.csv", rows())
    write_csv(tmp_path / "test.csv", [("an unseen film", "pos"), ("bad", "neg")])
    data = load(config("text_csv", dir=str(tmp_path)), 0)
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (6, 2, 2)
    assert data.class_names == ("neg", "pos")
    assert data.kind == "text"
    assert data.x_train.dtype == np.int32
    assert data.input_shape == (data.x_train.shape[1], len(data.decoding.words))
    assert data.decoding.read(data.x_test[0]) == ["[unknown]", "[unknown]", "film"]
    length, words = data.input_shape
    assert f"2 validation, 2 test texts, {length} words of a vocabulary of {words}, 2 classes" in data.describe()


def test_the_vocabulary_is_that_of_the_training_part_alone(tmp_path):
    """Each text has a word of its own: those of the validation and test texts are unknown."""
    own = [(f"film own{number}", "pos" if number % 2 else "neg") for number in range(16)]
    data = load(config("text_csv", dir=str(write_csv(tmp_path / "all.csv", own)), length=2), 0)
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (9, 3, 4)
    assert len(data.decoding.words) == 2 + 1 + len(data.x_train)
    assert (data.x_val[:, 1] == 1).all()
    assert (data.x_test[:, 1] == 1).all()
    assert (data.x_train[:, 1] > 1).all()


def test_accents_of_classes_may_be_composed_or_not(tmp_path):
    labels = [(text, {"pos": "\u00e9", "neg": "b"}[label]) for text, label in rows()]
    path = write_csv(tmp_path / "all.csv", [*labels, ("good", "e\u0301"), ("so", "e\u0301"), ("film", "e\u0301")])
    assert load(config("text_csv", dir=str(path)), 0).class_names == ("b", "\u00e9")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("สวัสดี", ["สวัสดี"]),
        ("தமிழ்", ["தமிழ்"]),
        ("שָׁלוֹם!", ["שָׁלוֹם", "!"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("Cafe\u0301 CAFÉ", ["café", "café"]),
        ("İstanbul", ["i\u0307stanbul"]),
        ("e\u0301t\u0327e\u0301's l’e\u0301te\u0301", ["éţé's", "l’été"]),
        ("\ufeffso co\u00adop\u200b!", ["so", "coop", "!"]),
        ("a_b 3.5 ☺", ["a", "b", "3", ".", "5", "☺"]),
    ],
)
def test_marks_belong_to_their_word(text, words):
    assert split_words(text) == words


def test_frequent_words_are_kept_and_long_texts_are_cut(tmp_path):
    data = load(config("text_csv", dir=str(write_csv(tmp_path / "all.csv", rows())), words=1, length=2), 0)
    assert len(data.decoding.words) == 3
    assert data.x_train.shape[1] == 2


def test_a_decoding_is_stored_with_the_data(tmp_path):
    data = load(config("text_csv", dir=str(write_csv(tmp_path / "all.csv", rows()))), 0)
    storage.save(data, tmp_path / "saved")
    opened = storage.open_saved(tmp_path / "saved")
    assert opened.decoding == data.decoding
    assert opened.kind == "text"
    assert TextDecoding.of(dataclasses.asdict(data.decoding)) == data.decoding


def test_a_folder_has_a_text_in_each_file(tmp_path):
    for label, texts in (("neg", BAD), ("pos", GOOD)):
        for split in ("train", "test"):
            (tmp_path / split / label).mkdir(parents=True)
            for number, text in enumerate(texts):
                (tmp_path / split / label / f"{number}.txt").write_text(text)
    data = load(config("text_folder", dir=str(tmp_path)), 0)
    assert (len(data.x_train), len(data.x_test), data.class_names) == (6, 8, ("neg", "pos"))
    (tmp_path / "train" / "pos" / "0.txt").write_text(" ")
    (tmp_path / "train" / "neg" / "0.txt").write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)2 faults:.*neg/0.txt: is empty.*pos/0.txt: is empty") as caught:
        load(config("text_folder", dir=str(tmp_path)), 0)
    assert "data.skip_bad=true" in str(caught.value)
    found = load(config("text_folder", dir=str(tmp_path), skip_bad=True), 0)
    assert "(2 unusable files skipped)" in found.source
    (tmp_path / "train" / "pos" / "1.txt").write_bytes("schön".encode("latin-1"))
    with pytest.raises(
        UserError, match=r"3 faults:(?s:.*)1.txt: is not utf-8 \(byte 0xf6\); try data.encoding=latin-1"
    ):
        load(config("text_folder", dir=str(tmp_path)), 0)


@pytest.mark.parametrize("header", ["text;label", " text ; label", '"text" ;"label"'])
def test_blanks_before_and_in_the_header_leave_its_delimiter(tmp_path, header):
    lines = ["", "", header, *(f"{text};{label}" for text, label in rows())]
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    assert load(config("text_csv", dir=str(tmp_path)), 0).class_names == ("neg", "pos")


def test_the_encoding_is_stored_with_the_data(tmp_path):
    write_csv(tmp_path / "all.csv", rows())
    assert load(config("text_csv", dir=str(tmp_path), encoding="latin-1"), 0).decoding.encoding == "latin-1"


FAULTS = {
    "no such column": ({"text": "sentence"}, rows(), r"no column 'sentence' \(it has text, label\)\n  data.text=NAME"),
    "empty texts": ({}, [*rows(), (" ", "pos"), ("", "neg")], r"2 faults:\n.*10: 'text' is empty\n.*line 11: 'text'"),
    "no words": ({}, [*rows(), ("___", "pos"), ("_ _", "neg")], r"2 faults:\n.*10: 'text' has no words\n.*line 11: "),
    "an empty label": ({}, [*rows(), ("good", " ")], r"line 10: 'label' is empty"),
    "one class": ({}, rows()[:4], r"1 class \(pos\), at least 2 are needed"),
    "an unknown encoding": ({"encoding": "utf-99"}, rows(), r"data.encoding: 'utf-99' is no encoding"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_bad_files_are_one_error(tmp_path, name):
    changes, content, message = FAULTS[name]
    path = write_csv(tmp_path / "all.csv", content)
    with pytest.raises(UserError, match=f"(?s){message}"):
        load(config("text_csv", dir=str(path), **changes), 0)


def test_other_bad_files(tmp_path):
    with pytest.raises(UserError, match=r"data\.dir is not set"):
        load(config("text_csv"), 0)
    with pytest.raises(UserError, match="does not exist"):
        load(config("text_csv", dir=str(tmp_path / "none")), 0)
    with pytest.raises(UserError, match=r"has no CSV file, expected|has no CSV file; expected"):
        load(config("text_csv", dir=str(tmp_path)), 0)
    path = tmp_path / "train.csv"
    path.write_bytes("text,label\nschön,pos\n".encode("latin-1"))
    write_csv(tmp_path / "test.csv", [("good", "pos"), (" ", "neg")])
    (tmp_path / "val.csv").write_text("words,label\ngood,pos\n")
    with pytest.raises(UserError, match=r"(?s)train.csv: is not utf-8.*no column 'text'.*line 3: 'text' is empty"):
        load(config("text_csv", dir=str(tmp_path)), 0)
    (tmp_path / "val.csv").unlink()
    for encoding in ("latin-1", "utf-16"):
        path.write_bytes("text,label\nschön,pos\n".encode(encoding))
        with pytest.raises(UserError, match=rf"is not utf-8 \(byte 0x\w\w\); try data.encoding={encoding}"):
            load(config("text_csv", dir=str(tmp_path)), 0)
    write_csv(path, rows())
    write_csv(tmp_path / "test.csv", [("good", "poss"), ("bad", "neg")])
    with pytest.raises(UserError, match=r"test.csv, line 2: no training text is of class 'poss', did you mean 'pos'"):
        load(config("text_csv", dir=str(tmp_path)), 0)


def test_classes_of_one_number_have_one_order_in_each_process(tmp_path):
    """A set of texts has another order in each."""
    labels = sorted("0" * zeros + "1" for zeros in range(12))
    path = write_csv(tmp_path / "all.csv", [(f"text {n}", label) for n in range(4) for label in labels])
    assert load(config("text_csv", dir=str(path)), 0).class_names == (*labels,)


def test_each_split_is_one_file_and_files_of_systems_do_not_count(tmp_path):
    """Of two files of one split the last one alone was read."""
    write_csv(tmp_path / "Reviews.CSV", rows())
    (tmp_path / "._Reviews.CSV").write_bytes(b"\0")
    assert len(load(config("text_csv", dir=str(tmp_path)), 0).x_train) == 4
    (tmp_path / "Reviews.CSV").rename(tmp_path / "train.tsv")
    for name in ("eval", "test"):
        write_csv(tmp_path / f"{name}.csv", [(f"{name} good", "pos"), (f"{name} bad", "neg")])
    data = load(config("text_csv", dir=str(tmp_path)), 0)
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (8, 2, 2)
    write_csv(tmp_path / "train_2.csv", rows())
    with pytest.raises(UserError, match=r"has train.tsv and train_2.csv: only one file can be the train split; put"):
        load(config("text_csv", dir=str(tmp_path)), 0)


def test_a_text_in_two_splits_is_named_with_its_lines(tmp_path):
    write_csv(tmp_path / "train.csv", rows())
    write_csv(tmp_path / "test.csv", [("Good  film", "pos"), ("worse", "neg")])
    data = load(config("text_csv", dir=str(tmp_path), validation=0.4), 0)
    (note,) = data.notes
    assert "text is in the test data too" in note
    assert re.search(r"train.csv, line 2 = .*test.csv, line 2", note)


def test_spreadsheets_divide_by_semicolons_and_begin_with_a_mark(tmp_path):
    for name, divider in (("semicolons", ";"), ("tabs", "\t")):
        lines = [divider.join(('"text"', "label")), *(divider.join((f'"{text}"', label)) for text, label in rows())]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8-sig")
        data = load(config("text_csv", dir=str(tmp_path / f"{name}.csv")), 0)
        assert data.class_names == ("neg", "pos")
        assert len(data.x_train) + len(data.x_val) + len(data.x_test) == len(rows())


def test_a_comma_in_a_text_without_quotes_is_named(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text("text,label\ngood, very good,pos\n" + "".join(f"{t},{c}\n" for t, c in rows()))
    with pytest.raises(UserError, match="line 2: 3 fields, but 2 columns: a text with ',' in it has to be in quotes"):
        load(config("text_csv", dir=str(path)), 0)


def test_a_quote_mark_that_opens_a_text_does_not_swallow_the_lines_behind_it(tmp_path):
    path, others = tmp_path / "all.csv", "".join(f"{t},{c}\n" for t, c in rows())
    path.write_text(f'text,label\n{others}\n"good,pos\nbad,neg\n"never" good,neg\n"so\n""good""",pos\n"bad" film,neg\n')
    with pytest.raises(
        UserError, match=r"3 faults:\n.*line 11: a quote mark opens.*\n.*line 12: is within.*\n.*line 13:"
    ):
        load(config("text_csv", dir=str(path)), 0)
    data = load(config("text_csv", dir=str(path), skip_bad=True), 0)
    assert len(data.x_train) + len(data.x_val) + len(data.x_test) == len(rows()) + 2
    assert "(3 unusable texts skipped)" in data.source


def test_a_column_that_is_there_twice(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text("text,label,label\n" + "".join(f"{t},{c},1\n" for t, c in rows()))
    with pytest.raises(UserError, match="the header has 'label' twice"):
        load(config("text_csv", dir=str(path)), 0)


def test_made_texts_are_all_different():
    data = load(compose(["data=made_texts"]).data, 0)
    assert data.name == "made_texts"
    assert (len(data.x_train) + len(data.x_val), len(data.x_test)) == (2400, 600)
    assert data.notes == ()


def test_empty_texts_are_left_out_and_counted(tmp_path):
    path = write_csv(tmp_path / "all.csv", [*rows(), ("", "neg")])
    data = load(config("text_csv", dir=str(path), skip_bad=True), 0)
    assert len(data.x_train) + len(data.x_val) + len(data.x_test) == len(rows())
    assert "(1 unusable texts skipped)" in data.source
