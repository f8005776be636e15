"""Training of one trial: a job for an executor, which runs in its worker."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnsweep.config.components import locate
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Training
from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.data.inputs import unpacked
from cnnsweep.data.storage import open_saved, read_in_batches
from cnnsweep.geometry.network import measure
from cnnsweep.models.fine_tuning import head_epochs
from cnnsweep.training import augmentation, averaging, batch_norm, checkpoint, on_device, own_fit
from cnnsweep.training.building import build_model, start_fine_tuning, steps_an_epoch
from cnnsweep.training.early_stopping import reason_to_stop, stopped_after
from cnnsweep.training.folds import train_folds
from cnnsweep.training.pictures import save_curves
from cnnsweep.training.targets import AS_THEY_ARE, Targets, targets_of
from cnnsweep.trial import EpochReport, Status, TrialResult, TrialSpec

if TYPE_CHECKING:
    import keras

    from cnnsweep.training.callbacks import Callbacks

EVAL_BATCH = 256
IN_MEMORY = 512 * 2**20
"""Bytes of images above which they are not read into memory at once, as TensorFlow would, twice."""
Metrics = dict[str, float]


def train(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    """Train a trial from its last checkpoint, or from the start, to `spec.epochs`; of data in folds on all of them.

    Yields a report after every epoch, once its checkpoint is on disk, and stops where the answer is False.
    """
    spec.folder.mkdir(parents=True, exist_ok=True)
    data, training = open_saved(spec.data), spec.config.training
    if data.folds is not None and spec.fold is None:
        return (yield from train_folds(spec, max(data.folds), train, partial(reason_to_stop, training=training)))
    data, model = data.fold(spec.fold or 0), spec.config.model
    fit = locate("model.fit", model.fit)(model, data.input_shape, data.classes) if model.fit else None
    return (yield from _train(spec, data) if fit is None else own_fit.run(spec, data, fit))


def _train(spec: TrialSpec, data: Dataset) -> Generator[EpochReport, bool, TrialResult]:
    """Train one network on data without folds."""
    began, training = time.monotonic(), spec.config.training
    objective = Objective.of(spec.config.objective)
    model, rows, spent, note = _begin(spec, data, objective)
    callbacks = make_callbacks(training, model, spec.epochs)
    status: Status = "completed"
    reason = None
    for epoch in range(min(spec.initial_epoch, len(rows)) + 1, spec.epochs + 1):
        if epoch - 1 > spec.since and reason_to_stop(rows[: epoch - 1], objective, training):
            break
        if epoch > len(rows):  # else it was trained, but the driver died before it learned of it
            if epoch == head_epochs(training) + 1:
                start_fine_tuning(model, training, data)
            metrics = run_epoch(model, data, spec, epoch, callbacks)
            if reason := _fault(model, metrics, objective, epoch, training.policy):
                status = "failed"
                break
            rows.append(metrics)
            if callbacks and callbacks.end(epoch, metrics):
                reason = f"stopped by a callback after epoch {epoch}"
            seconds = round(spent + time.monotonic() - began, 3)
            state = checkpoint.State(rows, seconds, steps_an_epoch(training, data))
            is_best, part = _last_is_best(rows, objective), model.name if spec.builder else ""
            checkpoint.save(spec.folder, model, state, is_best, part)
        if not (yield EpochReport(spec.number, epoch, rows[epoch - 1], note)):
            status, reason = "pruned", stopped_after(epoch)
        if reason:
            break
        note = None
    if callbacks:
        callbacks.finish()
    _keep(spec, rows, objective)
    seconds = round(spent + time.monotonic() - began, 3)
    parameters = float(model.count_params() + spec.frozen_parameters)
    summary = {"parameters": parameters, "trial_seconds": seconds}
    return TrialResult(spec.number, status, reason or reason_to_stop(rows, objective, training), len(rows), summary)


def _keep(spec: TrialSpec, rows: Sequence[Metrics], objective: Objective) -> None:
    """Draw the curves of a trial that ends, and make its best checkpoint last."""
    if rows:
        columns = {key: [row[key] for row in rows] for key in rows[0]} | {"epoch": range(1, len(rows) + 1)}
        save_curves(columns, spec.folder / "artifacts" / "curves.png", objective.metric)
        checkpoint.sync_best(spec.folder)


def _begin(spec: TrialSpec, data: Dataset, goal: Objective) -> tuple[keras.Model, list[Metrics], float, str | None]:
    """Return the model, at its last epoch if there is one, the metrics of the epochs so far, and their seconds.

    Where nothing can be restored the trial begins again, as a note says, and, on the CPU, gives the same numbers.
    """
    training, last, note = spec.config.training, spec.folder / checkpoint.LAST, None
    model = build_model(spec.config, data, spec.seed, spec.builder)
    if spec.initial_epoch:
        try:
            if len(checkpoint.read_state(last).epochs) > head_epochs(training):
                start_fine_tuning(model, training, data)
            state = checkpoint.load(last, model)
        except ValueError as error:
            note = f"trial {spec.number} begins again: {error}"
            print(note, file=sys.stderr)
            model = build_model(spec.config, data, spec.seed, spec.builder)  # it may have been loaded in part
        else:
            checkpoint.clear(spec.folder, ())
            if _last_is_best(state.epochs, goal):  # the crash may have come between the two files
                checkpoint.keep_best(spec.folder)
            if (steps := steps_an_epoch(training, data)) != state.steps:  # of another batch size
                taken = int(np.asarray(model.optimizer.iterations))
                model.optimizer.iterations.assign(taken * steps // state.steps)  # where the schedule goes on
            return model, state.epochs, state.seconds, None
    checkpoint.clear(spec.folder)
    _write_layer_table(spec, model, data)
    return model, [], 0.0, note


def _fault(model: keras.Model, metrics: Metrics, objective: Objective, epoch: int, precision: str) -> str | None:
    if objective.metric not in metrics:
        return f"training measures {', '.join(metrics)}, and not the objective {objective.metric}"
    measured = [o.metric for o in objective.all if o.metric in metrics]
    bad = next((m for m in ("loss", *measured) if not math.isfinite(metrics[m])), None)
    found = f"{bad} is {metrics[bad]}" if bad else _bad_weights(model)
    if found is None:
        return None
    hint = f"; {precision} overflows where float32 may not: try training.precision=float32"
    reason = f"{found} in epoch {epoch} (learning rate {metrics['learning_rate']:.3g})"
    return reason + (hint if precision.startswith("mixed") else "")


def _bad_weights(model: keras.Model) -> str | None:
    """The first of a network's weights that are not finite: activations and poolings may hide them from the loss."""
    names = (v.path for v in model.trainable_variables if not np.isfinite(np.asarray(v)).all())
    return next((f"a weight of {name} is not finite" for name in names), None)


def _last_is_best(rows: Sequence[Metrics], objective: Objective) -> bool:
    return objective.best(row[objective.metric] for row in rows) == len(rows) - 1


def make_callbacks(training: Training, model: keras.Model, epochs: int) -> Callbacks | None:
    """The callbacks of the user's own; None where there are none."""
    if not training.callbacks:
        return None
    from cnnsweep.training.callbacks import Callbacks

    return Callbacks(training.callbacks, model, epochs)


def run_epoch(
    model: keras.Model, data: Dataset, spec: TrialSpec, epoch: int, callbacks: Callbacks | None = None
) -> Metrics:
    """Train one epoch, give batch normalisation its statistics, and validate."""
    began = time.monotonic()
    before = batch_norm.read(model)
    if callbacks:
        callbacks.begin(epoch)
    inner = callbacks.inner if callbacks else []
    trained = fit_epoch(model, data, spec, epoch, inner)
    batch_norm.recompute(model, data.x_train, before, spec.seed, spec.config.training.batch_size)
    validated = validate(model, data, spec.config.training, inner)
    return {
        **trained,
        **{f"val_{name}": value for name, value in validated.items()},
        "epoch_seconds": round(time.monotonic() - began, 4),
        "learning_rate": float(np.asarray(model.optimizer.learning_rate)),
    }


def fit_epoch(
    model: keras.Model, data: Dataset, spec: TrialSpec, epoch: int, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Metrics:
    """Train one epoch; the order derives from (trial seed, epoch), also in a resumed trial."""
    import keras

    training = spec.config.training
    order = order_of(len(data.x_train), training.examples(len(data.x_train)), spec.seed, epoch)
    if keras.backend.backend() == "jax":
        order = in_whole_batches(order, training.batch_size)
    arrays, targets = (data.x_train, data.y_train, training.batch_size, order), targets_of(training, data)
    augmentation.begin_epoch(model, spec.seed, epoch)
    if not callbacks and on_device.can_hold(model, data.x_train):
        with averaging.training_weights(model):
            return on_device.run(model, on_device.Examples(*arrays, targets), training=True)
    if augmentation.mixes_before(model):
        read = read_in_batches(*arrays, targets.encode)
        batches: Mapping[str, object] = {"x": augmentation.mixed(model, read, spec.seed, epoch)}
    else:
        batches = batched(*arrays, targets)
    with averaging.training_weights(model):
        trained = model.fit(**batches, epochs=1, shuffle=False, verbose=0, callbacks=[*callbacks]).history
    return {name: float(values[0]) for name, values in trained.items()}


def order_of(count: int, size: int, seed: int, epoch: int) -> Array:
    """The examples of an epoch, in order, as indices: each pass over all `count` is shuffled, and cut into epochs.

    >>> sorted(index for epoch in (1, 2) for index in order_of(4, 2, seed=7, epoch=epoch).tolist())
    [0, 1, 2, 3]
    """
    first = (epoch - 1) * size
    passes = range(first // count, (first + size - 1) // count + 1)
    order = np.concatenate([np.random.default_rng([seed, 1 + number]).permutation(count) for number in passes])
    start = first - passes[0] * count
    return order[start : start + size]


def in_whole_batches(order: Array, size: int) -> Array:
    """The order with its first examples again at the end, which fill the last batch.

    JAX compiles a network for each size of its batches: on a GPU that is what takes the time of a sweep of small ones.

    >>> in_whole_batches(np.array([3, 1, 2]), 2).tolist()
    [3, 1, 2, 3]
    """
    return order if len(order) < size else np.resize(order, -(-len(order) // size) * size)


def validate(
    model: keras.Model, data: Dataset, training: Training, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> Metrics:
    """Measure on the validation images."""
    targets = targets_of(training, data, weighted=False)
    if not callbacks and on_device.can_hold(model, data.x_val):
        return on_device.run(model, on_device.Examples(data.x_val, data.y_val, EVAL_BATCH, None, targets), False)
    batches = batched(data.x_val, data.y_val, EVAL_BATCH, None, targets)
    measured = model.evaluate(**batches, verbose=0, return_dict=True, callbacks=[*callbacks])
    return {name: float(value) for name, value in measured.items()}


def batched(
    x: Array, y: Array, size: int, order: Array | None = None, targets: Targets = AS_THEY_ARE
) -> Mapping[str, Any]:
    """The arguments with which `fit` and `evaluate` take the data in batches, in this order, their labels encoded.

    Images that fill much of the memory are read from their file batch by batch.
    """
    import keras

    tensorflow = keras.backend.backend() == "tensorflow"
    if x.nbytes > IN_MEMORY or not (targets.plain or tensorflow):
        return {"x": read_in_batches(x, y, size, np.arange(len(x)) if order is None else order, targets.encode)}
    if order is not None:
        x, y = x[order], y[order]
    if not tensorflow:
        return {"x": unpacked(x), "y": y, "batch_size": size}
    import tensorflow as tf

    # Some 40 ms less an epoch than to let fit and evaluate make this from arrays. There is nothing to tune, and on a
    # busy machine the end of an epoch waited for the tuner, which sleeps twice as long each time: 10, 20 … 2560 ms.
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = tf.data.Dataset.from_tensor_slices((unpacked(x), y)).batch(size)
    if not targets.plain:
        batches = batches.map(lambda some, labels: (some, *targets.encode_tensor(labels)))
    return {"x": batches.prefetch(2).with_options(options)}


def _write_layer_table(spec: TrialSpec, model: keras.Model, data: Dataset) -> None:
    """Write model.txt, the layer table that is logged with the trial."""
    folder = spec.folder / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    if spec.config.model.layers:
        layers = locate("model.layers", spec.config.model.layers)
        stack = layers(spec.config.model.argument(), data.input_shape, data.classes)
        lines.append(measure(stack, data.input_shape).table())
    else:
        model.summary(line_length=100, print_fn=lambda line, **_: lines.append(line))
        if spec.frozen_parameters:
            lines.append(f"Trained on the features of a frozen part of {spec.frozen_parameters:,} parameters.")
    (folder / "model.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
