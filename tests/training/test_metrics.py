"""The losses and metrics of each task: Keras' own values, and those that Keras does not have against scikit-learn's."""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn import metrics as sk
from trials import reloaded

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Training
from cnnsweep.config.tasks import LABELS, LOSSES, METRICS, SHORT, Task
from cnnsweep.training.metrics import OWN, make_loss, make_metrics, needs_one_hot, relative

RNG = np.random.default_rng(0)
Y, SCORES = RNG.integers(0, 3, 200), RNG.dirichlet([1, 1, 1], 200).astype("float32")
FIT = [(loss, task) for loss, kind in LOSSES.items() for task in kind.tasks]


def training(**changes: object) -> Training:
    return compose().training.replace(**changes)


def outputs(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Labels and a network's outputs, as they are in each task."""
    if task == "classification":
        return Y, SCORES
    if task == "segmentation":
        return Y.reshape(8, 5, 5), SCORES.reshape(8, 5, 5, 3)
    if task == "multi_label":
        return RNG.integers(0, 2, (200, 3)).astype("float32"), SCORES
    return RNG.random((200, 3)).astype("float32"), SCORES


@pytest.mark.parametrize("kind", [*LOSSES.values(), *METRICS.values()], ids=lambda kind: kind.keras)
def test_the_settings_are_those_of_keras(kind):
    owner = keras.losses if kind in LOSSES.values() else keras.metrics
    known = inspect.signature(OWN.get(kind.keras) or getattr(owner, kind.keras)).parameters
    assert {*kind.settings, *kind.defaults} <= {*known}
    assert {*kind.needed} == {
        name for name, p in known.items() if p.default is p.empty and p.kind != p.VAR_KEYWORD and name != "num_classes"
    }


@pytest.mark.parametrize(("loss", "task"), FIT)
def test_every_loss_is_a_number_on_the_labels_of_its_tasks(loss, task):
    chosen = training(loss=loss, metrics=["auc"] if task == "multi_label" else "auto")
    y, scores = outputs(task)
    one_hot = needs_one_hot(chosen, task)
    value = make_loss(chosen, task, one_hot)(np.eye(3, dtype="float32")[y] if one_hot else y, scores)
    assert np.isfinite(float(value))


@pytest.mark.parametrize(("loss", "task"), FIT)
def test_a_model_with_any_loss_and_all_metrics_of_its_task_loads_with_keras_alone(loss, task, tmp_path):
    names = [name for name, kind in METRICS.items() if task in kind.tasks]
    metrics = [{"name": name, **dict.fromkeys(METRICS[name].needed, 0.5)} for name in names]
    metrics = [each for each in metrics if LOSSES[loss].takes == "either" or METRICS[each["name"]].takes == "either"]
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Dense(3, "softmax")])
    chosen = training(loss=loss, metrics=metrics)
    one_hot = needs_one_hot(chosen, task)
    kept = make_metrics(chosen, task, 3, one_hot, own=False)
    model.compile("sgd", make_loss(chosen, task, one_hot), kept)
    model.optimizer.build(model.trainable_variables)
    loaded = reloaded(model, tmp_path)
    assert type(loaded.loss) is type(model.loss)
    assert len(kept) > 0


@pytest.mark.parametrize("task", LABELS)
def test_every_metric_is_a_number_between_its_bounds(task):
    names = [name for name, kind in METRICS.items() if task in kind.tasks]
    entries = [{"name": name, **dict.fromkeys(METRICS[name].needed, 0.5)} for name in names]
    for group in ([e for e in entries if METRICS[e["name"]].takes != "one_hot"], entries):
        chosen = training(metrics=group)
        y, scores = outputs(task)
        one_hot = needs_one_hot(chosen, task)
        made = make_metrics(chosen, task, 3, one_hot)
        assert [metric.name for metric in made] == [entry["name"] for entry in group]
        for metric in made:
            metric.update_state(np.eye(3, dtype="float32")[y] if one_hot else y, scores)
            value = float(metric.result())
            assert np.isfinite(value), metric.name
            assert METRICS[metric.name].direction == "min" or value <= 1


@pytest.mark.parametrize("one_hot", [False, True])
def test_balanced_accuracy_and_dice_are_those_of_scikit_learn(one_hot):
    y = np.where(Y == 2, 1, Y)  # a class that is not there, but is predicted
    chosen = training(metrics=["balanced_accuracy", "dice", "iou"])
    made = {metric.name: metric for metric in make_metrics(chosen, "segmentation", 3, one_hot)}
    for start in range(0, 200, 50):
        some = y[start : start + 50]
        for metric in made.values():
            metric.update_state(np.eye(3)[some] if one_hot else some, SCORES[start : start + 50])
    predicted = SCORES.argmax(axis=1)
    recalls = [np.mean(predicted[y == label] == label) for label in (0, 1)]
    assert float(made["balanced_accuracy"].result()) == pytest.approx(np.mean(recalls))
    assert float(made["dice"].result()) == pytest.approx(sk.f1_score(y, predicted, average="macro"))
    assert float(made["iou"].result()) == pytest.approx(sk.jaccard_score(y, predicted, average="macro"))


def measured(task: Task, metrics: list[object], y: np.ndarray, scores: np.ndarray) -> list[float]:
    """The metrics of labels that are vectors with a 1, in batches of unequal size."""
    made = make_metrics(training(metrics=metrics), task, scores.shape[1], True)
    for metric in made:
        for some in np.array_split(np.arange(len(y)), 7):
            metric.update_state(y[some], scores[some])
    return [float(metric.result()) for metric in made]


def confident(logits: np.ndarray) -> np.ndarray:
    """Probabilities in float32."""
    return np.asarray(keras.ops.softmax(logits.astype("float32")))


@pytest.mark.parametrize("confidence", [1, 30])
def test_curves_are_those_of_scikit_learn_however_confident_a_network_is(confidence):
    y = RNG.choice(2, 4000, p=[0.8, 0.2])
    scores = confident(confidence * (RNG.normal(size=(4000, 2)) + np.eye(2)[y]))
    at = [{"name": "precision_at_recall", "recall": 0.6, "class_id": 1}]
    at += [{"name": "sensitivity_at_specificity", "specificity": 0.7, "class_id": 1}]
    found = measured("classification", ["auc", *at], np.eye(2)[y], scores)
    found += measured("classification", [{"name": "auc", "curve": "PR"}], np.eye(2)[y], scores)
    precision, recall, _ = sk.precision_recall_curve(y, scores[:, 1])
    false, true, _ = sk.roc_curve(y, scores[:, 1])
    area = np.mean([sk.average_precision_score(y == label, scores[:, label]) for label in (0, 1)])
    expected = [sk.roc_auc_score(y, scores[:, 1]), precision[recall >= 0.6].max(), true[false <= 0.3].max(), area]
    assert found == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize("task", ["classification", "multi_label"])
def test_classes_that_validation_does_not_have_lower_no_mean(task):
    y = np.eye(3)[RNG.integers(0, 2, 500)]
    scores = confident(RNG.normal(size=(500, 3)) + 2 * y - [0, 0, 30])
    taken = np.eye(2)[scores.argmax(axis=1)] if task == "classification" else scores[:, :2] > 0.5
    found = measured(task, ["f1", {"name": "fbeta", "beta": 0.5}, "auc"], y, scores)
    expected = [sk.f1_score(y[:, :2], taken, average="macro")]
    expected += [sk.fbeta_score(y[:, :2], taken, beta=0.5, average="macro")]
    assert found == pytest.approx([*expected, sk.roc_auc_score(y[:, :2], scores[:, :2])], abs=1e-3)
    (area,) = measured(task, [{"name": "auc", "curve": "PR"}], y, scores)
    assert area == pytest.approx(sk.average_precision_score(y[:, :2], scores[:, :2]), abs=1e-2)


def test_settings_may_be_whole_numbers():
    entries = [{"name": "fbeta", "beta": 2}, {"name": "f1", "threshold": 1}]
    found = measured("classification", entries, np.eye(3)[Y], SCORES)
    assert found == pytest.approx([sk.fbeta_score(Y, SCORES.argmax(axis=1), beta=2, average="macro"), 0])


def test_metrics_of_vectors_make_the_labels_vectors_and_change_no_loss():
    plain, scored = training(), training(metrics=["accuracy", "f1"])
    assert (needs_one_hot(plain, "classification"), needs_one_hot(scored, "classification")) == (False, True)
    numbers, vectors = make_loss(plain, "classification", False), make_loss(scored, "classification", True)
    assert float(numbers(Y, SCORES)) == pytest.approx(float(vectors(np.eye(3)[Y], SCORES)), rel=1e-6)
    assert needs_one_hot(training(loss_settings={"label_smoothing": 0.1}), "classification")
    assert needs_one_hot(training(loss="dice", metrics=["dice"]), "segmentation"), "of one name, and of two kinds"


@pytest.mark.parametrize(("short", "name"), SHORT.items())
def test_short_names_are_metrics(short, name):
    task = METRICS[name].tasks[0]
    (metric,) = make_metrics(training(metrics=[short]), task, 3, True)
    assert metric.name == short


@pytest.mark.parametrize(("mean", "spread"), [(0, 1), (2000, 1), (1e6, 10), (-1e5, 1)])
def test_r2_is_that_of_scikit_learn_however_far_the_values_are_from_zero(mean, spread):
    y = (mean + spread * RNG.normal(size=(1000, 2))).astype("float32")
    predicted = (y + 0.5 * spread * RNG.normal(size=y.shape)).astype("float32")
    (metric,) = make_metrics(training(metrics=["r2"]), "regression", 1, one_hot=False)
    for _ in range(2):  # the second time after a reset
        metric.reset_state()
        for start in range(0, 1000, 300):
            metric.update_state(y[start : start + 300], predicted[start : start + 300])
        assert float(metric.result()) == pytest.approx(sk.r2_score(y.astype(float), predicted.astype(float)), abs=1e-4)


def test_r2_of_equal_values_is_1_for_the_right_ones_and_0_for_others():
    y = np.full((10, 1), 3.0, "float32")
    for shift, expected in ((0, 1.0), (1, 0.0)):
        (metric,) = make_metrics(training(metrics=["r2"]), "regression", 1, one_hot=False)
        metric.update_state(y, y + np.float32(shift))
        assert float(metric.result()) == expected


def test_the_gradient_of_a_squared_error_is_divided_by_the_variance_of_each_target():
    import tensorflow as tf

    y = (RNG.normal(size=(500, 2)) * [0.01, 1000.0]).astype("float32")
    predicted, gradients = tf.Variable(y + 1), []
    for loss in (keras.losses.MeanSquaredError(), relative(keras.losses.MeanSquaredError(), y)):
        with tf.GradientTape() as tape:
            value = loss(y, predicted)
        gradients.append(tape.gradient(value, predicted).numpy())
        assert float(value) == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(gradients[1], gradients[0] / y.var(axis=0), rtol=1e-3)


WITH_JAX = """
import jax, keras, numpy as np
from cnnsweep.config.compose import compose
from cnnsweep.training.metrics import Relative, make_metrics
y, predicted = np.zeros((4, 2), "float32"), np.arange(8, dtype="float32").reshape(4, 2)
loss = Relative(keras.losses.MeanSquaredError(), np.array([2.0, 10.0], "float32"))
assert float(loss(y, predicted)) == 17.5
gradient = jax.jit(jax.grad(lambda values: loss(y, values)))(predicted)
np.testing.assert_allclose(gradient, predicted / 4 * [2, 10])
(metric,) = make_metrics(compose().training.replace(metrics=["r2"]), "regression", 1, one_hot=False)
metric.update_state(predicted + 1e6, predicted + 1e6)
metric.reset_state()
state = [variable.value for variable in metric.variables]
state = jax.jit(metric.stateless_update_state)(state, predicted + 1e6, predicted + 1e6 + 1)
assert abs(float(metric.stateless_result(state)) - 0.8) < 1e-3
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
def test_relative_losses_and_r2_with_jax():
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", WITH_JAX], env=environment, check=True, timeout=120)
