"""Images with a table of labels."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from data_sets import config
from PIL import Image

from cnnsweep.data.arrays import Dataset
from cnnsweep.data.loading import load
from cnnsweep.errors import UserError

FILES = {"test": 0.2, "image_size": 8, "resize": "crop", "color": "grey", "max_megapixels": 1, "skip_bad": False}


def folder(root: Path, table: str, images: int = 20, below: str = "images") -> Path:
    (root / below).mkdir(parents=True, exist_ok=True)
    for number in range(images):
        Image.fromarray(np.full((8, 8), 10 * number, np.uint8)).save(root / below / f"{number}.png")
    (root / "labels.csv").write_text(table, encoding="utf-8")
    return root


def loaded(root: Path, task: str, **changes: object) -> Dataset:
    base = {**FILES, "dir": str(root), "labels": "labels.csv", "columns": None, "task": task, "cache": str(root / "c")}
    return load(config("cnnsweep.data.image_table.load", **{**base, **changes}), 0, task)


def rows(header: str, *values: str, images: int = 20) -> str:
    return "\n".join([header, *(f"{i}.png,{values[i % len(values)]}" for i in range(images))]) + "\n"


def test_one_column_of_classes(tmp_path):
    found = loaded(folder(tmp_path, rows("file,class", "2", "10")), "classification")
    assert found.class_names == ("2", "10")
    found = loaded(folder(tmp_path / "signs", rows("file,class", "10²", "①")), "classification")
    assert found.class_names == ("10²", "①")
    np.testing.assert_array_equal((found.x_train[:, 0, 0, 0] // 10) % 2, found.y_train)
    assert (len(found.x_train), len(found.x_val), len(found.x_test)) == (13, 3, 4)


def test_classes_of_one_number_have_one_order_in_each_process(tmp_path):
    """A set of texts has another order in each."""
    labels = sorted("0" * zeros + "1" for zeros in range(5))
    found = loaded(folder(tmp_path, rows("file,class", *labels)), "classification", validation=0.25, test=0.25)
    assert found.class_names == (*labels,)


@pytest.mark.parametrize(
    ("header", "values"),
    [("file,red,round", ("1,0", "0,1", "1,1", "0,0")), ("file;tags", ("red", "round", "red|round", ""))],
)
def test_labels_as_columns_or_as_lists(tmp_path, header, values):
    table = rows(header, *values)
    found = loaded(folder(tmp_path, table.replace(",", ";") if ";" in header else table), "multi_label")
    assert found.class_names == ("red", "round")
    for image, label in zip(found.x_test, found.y_test, strict=True):
        assert label.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]][int(image[0, 0, 0]) // 10 % 4]


def test_numbers_with_splits_and_groups(tmp_path):
    lines = [f"{i}.png,{i / 2},{('train', 'test')[i > 15]},p{i // 4}" for i in range(20)]
    found = loaded(folder(tmp_path, "\n".join(["file,age,split,group", *lines]), below="."), "regression")
    assert (found.class_names, len(found.x_test)) == (("age",), 4)
    assert np.allclose(found.y_test[:, 0], found.x_test[:, 0, 0, 0] / 20)
    groups = [{int(image[0, 0, 0]) // 40 for image in x} for x in (found.x_train, found.x_val)]
    assert not groups[0] & groups[1]


def test_files_may_lie_anywhere(tmp_path):
    folder(tmp_path, "", below="images")
    root = folder(tmp_path / "data", rows("file,class", "2", "10"), images=10, below=".")
    (root / "labels.csv").write_text(rows("file,class", "2", "10").replace("\n1", f"\n{tmp_path}/images/1"))
    found = loaded(root, "classification")
    assert len(found.x_train) + len(found.x_val) + len(found.x_test) == 20


@pytest.mark.parametrize("given", ["{}", r"images\{}.png"], ids=["without suffix", "of Windows"])
def test_files_may_be_named_otherwise(tmp_path, given):
    table = "file,class\n" + "".join(f"{given.format(number)},{'ab'[number > 9]}\n" for number in range(20))
    found = loaded(folder(tmp_path, table), "classification")
    np.testing.assert_array_equal(found.x_train[:, 0, 0, 0] > 90, found.y_train)


@pytest.mark.parametrize(("given", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_file_names_may_be_composed_or_not(tmp_path, given, stored):
    table = rows("file,class", "a", "b").replace("0.png", "é0.png")
    root = folder(tmp_path, unicodedata.normalize(given, table))
    for number in (0, 10):
        name = f"{number}.png".replace("0.png", unicodedata.normalize(stored, "é0.png"))
        (root / "images" / f"{number}.png").rename(root / "images" / name)
    assert len(loaded(root, "classification").x_test) == 4


@pytest.mark.parametrize("task", ["classification", "multi_label"])
def test_accents_of_classes_may_be_composed_or_not(tmp_path, task):
    root = folder(tmp_path, rows("file,clasé", "\u00e9", "b", "e\u0301"))
    assert loaded(root, task, columns=["clase\u0301"]).class_names == ("b", "\u00e9")


def test_other_labels_are_other_data(tmp_path):
    first = loaded(folder(tmp_path, rows("file,age", "1", "2")), "regression")
    again = loaded(folder(tmp_path, rows("file,age", "1", "3")), "regression")
    assert first.digest != again.digest


@pytest.mark.parametrize(
    ("table", "changes", "error"),
    [
        (rows("file,age", "1", "1_000"), {}, r"labels.csv, line 3: age is '1_000', expected a number"),
        (rows("file,age", "1", "old"), {}, r"labels.csv, line 3: age is 'old', expected a number"),
        (rows("file,age", "1", images=21), {}, r"line 22: no file '20.png'\n.*skip_bad=true"),
        (rows("file,age,split", "1,train", "2,tset"), {}, r"line 3: split is 'tset' \(train, val or test\)"),
        (rows("file,age", "1") + "1.png,1\n", {}, r"line 22: '1.png' is given twice, first in line 3"),
        (
            rows("file,age", "1") + "./1.png,1\nimages/2.png,1",
            {},
            r"line 22: './1.png' is .*\n.* 'images/2.png' is given",
        ),
        ("\n" * 4999 + rows("file,age", "1") + "1.png,1\n", {}, r"line 5021: '1.png' is given twice"),
        ("\n\n" + rows("file,age", "1", "old"), {}, r"labels.csv, line 5: age is 'old'"),
        (rows("file,age,age", "1,2"), {}, r"labels.csv: the header has 'age' twice"),
        (rows("file,age", "1") + "1.png\n", {}, r"line 22: 1 values, the header has 2"),
        (rows("0.png,1", "1"), {}, r"labels.csv: its first line names the file '0.png', expected a header"),
        ("file,age\n", {}, r"expected a header \(file,LABEL …\) and a row for each image"),
        (rows("file,year", "1700000001", "1700000002"), {}, r"year goes from .*: subtract a constant"),
        (
            "id,file,age\n" + "".join(f"{i},{19 - i}.png,{i}\n" for i in range(20)),
            {"columns": ["age"]},
            r"its first column 'id' names no file, but 'file' does: make it the first$",
        ),
        (rows("file,age", "1").replace("png", "gif"), {}, r"line 2: no file '0.gif' in .*, nor any other of the 20$"),
        (rows("file,age", "1", "2"), {"columns": ["aeg"]}, r"has no column 'aeg', did you mean 'age'"),
        (rows("file,age", "1", "2"), {"labels": "label.csv"}, r"has no label.csv, did you mean 'labels.csv'"),
        (rows("file,age", "1", "2"), {"group": "patient"}, r"'patient' is not found in 20 names: images/0.png"),
        (rows("file,age", "1", "2"), {"group": "(p"}, r"'\(p' is no regular expression"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, table, changes, error):
    with pytest.raises(UserError, match=error):
        loaded(folder(tmp_path, table), "regression", **changes)


def test_lists_of_code_are_no_labels(tmp_path):
    root = folder(tmp_path, rows("file;tags", "['red', 'round']", "['red']").replace("png,", "png;"))
    with pytest.raises(UserError, match=r"line 2: '\['red', 'round'\]' is a list in code, expected .* red;round"):
        loaded(root, "multi_label")


def test_a_class_is_one_column(tmp_path):
    root = folder(tmp_path, rows("file,kind,age", "a,1", "b,2"))
    with pytest.raises(UserError, match=r"2 columns of labels \(kind, age\), of which task=classification takes one"):
        loaded(root, "classification")
    assert loaded(root, "classification", columns=["kind"]).class_names == ("a", "b")
