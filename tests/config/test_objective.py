"""Which of two results is better."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective, front, read
from cnnsweep.config.tasks import METRICS as KINDS
from cnnsweep.config.tasks import SHORT, measured
from cnnsweep.errors import UserError

METRICS = measured("auto", "classification")
UNET = ("model=unet", "space=none")
DIRECTIONS = {"val_accuracy": "max", "accuracy": "max", "val_loss": "min", "loss": "min"}


@pytest.mark.parametrize("metric", METRICS)
def test_losses_are_minimised_and_accuracies_maximised(metric):
    assert Objective.of(metric).direction == DIRECTIONS[metric]


@given(st.lists(st.floats(allow_nan=False)))
def test_the_best_is_the_first_extreme(values):
    for metric, extreme in (("val_loss", min), ("val_accuracy", max)):
        expected = values.index(extreme(values)) if values else None
        assert Objective.of(metric).best(values) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_nan_never_wins_and_anything_beats_it(metric):
    objective = Objective.of(metric)
    assert objective.best([math.nan, 0.5, math.nan]) == 1
    assert objective.best([math.nan]) is None
    assert objective.better(0.5, math.nan)
    assert objective.better(0.5, None)
    assert not objective.better(math.nan, None)
    assert not objective.better(0.5, 0.5)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("val_loss", "val_loss"),
        ({"val_loss": "min"}, "val_loss"),
        (["val_accuracy"], "val_accuracy"),
        ("auto", "val_accuracy"),
        (["val_accuracy", "parameters"], ["val_accuracy", "parameters"]),
        ([{"mmacs": "min"}, {"val_accuracy": "max"}], ["mmacs", "val_accuracy"]),
    ],
)
def test_what_an_objective_may_be(given, normal):
    assert read(given, METRICS) == normal
    assert Objective.of(json.dumps(normal) if isinstance(normal, list) else normal) == Objective.of(normal)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["val_accuracy", "paramters"], r"unknown objective 'paramters', did you mean 'parameters'"),
        ({"val_accuracy": "min"}, r"val_accuracy: min contradicts it: val_accuracy is better the larger it is"),
        ([{"parameters": "max"}, "loss"], r"parameters is better the smaller it is"),
        ({"val_loss": "down"}, r"unknown direction of objective val_loss 'down' \(one of: max, min\)"),
        (
            "val_f1",
            r"val_f1 is not measured \(measured: val_accuracy, val_loss, accuracy, loss\); add f1",
        ),
        (["parameters", "mmacs"], r"parameters, mmacs is known without training; add one of val_accuracy"),
        ([], r"an empty list"),
        (["loss", "loss"], r"loss is given twice"),
    ],
)
def test_what_an_objective_may_not_be(given, error):
    with pytest.raises(UserError, match=error):
        read(given, METRICS)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_front_is_what_nothing_dominates(points):
    best = [points[index] for index in front(points)]
    assert best
    for point in points:
        assert any(a <= point[0] and b <= point[1] for a, b in best)
    assert not any(a != b and a[0] <= b[0] and a[1] <= b[1] for a in best for b in best)


@pytest.mark.parametrize("name", [*KINDS, *SHORT])
def test_errors_and_losses_are_minimised_all_other_metrics_maximised(name):
    smaller = ("error", "crossentropy", "mae", "mse", "rmse", "mape", "msle")
    assert Objective.of(f"val_{name}").direction == ("min" if name.endswith(smaller) else "max")


@pytest.mark.parametrize(
    ("overrides", "objective"),
    [
        (["training.metrics=[balanced_accuracy,accuracy]"], "val_balanced_accuracy"),
        (["training.metrics=[accuracy,{name: auc, curve: PR}]", "objective=val_auc"], "val_auc"),
        (["training.metrics=[accuracy,top_3]", "objective=[val_top_3,val_loss]"], ["val_top_3", "val_loss"]),
        (["task=regression"], "val_mae"),
        (["task=segmentation", *UNET, "training.loss=dice"], "val_iou"),
        (["task=multi_label", "training.loss_settings={label_smoothing: 0.1}"], "val_f1"),
    ],
)
def test_a_config_with_metrics(overrides, objective):
    assert compose(overrides).objective == objective


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("task=clasification", r"unknown task 'clasification', did you mean 'classification'"),
        (
            "training.loss=huber",
            r"huber does not fit task=classification, whose labels are one class an image",
        ),
        ("training.loss=cross_entropy", r"unknown training.loss 'cross_entropy'.*categorical_crossentropy"),
        (
            "training.loss_settings={smoothing: 1}",
            r"setting of categorical_crossentropy .* 'smoothing', did you mean",
        ),
        ("training.metrics=[acuracy]", r"unknown training.metrics 'acuracy', did you mean 'accuracy'"),
        ("training.metrics=[mae]", r"mae does not fit task=classification \(metrics that do: accuracy, balanced"),
        ("training.metrics=[f1,f1]", r"f1 is given twice"),
        ("training.metrics=[{name: f1, avrage: micro}]", r"did you mean 'average'"),
        ("training.metrics=[{name: f1, average: null}]", r"average=null gives a number for each class"),
        ("training.metrics=[{name: f1, average: makro}]", r"unknown average .* 'makro', did you mean 'macro'"),
        ("training.metrics=[{name: auc, curve: RC}]", r"unknown curve in training.metrics: auc 'RC'.*ROC"),
        ("training.metrics=[{name: auc, num_thresholds: 1}]", r"auc: num_thresholds: 1 \(must be at least 2\)"),
        ("training.metrics=[{name: fbeta, beta: 0}]", r"fbeta: beta: 0 \(must be above 0\)"),
        ("training.metrics=[{name: fbeta, beta: two}]", r"fbeta: beta: 'two' is not a number"),
        ("training.metrics=[{name: precision, thresholds: [0.3, 0.5]}]", r"gives 2 numbers: take one threshold"),
        ("training.metrics=[{name: recall, class_id: 1.5}]", r"recall: class_id: 1.5 is not a whole number"),
        ("training.metrics=[{name: recall_at_precision, precision: 2}]", r"precision: 2 \(must be from 0 to 1\)"),
        ("training.loss_settings={label_smoothing: 2}", r"label_smoothing: 2 \(must be from 0 to 1\)"),
        ("training.loss_settings={label_smoothing: some}", r"label_smoothing: 'some' is not a number"),
        ("training.metrics=[precision_at_recall]", r"precision_at_recall: needs `recall`"),
        ("training.metrics=accuracy", r"expected auto or a list such as \[accuracy\], got 'accuracy'"),
        ("training.class_weights=balance", r"'balance' \(none, balanced, or"),
        ("training.class_weights={a: -1}", r"training.class_weights: a: expected .* weights from 0"),
    ],
)
def test_what_does_not_fit_a_task_is_one_error_before_any_data_is_read(override, error):
    with pytest.raises(UserError, match=error):
        compose([override])


@pytest.mark.parametrize("entry", ["values=[0.1,2]", "max=2"])
def test_searched_settings_of_losses_are_checked_as_those_that_are_set(entry):
    keys = ["training.loss_settings.label_smoothing=0.1", "+space.training.loss_settings.label_smoothing.min=0.0"]
    with pytest.raises(UserError, match=r"space.training.loss_settings: label_smoothing: 2 \(must be from 0 to 1\)"):
        compose([*keys[: 1 if "values" in entry else 2], f"+space.training.loss_settings.label_smoothing.{entry}"])


def test_trials_of_different_losses_are_not_compared_by_them():
    searched = "+space.training.loss.values=[categorical_crossentropy,categorical_focal_crossentropy]"
    assert compose([searched]).objective == "val_accuracy"
    with pytest.raises(UserError, match="different losses"):
        compose([searched, "objective=val_loss"])
    with pytest.raises(UserError, match="mean_squared_error does not fit"):
        compose(["+space.training.loss.values=[auto,mean_squared_error]"])


def test_class_weights_need_classes():
    with pytest.raises(UserError, match="but task=regression has numbers"):
        compose(["task=regression", "training.class_weights=balanced"])
    for losses in ("training.loss=dice", "+space.training.loss.values=[auto,dice]"):
        with pytest.raises(UserError, match="dice is a loss of whole images"):
            compose(["task=segmentation", *UNET, losses, "training.class_weights=balanced"])


@pytest.mark.parametrize("metric", ["iou", "dice"])
def test_a_mean_over_classes_leaves_none_out(metric):
    """With `ignore_class` Keras counts that class as one without a right pixel wherever it is predicted."""
    with pytest.raises(UserError, match=f"unknown setting of training.metrics: {metric} 'ignore_class'"):
        compose(["task=segmentation", *UNET, f"training.metrics=[{{name: {metric}, ignore_class: 0}}]"])


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["task=segmentation"], r"cnn.build has no output for task=segmentation: choose model=unet"),
        (UNET, r"unet.build has no output for task=classification: choose model=cnn"),
        (["task=segmentation", *UNET, "data.augment.flip=true"], r"data.augment: changes images without their masks"),
    ],
)
def test_a_model_family_fits_its_tasks(overrides, error):
    with pytest.raises(UserError, match=error):
        compose(overrides)
