"""Training of a trial by a KerasTuner `HyperModel.fit` of the user's own, with reports and checkpoints by callback."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping

import numpy as np

from cnnsweep.config.objective import Objective
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.inputs import unpacked
from cnnsweep.errors import UserError
from cnnsweep.models.own_fit import OwnFit
from cnnsweep.training import checkpoint, own_checkpoints
from cnnsweep.training.building import build_model
from cnnsweep.training.function import Steps, run_call
from cnnsweep.training.own_trial import Trial
from cnnsweep.trial import TrialSpec


def run(spec: TrialSpec, data: Dataset, fit: OwnFit) -> Steps:
    """Call the fit on the training and validation data, and keep its checkpoints as those of other networks are kept.

    A fit that reports no epoch by its callbacks, but returns a value, has one epoch.
    """
    parameters = 0

    def call(trial: Trial) -> object:
        nonlocal parameters
        model = build_model(spec.config, data, spec.seed)
        parameters = model.count_params()
        return _fit(fit, trial, spec, model, data)

    result = yield from run_call(spec, call)
    if _keep(spec) and parameters:  # else the fit was not called: all was done
        result = dataclasses.replace(result, summary={**result.summary, "parameters": float(parameters)})
    return result


def _fit(fit: OwnFit, trial: Trial, spec: TrialSpec, model: object, data: Dataset) -> object:
    from cnnsweep.training.callbacks import make
    from cnnsweep.training.keras_callback import ReportEpochs

    hp, training = fit.hyperparameters(), spec.config.training
    callbacks = [ReportEpochs(trial, model, lambda: fit.expect_known(hp))]
    callbacks += [make(number, entry) for number, entry in enumerate(training.callbacks)]
    value = fit.call(
        hp, model,
        x=unpacked(np.asarray(data.x_train)), y=np.asarray(data.y_train),
        validation_data=(unpacked(np.asarray(data.x_val)), np.asarray(data.y_val)),
        batch_size=training.batch_size, initial_epoch=trial.epoch, epochs=trial.epochs, callbacks=callbacks, verbose=0,
    )  # fmt: skip
    if trial.done or value is None:
        return None
    if not isinstance(value, (Mapping, int, float, np.number)):
        raise UserError(f"{fit.path}.fit reported no epoch and returned {type(value).__name__}: it is to pass its "
                        "callbacks on to model.fit, or to call their on_epoch_end, or to return a number")  # fmt: skip
    callbacks[0].save()
    return value


def _keep(spec: TrialSpec) -> bool:
    """Make the last and the best checkpoint those of the trial; False where there is none."""
    last, best = (
        own_checkpoints.last(spec.folder),
        own_checkpoints.best(spec.folder, Objective.of(spec.config.objective)),
    )
    if last is None or best is None:
        return False
    for path, name in ((last[0], checkpoint.LAST), (best, checkpoint.BEST)):
        shutil.copyfile(path / checkpoint.LAST, spec.folder / f"{name}.part")
        (spec.folder / f"{name}.part").replace(spec.folder / name)
    return True
