"""Labels of each task: several classes an image, numbers, masks; what they may be, and how they are split."""

from __future__ import annotations

import numpy as np
import pytest
from data_sets import config, made

from cnnsweep.data.arrays import Arrays, Dataset
from cnnsweep.data.groups import choose_groups
from cnnsweep.data.loading import load
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError

GIVEN: list[Arrays] = []
LISTS = np.array([[i % 2, (i // 2) % 2, (i // 4) % 2] for i in range(12)])


def given(_: object) -> Arrays:
    return GIVEN[-1]


def loaded(task: str, seed: int = 0, **changes: object) -> Dataset:
    GIVEN.append(made(**changes))
    return load(config(f"{__name__}.given"), seed, task)


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
            {"y_train": np.arange(24.0).reshape(12, 2)},
            r"y_test: 1 targets an image, the training images have",
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
    labels, groups = np.repeat([0, 1], [9, 3]), np.repeat([*"abcd"], 3)
    for seed in range(8):
        chosen = choose_groups(labels, ("cat", "dog"), groups, 0.25, seed, "validation")
        assert chosen.sum() == 3
        assert not chosen[9:].any()
    with pytest.raises(UserError, match=r"all images of class (cat|dog) are of groups that are held out for test"):
        choose_groups(np.repeat([0, 1], 3), ("cat", "dog"), np.repeat([*"ab"], 3), 0.5, 0, "test")


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


def test_a_split_that_would_lose_all_its_images():
    x = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
    GIVEN.append(made(x_train=np.concatenate([x, x]), x_test=x))
    with pytest.raises(UserError, match="no training image is left"):
        load(config(f"{__name__}.given", duplicates="remove"), 0)
