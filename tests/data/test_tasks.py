"""Labels of each task: several classes an image, numbers, masks; what they may be, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from data_sets import config, made

from cnnsweep.data.arrays import Arrays, Dataset
from cnnsweep.data.groups import choose_groups
from cnnsweep.data.labels import Labels
from cnnsweep.data.loading import load
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError

GIVEN: list[Arrays] = []
LISTS = np.array([[i % 2, (i // 2) % 2, (i // 4) % 2] for i in range(12)])


def given(_: object) -> Arrays:
    return GIVEN[-1]


def loaded(task: str, seed: int = 0, settings: Mapping[str, object] | None = None, **changes: object) -> Dataset:
    GIVEN.append(made(**changes))
    return load(config(f"{__name__}.given", **(settings or {})), seed, task)


def test_several_labels_an_image():
    found = loaded("multi_label", y_train=LISTS, y_test=LISTS[:6].astype(bool), class_names=("a", "b", "c"))
    assert (found.task, found.classes, found.y_train.dtype, found.y_test.shape) == ("multi_label", 3, "float32", (6, 3))
    assert "3 labels (a, b, c)" in found.describe()


def test_numbers():
    y = np.arange(12) / 2
    found = loaded("regression", y_train=y, y_test=y[:6])
    assert (found.y_train.shape, found.class_names, len(found.y_val)) == ((10, 1), ("value",), 2)
    assert sorted([*found.y_train[:, 0], *found.y_val[:, 0]]) == y.tolist()
    assert "1 target (value)" in found.describe()


def test_digits_are_their_own_numbers():
    assert loaded("regression", class_names=tuple("0123")).class_names == ("value",)


@pytest.mark.parametrize("y", [1.7e9 + 7200 * np.arange(12), 2**24 - np.arange(12), 1e-9 * np.arange(12)])
def test_numbers_far_from_0_that_float32_tells_apart(y):
    assert len(np.unique(loaded("regression", y_train=y, y_test=y[:6]).y_train)) == 10


def test_masks(tmp_path):
    masks = np.random.default_rng(0).integers(0, 3, (18, 4, 4))
    found = loaded("segmentation", y_train=masks[:12], y_test=masks[12:, :, :, None])
    assert (found.y_train.shape, found.y_test.shape, found.y_train.dtype) == ((10, 4, 4), (6, 4, 4), "uint8")
    assert found.classes == 3
    save(found, tmp_path / "data")
    again = open_saved(tmp_path / "data")
    assert again.task == "segmentation"
    np.testing.assert_array_equal(again.y_val, found.y_val)


@pytest.mark.parametrize(
    ("task", "changes", "error"),
    [
        (
            "classification",
            {"y_train": np.arange(12) / 2},
            r"dtype float64.*numbers to be predicted are task=regression",
        ),
        ("classification", {"y_train": LISTS}, r"shape \(12, 3\).*several classes an image are task=multi_label"),
        ("classification", {"y_train": np.zeros((12, 4, 4), int)}, r"a class for each pixel is task=segmentation"),
        ("multi_label", {}, r"shape \(12,\), expected \(images, labels\) of 0 and 1"),
        ("multi_label", {"y_train": LISTS * 2, "y_test": LISTS[:6]}, r"value 2, expected 0 and 1"),
        ("multi_label", {"y_train": LISTS * [1, 1, 0], "y_test": LISTS[:6]}, r"y_train: no image with label 2"),
        ("multi_label", {"y_train": LISTS, "y_test": LISTS[:6, :2]}, r"2 labels an image, the training images have 3"),
        ("multi_label", {"y_train": LISTS, "y_test": LISTS[:6], "class_names": ("a", "b")}, r"for 2 names of labels"),
        ("regression", {"y_train": np.full(12, np.nan)}, r"NaN or infinite in 12 of 12 labels"),
        ("regression", {"y_train": np.arange(12) * 1e30}, r"y_train: value 1.1e\+31: networks compute with numbers up"),
        ("regression", {"y_train": np.ones(12)}, r"y_train: value is 1 in all images"),
        (
            "regression",
            {"y_train": np.stack([np.arange(12), 1e9 + 2 * np.arange(12)], axis=1), "y_test": np.ones((6, 2))},
            r"y_train: value 2 goes from 1000000000 to 1000000022, .* steps of 64: subtract a constant, or take",
        ),
        (
            "regression",
            {"y_train": 2**53 + np.arange(12)},
            r"y_train: value goes from 9.00719925474e\+15 to .* steps of",
        ),
        (
            "regression",
            {"y_train": np.arange(24.0).reshape(12, 2)},
            r"y_test: 1 targets an image, the training images have",
        ),
        (
            "regression",
            {"class_names": ("1.5", "2.5", "10")},
            r"y_train: 3 names \(1.5, 2.5, 10\), not numbers, for task=regression: numbers are read by data=npz",
        ),
        ("segmentation", {}, r"shape \(12,\), expected \(images, height, width\), the class of each pixel"),
        (
            "segmentation",
            {"y_train": np.arange(12 * 25).reshape(12, 5, 5) % 2, "y_test": np.arange(6 * 16).reshape(6, 4, 4) % 2},
            r"y_train: masks of 5×5 pixels for images of 4×4",
        ),
        (
            "segmentation",
            {"y_train": np.arange(12 * 16).reshape(12, 4, 4) % 2, "y_test": np.arange(6 * 16).reshape(6, 4, 4) % 3},
            r"y_test: label 2, expected 0..1 \(2 classes\)",
        ),
    ],
)
def test_labels_that_do_not_fit_the_task_are_one_clear_error(task, changes, error):
    with pytest.raises(UserError, match=error):
        loaded(task, **changes)


def rare(task: str, count: int) -> dict[str, object]:
    """40 images, of which `count` have label 2, or a pixel of class 2."""
    rng = np.random.default_rng(0)
    x, y = (
        rng.integers(0, 256, (50, 4, 4), np.uint8),
        rng.integers(0, 2, (50, 3) if task == "multi_label" else (50, 4, 4)),
    )
    where = (slice(None), 2) if task == "multi_label" else (slice(None), 0, 0)
    y[where] = 0
    y[(rng.permutation(40)[:count], *where[1:])] = y[(40, *where[1:])] = 1 if task == "multi_label" else 2
    return {"x_train": x[:40], "y_train": y[:40], "x_test": x[40:], "y_test": y[40:]}


def images_with(y: np.ndarray, task: str) -> int:
    return int((y[:, 2] > 0).sum() if task == "multi_label" else (y == 2).any(axis=(1, 2)).sum())


@pytest.mark.parametrize("task", ["multi_label", "segmentation"])
def test_a_rare_label_is_in_every_part_and_fold(task):
    for seed in range(12):
        found = loaded(task, seed, **rare(task, 3))
        assert (images_with(found.y_train, task), images_with(found.y_val, task), found.notes) == (2, 1, ())
        folds = loaded(task, seed, {"folds": 3}, **rare(task, 3))
        assert [images_with(folds.fold(number).y_val, task) for number in (1, 2, 3)] == [1, 1, 1]
    with pytest.raises(
        UserError, match=r"data.folds=5: class 2 has 3 images for training, so that a fold would have no"
    ):
        loaded(task, 0, {"folds": 5}, **rare(task, 3))


@pytest.mark.parametrize(
    ("task", "effect"), [("multi_label", "; f1, fbeta and auc count that as 0"), ("segmentation", "")]
)
def test_the_only_image_of_a_label_trains_and_that_none_validates_is_said(task, effect):
    noun = "pixel" if task == "segmentation" else "image"
    for seed in range(12):
        found = loaded(task, seed, **rare(task, 1))
        assert images_with(found.y_train, task) == 1
        assert found.notes == (f"memory: y_train: the validation part has no {noun} of class 2{effect}",)


def test_a_class_that_the_training_part_loses_is_an_error():
    x = made().x_train
    with pytest.raises(UserError, match="y_train: after the split no image of class 1 is left for training"):
        loaded("classification", 0, {"duplicates": "remove"}, x_test=x[1:7], x_val=x[5:], y_val=made().y_train[5:])


PATIENTS = np.repeat([f"p{number}" for number in range(6)], 2)


def test_a_group_stays_in_one_split():
    x = np.arange(18 * 16, dtype=np.uint8).reshape(18, 4, 4)
    found = loaded("classification", x_train=x[:12], x_test=x[12:], groups={"train": PATIENTS})
    training, validation = ({int(image[0, 0, 0]) // 32 for image in x} for x in (found.x_train, found.x_val))
    assert not training & validation
    assert len(training | validation) == 6
    assert {*found.y_train} == {*found.y_val} == {0, 1}


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        (
            {"train": np.repeat("p", 12)},
            r"all 12 images that could be held out are of one group \(p\): none remains",
        ),
        ({"train": PATIENTS, "test": PATIENTS[:6]}, r"3 groups are in train and in test: p0, p1, p2"),
        ({"train": np.arange(12) % 2}, r"all images of class \d are of groups that are held out for validation"),
    ],
)
def test_groups_that_cannot_be_divided(groups, error):
    with pytest.raises(UserError, match=error):
        loaded("classification", groups=groups)


def test_a_class_of_one_group_stays_in_the_training_data():
    labels, groups = Labels(np.repeat([0, 1], [9, 3]), "classification", ("cat", "dog")), np.repeat([*"abcd"], 3)
    for seed in range(8):
        chosen = choose_groups(labels, groups, 0.25, seed, "validation")
        assert chosen.sum() == 3
        assert not chosen[9:].any()
    with pytest.raises(UserError, match=r"all images of class (cat|dog) are of groups that are held out for test"):
        choose_groups(labels.at(np.arange(6, 12)), groups[6:], 0.5, 0, "test")


def test_groups_of_many_small_classes_are_divided():
    labels = Labels(np.repeat(np.arange(20), 8), "classification", tuple(map(str, range(20))))
    assert choose_groups(labels, np.arange(160) // 2, 0.1, 0, "validation").sum() == 16


def shared() -> dict[str, object]:
    """Of the test images two are among the training images, of which one stands there twice."""
    x = np.random.default_rng(1).integers(0, 256, (18, 4, 4), np.uint8)
    x[[12, 13]] = x[[0, 1]]
    x[2] = x[0]
    return {"x_train": x[:12], "x_test": x[12:], "names": {"train": [f"train/{i}.png" for i in range(12)],
                                                            "test": [f"test/{i}.png" for i in range(6)]}}  # fmt: skip


def test_images_of_the_same_content_in_two_splits_are_named():
    GIVEN.append(made(**shared()))
    found = load(config(f"{__name__}.given"), 0)
    text = found.describe()
    assert "in the test data too (train/0.png = test/0.png" in text
    assert "data.duplicates=remove leaves these out" in text
    with pytest.raises(UserError, match=r"data.duplicates=refuse: the splits have images in common"):
        load(config(f"{__name__}.given", duplicates="refuse"), 0)
    removed = load(config(f"{__name__}.given", duplicates="remove"), 0)
    assert len(removed.x_train) + len(removed.x_val) == 9
    assert len(removed.x_test) == 6
    assert removed.digest != found.digest


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_copies_of_another_class_are_named(kind):
    x, y = np.random.default_rng(0).integers(0, 256, (18, 4, 4)).astype(kind), np.arange(18) % 2
    x[0], x[3], x[17] = x[4], x[2], x[2]
    GIVEN.append(made(x_train=x[:12].astype(np.uint8), x_test=x[12:], y_test=y[12:]))
    notes = load(config(f"{__name__}.given"), 0).notes
    assert any("in the test data too (train[" in note for note in notes)
    assert any("1 image has copies of another class (train[" in note and "no network" in note for note in notes)


def test_classes_that_are_spelt_alike_are_named():
    GIVEN.append(made(class_names=("T-shirt", "t shirt")))
    assert load(config(f"{__name__}.given"), 0).notes == ("'T-shirt' and 't shirt' are two classes",)


def test_copies_that_folds_would_divide_are_named():
    x = np.random.default_rng(0).integers(0, 256, (18, 4, 4), np.uint8)
    x[6:8] = x[0]
    GIVEN.append(made(x_train=x[:12], x_test=x[12:]))
    text = "2 training images are copies of others, which may be in two folds"
    assert text in load(config(f"{__name__}.given", folds=2), 0).describe()
    with pytest.raises(UserError, match=f"data.duplicates=refuse: {text}"):
        load(config(f"{__name__}.given", folds=2, duplicates="refuse"), 0)
    removed = load(config(f"{__name__}.given", folds=2, duplicates="remove"), 0)
    assert (len(removed.x_train), len(np.unique(removed.x_train, axis=0))) == (10, 10)
    GIVEN.append(made(x_train=x[:12], x_test=x[12:], groups={"train": np.arange(12) % 6 - (np.arange(12) == 7)}))
    assert "copies of others" not in load(config(f"{__name__}.given", folds=2), 0).describe()


def test_a_split_that_would_lose_all_its_images():
    x = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
    GIVEN.append(made(x_train=np.concatenate([x, x]), x_test=x))
    with pytest.raises(UserError, match="no training image is left"):
        load(config(f"{__name__}.given", duplicates="remove"), 0)
