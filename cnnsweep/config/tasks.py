"""Tasks, and the losses and metrics that fit each: listed, so that a wrong name is found without loading Keras."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cnnsweep.config.measure_settings import OF_LOSSES, OF_METRICS, check_values
from cnnsweep.config.section import Plain
from cnnsweep.errors import UserError, unknown

Direction = Literal["max", "min"]
Task = Literal["classification", "multi_label", "regression", "segmentation"]
LABELS: Mapping[Task, str] = {
    "classification": "one class an image",
    "multi_label": "any number of classes an image",
    "regression": "numbers",
    "segmentation": "one class a pixel",
}
"""What is to be predicted in each task."""
Named = str | Plain
"""The name of a metric, or {name: NAME, SETTING: VALUE}; of one of the user's own {_target_: module.Class, …}."""
TARGET = "_target_"


@dataclass(frozen=True)
class Kind:
    """A loss or a metric: a class of `keras.losses` or `keras.metrics`, or one of `cnnsweep.training.metrics`."""

    keras: str
    tasks: tuple[Task, ...]
    settings: tuple[str, ...] = ()
    """The arguments that may be given."""
    needed: tuple[str, ...] = ()
    """Those of them that must be."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    direction: Direction = "max"
    takes: Literal["one_hot", "numbers", "either"] = "either"
    """The form of class labels that it takes: one number a label, or a vector with a 1. `either`: there are two
    classes in Keras, the one for numbers with `Sparse` before its name."""


ONE_CLASS: tuple[Task, ...] = ("classification", "segmentation")
_SMOOTH, _FOCAL = ("label_smoothing",), ("alpha", "gamma", "label_smoothing")
LOSSES: Mapping[str, Kind] = {
    "categorical_crossentropy": Kind("CategoricalCrossentropy", ONE_CLASS, _SMOOTH),
    "sparse_categorical_crossentropy": Kind("CategoricalCrossentropy", ONE_CLASS),
    "categorical_focal_crossentropy": Kind("CategoricalFocalCrossentropy", ONE_CLASS, _FOCAL, takes="one_hot"),
    "categorical_generalized_cross_entropy": Kind(
        "CategoricalGeneralizedCrossEntropy", ONE_CLASS, ("q",), takes="numbers"
    ),
    "categorical_hinge": Kind("CategoricalHinge", ONE_CLASS, takes="one_hot"),
    "kl_divergence": Kind("KLDivergence", ONE_CLASS, takes="one_hot"),
    "binary_crossentropy": Kind("BinaryCrossentropy", ("multi_label",), _SMOOTH),
    "binary_focal_crossentropy": Kind("BinaryFocalCrossentropy", ("multi_label",), ("apply_class_balancing", *_FOCAL)),
    "dice": Kind("Dice", ("segmentation", "multi_label"), takes="one_hot"),
    "tversky": Kind("Tversky", ("segmentation", "multi_label"), ("alpha", "beta"), takes="one_hot"),
    "mean_squared_error": Kind("MeanSquaredError", ("regression",)),
    "mean_absolute_error": Kind("MeanAbsoluteError", ("regression",)),
    "mean_absolute_percentage_error": Kind("MeanAbsolutePercentageError", ("regression",)),
    "mean_squared_logarithmic_error": Kind("MeanSquaredLogarithmicError", ("regression",)),
    "huber": Kind("Huber", ("regression",), ("delta",)),
    "log_cosh": Kind("LogCosh", ("regression",)),
    "cosine_similarity": Kind("CosineSimilarity", ("regression",)),
}
OF_THE_USER = Kind("", (*LABELS,), takes="one_hot")
"""A loss or a metric that `_target_` names; it gets classes as vectors with a 1."""
REGION_LOSSES = ("dice", "tversky")
"""Of whole images: a pixel has no loss of its own that could have a weight."""

_SCORED: tuple[Task, ...] = ("classification", "multi_label")
_AUC = ("num_thresholds", "curve")
_ONE = ("class_id", "num_thresholds")
_FINE = {"num_thresholds": 1000}
METRICS: Mapping[str, Kind] = {
    "accuracy": Kind("CategoricalAccuracy", ("classification", "multi_label", "segmentation")),
    "balanced_accuracy": Kind("BalancedAccuracy", ONE_CLASS),
    "f1_score": Kind("F1Score", _SCORED, ("average", "threshold"), defaults={"average": "macro"}, takes="one_hot"),
    "fbeta_score": Kind(
        "FBetaScore", _SCORED, ("average", "beta", "threshold"), defaults={"average": "macro"}, takes="one_hot"
    ),
    "auc": Kind("AUC", _SCORED, _AUC, defaults={"multi_label": True, **_FINE}, takes="one_hot"),
    "precision": Kind("Precision", _SCORED, ("thresholds", "top_k", "class_id"), takes="one_hot"),
    "recall": Kind("Recall", _SCORED, ("thresholds", "top_k", "class_id"), takes="one_hot"),
    "precision_at_recall": Kind("PrecisionAtRecall", _SCORED, ("recall", *_ONE), ("recall",), _FINE, takes="one_hot"),
    "recall_at_precision": Kind(
        "RecallAtPrecision", _SCORED, ("precision", *_ONE), ("precision",), _FINE, takes="one_hot"
    ),
    "sensitivity_at_specificity": Kind(
        "SensitivityAtSpecificity", _SCORED, ("specificity", *_ONE), ("specificity",), _FINE, takes="one_hot"
    ),
    "specificity_at_sensitivity": Kind(
        "SpecificityAtSensitivity", _SCORED, ("sensitivity", *_ONE), ("sensitivity",), _FINE, takes="one_hot"
    ),
    "top_k_categorical_accuracy": Kind("TopKCategoricalAccuracy", ("classification",), ("k",)),
    "categorical_crossentropy": Kind("CategoricalCrossentropy", ONE_CLASS, direction="min"),
    "binary_crossentropy": Kind("BinaryCrossentropy", ("multi_label",), direction="min"),
    "mean_iou": Kind("MeanIoU", ("segmentation",)),
    "mean_dice": Kind("MeanDice", ("segmentation",)),
    "mean_absolute_error": Kind("MeanAbsoluteError", ("regression",), direction="min"),
    "mean_squared_error": Kind("MeanSquaredError", ("regression",), direction="min"),
    "root_mean_squared_error": Kind("RootMeanSquaredError", ("regression",), direction="min"),
    "mean_absolute_percentage_error": Kind("MeanAbsolutePercentageError", ("regression",), direction="min"),
    "mean_squared_logarithmic_error": Kind("MeanSquaredLogarithmicError", ("regression",), direction="min"),
    "log_cosh_error": Kind("LogCoshError", ("regression",), direction="min"),
    "r2_score": Kind("R2Score", ("regression",)),
    "cosine_similarity": Kind("CosineSimilarity", ("regression",)),
}
SHORT = {
    "f1": "f1_score",
    "fbeta": "fbeta_score",
    "iou": "mean_iou",
    "dice": "mean_dice",
    "mae": "mean_absolute_error",
    "mse": "mean_squared_error",
    "rmse": "root_mean_squared_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "r2": "r2_score",
}
"""Other names of metrics, and of losses where there is one of the long name."""
AUTO_LOSS: Mapping[Task, str] = {
    "classification": "categorical_crossentropy",
    "multi_label": "binary_crossentropy",
    "regression": "mean_squared_error",
    "segmentation": "categorical_crossentropy",
}
AUTO_METRICS: Mapping[Task, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "multi_label": ("f1", "accuracy"),
    "regression": ("mae", "r2"),
    "segmentation": ("iou", "accuracy"),
}


def kind_of(metric: str) -> Kind | None:
    """The metric of this name, `val_` before it or not; None where there is none.

    >>> [kind_of(name).direction for name in ("val_f1", "rmse", "top_5", "val_loss")]
    ['max', 'min', 'max', 'min']
    """
    name = metric.removeprefix("val_")
    if name == "loss":
        return Kind("", (*LABELS,), direction="min")
    if match := re.fullmatch(r"top_([1-9]\d*)", name):
        return replace(METRICS["top_k_categorical_accuracy"], defaults={"k": int(match[1])}, settings=())
    return METRICS.get(SHORT.get(name, name))


def loss_of(name: Named, task: Task) -> Kind:
    """The loss of this name; `auto` is that of the task."""
    if not isinstance(name, str):
        return OF_THE_USER
    name = AUTO_LOSS[task] if name == "auto" else name
    return LOSSES[name if name in LOSSES else SHORT[name]]


def named(entry: Named) -> tuple[str, Plain]:
    """The name and the settings of a metric; one of the user's own is named after its class.

    >>> named({"name": "auc", "curve": "PR"}), named("auc")
    (('auc', {'curve': 'PR'}), ('auc', {}))
    >>> named({"_target_": "my_metrics.TrueSkill"})
    ('true_skill', {'_target_': 'my_metrics.TrueSkill'})
    """
    if isinstance(entry, str):
        return entry, {}
    own = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(entry.get(TARGET, "")).rpartition(".")[2]).lower()
    return str(entry.get("name", own)), {key: value for key, value in entry.items() if key != "name"}


def metric_names(metrics: str | Sequence[Named], task: Task) -> list[str]:
    """The names of a config's metrics."""
    found = AUTO_METRICS[task] if isinstance(metrics, str) else metrics
    return [named(entry)[0] for entry in found]


def measured(metrics: str | Sequence[Named], task: Task) -> list[str]:
    """What training measures in every epoch, each on the training and on the validation data."""
    names = ["loss", *metric_names(metrics, task)]
    return [f"{prefix}{name}" for prefix in ("val_", "") for name in (*names[1:], names[0])]


def check_losses(names: Sequence[object], settings: Mapping[str, object], task: Task) -> None:
    """Raise `UserError` for a loss that does not exist or does not fit the task, and for settings that none has."""
    key, fitting = "training.loss", [loss for loss, kind in LOSSES.items() if task in kind.tasks]
    if own := [name for name in names if not isinstance(name, str)]:
        _check_own(key, own[0])
        if settings:
            raise UserError(f"{key}_settings: the settings of a loss of your own stand beside its {TARGET}")
    names = [name for name in names if isinstance(name, str)]
    for name in names:
        kind = LOSSES.get(str(name)) or LOSSES.get(SHORT.get(str(name), ""))
        if name == "auto":
            continue
        if kind is None:
            raise unknown(key, name, ["auto", *LOSSES])
        if task not in kind.tasks:
            raise UserError(
                f"{key}: {name} does not fit task={task}, whose labels are {LABELS[task]} "
                f"(losses that do: {', '.join(fitting)})"
            )
    allowed = sorted({setting for name in names for setting in loss_of(str(name), task).settings})
    for name in settings:
        if name not in allowed:
            losses = " or ".join(AUTO_LOSS[task] if name == "auto" else str(name) for name in names)
            raise unknown(f"setting of {losses} in training.loss_settings", name, allowed or ["none"])
    check_values("training.loss_settings", settings, OF_LOSSES)


def check_metrics(entries: object, task: Task) -> None:
    """Raise `UserError` for a metric that does not exist, does not fit the task or has other settings."""
    key = "training.metrics"
    if entries == "auto":
        return
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{key}: expected auto or a list such as [{', '.join(AUTO_METRICS[task])}], got '{entries}'")
    names: list[str] = []
    for entry in entries:
        name, settings = _read(entry, key)
        kind = kind_of(name)
        if TARGET in settings:
            _check_own_metric(key, entry, name)
            kind = replace(OF_THE_USER, settings=(*settings,))
        fitting = [*(n for n, k in METRICS.items() if task in k.tasks), *_shorts(task)]
        if kind is None or name == "loss" or name.startswith("val_"):
            raise unknown(key, name, fitting)
        if task not in kind.tasks:
            raise UserError(f"{key}: {name} does not fit task={task} (metrics that do: {', '.join(fitting)})")
        _check_settings(f"{key}: {name}", settings, kind)
        if name in names:
            raise UserError(f"{key}: {name} is given twice")
        names.append(name)


def check_fit(task: Task, model: str, fits: Sequence[Task], augments: bool) -> None:
    """Raise `UserError` for a model family without an output for the task, and images that move without their masks."""
    if task not in fits:
        needed = "model=unet" if task == "segmentation" else "model=cnn, or another but unet"
        raise UserError(f"model: {model} has no output for task={task}: choose {needed}")
    if task == "segmentation" and augments:
        raise UserError("data.augment: changes images without their masks; for task=segmentation it has to be off")


def check_class_weights(weights: object, task: Task, loss: str) -> None:
    """Raise `UserError` for weights of classes that the task, or its loss, cannot have."""
    key = "training.class_weights"
    if weights == "none":
        return
    if isinstance(weights, str) and weights != "balanced":
        raise UserError(f"{key}: '{weights}' (none, balanced, or {{CLASS: WEIGHT}})")
    if task not in ONE_CLASS:
        instead = "; see binary_focal_crossentropy with apply_class_balancing" if task == "multi_label" else ""
        raise UserError(f"{key}: needs one class an image or a pixel, but task={task} has {LABELS[task]}{instead}")
    if loss in REGION_LOSSES:
        raise UserError(f"{key}: {loss} is a loss of whole images, in which a pixel cannot have a weight")
    bad = [name for name, weight in weights.items() if weight < 0] if isinstance(weights, Mapping) else []
    if bad or not weights:
        raise UserError(f"{key}: {bad[0] if bad else 'no class'}: expected {{CLASS: WEIGHT}}, weights from 0")


def _shorts(task: Task) -> Iterator[str]:
    yield from (short for short, name in SHORT.items() if task in METRICS[name].tasks)
    if task == "classification":
        yield "top_5"


def _read(entry: object, key: str) -> tuple[str, Plain]:
    if isinstance(entry, Mapping) and ("name" in entry or TARGET in entry):
        return named(dict(entry))
    if not isinstance(entry, str):
        raise UserError(f"{key}: expected a name, or {{name: NAME, SETTING: VALUE}}, got '{entry}'")
    return entry, {}


def _check_own(key: str, entry: object) -> None:
    """Raise `UserError` where this names no class or function of the user's own."""
    target = entry.get(TARGET) if isinstance(entry, Mapping) else None
    if not isinstance(target, str) or "." not in target:
        raise UserError(f"{key}: expected a name, or {{{TARGET}: module.name, SETTING: VALUE}}, got '{entry}'")


def _check_own_metric(key: str, entry: object, name: str) -> None:
    _check_own(key, entry)
    if kind_of(name) is not None or not re.fullmatch(r"(?!val_|test_|best_)\w+", name):
        raise UserError(f"{key}: '{name}' cannot be the name of a metric of your own; add another: name: NAME")


def _check_settings(where: str, settings: Mapping[str, Any], kind: Kind) -> None:
    for name in settings:
        if name not in kind.settings:
            allowed = kind.settings or ("none",)
            raise unknown(f"setting of {where}", name, allowed)
    for name in kind.needed:
        if name not in settings:
            raise UserError(f"{where}: needs `{name}`: {{name: …, {name}: VALUE}}")
    if kind.keras:
        check_values(where, settings, OF_METRICS)
