"""Training one trial: a job for an executor. Runs in the worker; the only module that trains."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from cnnsweep.config.components import locate
from cnnsweep.config.objective import Objective
from cnnsweep.data.loading import Dataset, open_saved
from cnnsweep.geometry.network import measure
from cnnsweep.models import fine_tuning as finetune
from cnnsweep.training import checkpoint
from cnnsweep.trial import EpochReport, Status, TrialResult, TrialSpec

EVAL_BATCH = 256
IN_MEMORY = 512 * 2**20
"""Bytes of images above which they are not read into memory at once, as TensorFlow would, twice."""


def train(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    """Train a trial from its last checkpoint, or from the start, to `spec.epochs`.

    Yields a report after every epoch, once its checkpoint is on disk, and stops where the answer is False.
    """
    began = time.monotonic()
    spec.folder.mkdir(parents=True, exist_ok=True)
    data = open_saved(spec.data)
    objective = Objective.of(spec.config["objective"])
    training, steps = spec.config["training"], _steps(spec.config["training"], data)
    model, rows, spent = _begin(spec, data, objective)
    status: Status = "completed"
    reason = None
    for epoch in range(min(spec.initial_epoch, len(rows)) + 1, spec.epochs + 1):
        if epoch - 1 > spec.since and _no_better(rows[: epoch - 1], objective, training):
            break
        if epoch > len(rows):  # else it was trained, but the driver died before it learned of it
            if finetune.unfreezes_at(training, epoch):
                start_fine_tuning(model, training, steps)
            metrics = run_epoch(model, data, spec, epoch)
            if reason := _fault(metrics, objective, epoch):
                status = "failed"
                break
            rows.append(metrics)
            state = {"epochs": rows, "seconds": round(spent + time.monotonic() - began, 3)}
            checkpoint.save(spec.folder, model, state, is_best=_last_is_best(rows, objective))
        if not (yield EpochReport(spec.number, epoch, rows[epoch - 1])):
            status, reason = "pruned", stopped_after(epoch)
            break
    if rows:
        draw_curves(spec, rows)
        checkpoint.settle(spec.folder)
    seconds = round(spent + time.monotonic() - began, 3)
    parameters = float(model.count_params() + spec.frozen_parameters)
    summary = {"parameters": parameters, "trial_seconds": seconds}
    return TrialResult(spec.number, status, reason or _no_better(rows, objective, training), len(rows), summary)


def stopped_after(epoch: int) -> str:
    """The reason of a trial that the search did not want to see more of."""
    return f"stopped by the search after epoch {epoch}"


def _begin(spec: TrialSpec, data: Dataset, objective: Objective) -> tuple[Any, list[dict[str, float]], float]:
    """Return the model, at its last epoch if there is one, the metrics of the epochs so far, and their seconds.

    Where nothing can be restored the trial begins again and, on the CPU, gives the same numbers.
    """
    training, last = spec.config["training"], spec.folder / checkpoint.LAST
    model = build_model(spec.config, data, spec.seed, spec.builder)
    if spec.initial_epoch:
        try:
            if finetune.is_unfrozen(training, len(checkpoint.read_state(last)["epochs"])):
                start_fine_tuning(model, training, _steps(training, data))
            state = checkpoint.load(last, model)
        except ValueError as error:
            print(f"trial {spec.number} begins again: {error}", file=sys.stderr)
            model = build_model(spec.config, data, spec.seed, spec.builder)  # it may have been loaded in part
        else:
            checkpoint.clear(spec.folder, ())
            if _last_is_best(state["epochs"], objective):  # the crash may have come between the two files
                checkpoint.keep_best(spec.folder)
            return model, state["epochs"], state["seconds"]
    checkpoint.clear(spec.folder)
    write_layer_table(spec, model, data)
    return model, [], 0.0


def _fault(metrics: Mapping[str, float], objective: Objective, epoch: int) -> str | None:
    bad = next((m for m in ("loss", objective.metric) if not math.isfinite(metrics[m])), None)
    rate = metrics["learning_rate"]
    return f"{bad} is {metrics[bad]} in epoch {epoch} (learning rate {rate:.3g})" if bad else None


def _last_is_best(rows: Sequence[Mapping[str, float]], objective: Objective) -> bool:
    return objective.best(row[objective.metric] for row in rows) == len(rows) - 1


def _no_better(rows: Sequence[Mapping[str, float]], objective: Objective, training: Mapping[str, Any]) -> str | None:
    best = objective.best(row[objective.metric] for row in rows)
    over = finetune.out_of_patience(training, best, len(rows))
    return f"no better {objective.metric} for {training['patience']} epochs" if over else None


def _steps(training: Mapping[str, Any], data: Dataset) -> int:
    return math.ceil(len(data.x_train) / training["batch_size"])


def build_model(config: Mapping[str, Any], data: Dataset, seed: int, builder: str | None = None) -> Any:
    """Build and compile the network of a config, its optimizer ready to be restored.

    `builder` names the function that builds it, where that is not the model's own `_target_`.
    """
    import keras

    _make_deterministic(config["training"]["deterministic"])
    keras.utils.set_random_seed(seed)
    build = locate("model._target_", builder or config["model"]["_target_"])
    model = build(
        config["model"],
        data.input_shape,
        data.classes,
        scale=data.scale,
        augment=augmentation(config["data"].get("augment", {}), seed),
        seed=seed,
    )
    compile_model(model, config["training"], _steps(config["training"], data))
    return model


def compile_model(model: Any, training: Mapping[str, Any], steps: int) -> None:
    """Compile a model with a new optimizer, built on what is trainable now, for epochs of so many steps."""
    model.compile(
        optimizer=make_optimizer(training, steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=_steps_per_execution(training["steps_per_execution"], steps),
    )
    model.optimizer.build(model.trainable_variables)


def start_fine_tuning(model: Any, training: Mapping[str, Any], steps: int) -> None:
    """Make the end of the backbone trainable, with the learning rate and the schedule of that phase."""
    finetune.unfreeze(model, training["unfreeze"])
    later = {"learning_rate": training["unfreeze_learning_rate"], "epochs": training["unfreeze_epochs"]}
    compile_model(model, {**training, **later}, steps)


def make_optimizer(training: Mapping[str, Any], steps: int) -> Any:
    """The optimizer of a training config, for epochs of so many steps."""
    import keras

    rate: Any = training["learning_rate"]
    if training["schedule"] == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps * training["epochs"])
    classes = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
        "sgd": keras.optimizers.SGD,
    }
    settings: dict[str, Any] = {"learning_rate": rate, "weight_decay": training["weight_decay"] or None}
    if training["optimizer"] == "adamw":
        settings["weight_decay"] = training["weight_decay"]
    if training["optimizer"] == "sgd":
        settings |= {"momentum": 0.9, "nesterov": True}
    return classes[training["optimizer"]](**settings)


def augmentation(augment: Mapping[str, Any], seed: int) -> list[Any]:
    """Keras layers that change training images at random, for values in 0..255 or whatever range the data has."""
    from keras import layers

    made: list[Any] = []
    if augment.get("flip"):
        made.append(layers.RandomFlip("horizontal", seed=seed + 101))
    if amount := augment.get("shift"):
        made.append(layers.RandomTranslation(amount, amount, fill_mode="constant", seed=seed + 102))
    if amount := augment.get("rotation"):
        made.append(layers.RandomRotation(amount, fill_mode="constant", seed=seed + 103))
    if amount := augment.get("zoom"):
        made.append(layers.RandomZoom(amount, fill_mode="constant", seed=seed + 104))
    if amount := augment.get("contrast"):
        made.append(layers.RandomContrast(amount, seed=seed + 105))
    return made


def run_epoch(model: Any, data: Dataset, spec: TrialSpec, epoch: int) -> dict[str, float]:
    """Train one epoch, its order drawn from (trial seed, epoch) so that a resumed trial sees the same, and validate."""
    began = time.monotonic()
    size = spec.config["training"]["batch_size"]
    order = np.random.default_rng([spec.seed, epoch]).permutation(len(data.x_train))
    batches = batched(data.x_train, data.y_train, size, order)
    trained = model.fit(**batches, epochs=1, shuffle=False, verbose=0).history
    held_out = model.evaluate(**batched(data.x_val, data.y_val, EVAL_BATCH), verbose=0, return_dict=True)
    return {
        "loss": float(trained["loss"][0]),
        "accuracy": float(trained["accuracy"][0]),
        "val_loss": float(held_out["loss"]),
        "val_accuracy": float(held_out["accuracy"]),
        "epoch_seconds": round(time.monotonic() - began, 4),
        "learning_rate": float(np.asarray(model.optimizer.learning_rate)),
    }


def batched(x: np.ndarray, y: np.ndarray, size: int, order: np.ndarray | None = None) -> dict[str, Any]:
    """The arguments with which `fit` and `evaluate` take the data in batches, in this order.

    Images that fill much of the memory are read from their file batch by batch.
    """
    import keras

    if x.nbytes > IN_MEMORY:
        from cnnsweep.data.batches import Batches

        return {"x": Batches(x, y, size, np.arange(len(x)) if order is None else order)}
    if order is not None:
        x, y = x[order], y[order]
    if keras.backend.backend() != "tensorflow":
        return {"x": x, "y": y, "batch_size": size}
    import tensorflow as tf

    # Some 40 ms less an epoch than to let fit and evaluate make this from arrays.
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(size).prefetch(2)}


def _steps_per_execution(setting: Any, steps: int) -> int:
    """On the CPU a step costs far more than its start; on an accelerator many small steps go in one call."""
    import keras

    if setting != "auto":
        return min(int(setting), steps)
    return 1 if _on_cpu(keras.backend.backend()) else max(1, min(32, steps))


def _make_deterministic(setting: Any) -> None:
    import keras

    backend = keras.backend.backend()
    if setting is False or (setting == "auto" and not _on_cpu(backend)):
        return
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)


def _on_cpu(backend: str) -> bool:
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_logical_devices("GPU")
    if backend == "jax":
        import jax

        return jax.default_backend() == "cpu"
    import torch

    return not torch.cuda.is_available()


def draw_curves(spec: TrialSpec, rows: Sequence[Mapping[str, float]]) -> None:
    """Draw curves.png here, in the worker: the driver has every worker to serve."""
    from cnnsweep.training.curve_plot import save_curves

    columns = {key: [float(row[key]) for row in rows] for key in rows[0]}
    columns["epoch"] = [float(epoch) for epoch in range(1, len(rows) + 1)]
    save_curves(columns, spec.folder / "artifacts" / "curves.png", Objective.of(spec.config["objective"]).metric)


def write_layer_table(spec: TrialSpec, model: Any, data: Dataset) -> None:
    """Write model.txt, the layer table that is logged with the trial."""
    folder = spec.folder / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    family = spec.config["model"].get("layers")
    if family:
        layers = locate("model.layers", family)(spec.config["model"], data.input_shape, data.classes)
        lines.append(measure(layers, data.input_shape).table())
    else:
        model.summary(line_length=100, print_fn=lambda line, **_: lines.append(line))
        if spec.frozen_parameters:
            lines.append(f"Trained on what a frozen part of {spec.frozen_parameters:,} parameters makes of the images.")
    (folder / "model.txt").write_text("\n".join(lines) + "\n")
