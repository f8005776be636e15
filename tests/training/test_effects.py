"""A key that is set or searched where it has no effect is an error; one that has an effect is none."""

from __future__ import annotations

import re

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.sweep import session
from cnnsweep.training.effects import check_effects

FUNCTION = ("job=function", "job.call=own_functions.count")
WAVES = ("data=made_signals", "model=cnn1d", "space=none")
WORDS = ("data=made_texts", "model=cnn1d", "space=none", "model.embedding=8")
PIECES = ("training.schedule=piecewise", "training.schedule_settings={boundaries: [5, 8], factors: [1, 0.1, 0.01]}")
STAIRS = ("training.schedule=exponential", "training.schedule_settings={staircase: true, decay_epochs: 4}")


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["training.min_delta=0.1"], "training.min_delta: 0.1 has no effect without training.patience"),
        (["space.training.clip_by.values=[norm,value]"], "space.training.clip_by: is searched, but has no effect with"),
        (["training.unfreeze_epochs=2"], "training.unfreeze_epochs: 2 has no effect without training.unfreeze"),
        (["training.unfreeze=0.2"], "training.unfreeze: 0.2, but cnn has no backbone; it needs model=transfer"),
        (["space.training.unfreeze.values=[none,2 blocks]"], "training.unfreeze: 2 blocks, but cnn has no backbone"),
        (["training.warmup_epochs=11"], "training.warmup_epochs: 11, but training.epochs is 10"),
        (["space.training.warmup_epochs={min: 0, max: 12}"], "training.warmup_epochs: 12, but training.epochs is 10"),
        (
            ["model=transfer", "space=transfer", "training.unfreeze=0.2", "training.warmup_epochs=6"],
            "training.warmup_epochs: 6, but training.unfreeze_epochs is 5",
        ),
        ([*PIECES, "training.epochs=8"], "training.schedule_settings.boundaries: 8 is never reached in 8 epochs"),
        (
            [*PIECES, "space.training.warmup_epochs={min: 2.5, max: 5}"],
            "training.schedule_settings.boundaries: 8 after a warm-up of 2.5 is never reached in 10 epochs",
        ),
        (
            [*STAIRS, "training.epochs=5", "training.warmup_epochs=1"],
            "training.schedule_settings.decay_epochs: with staircase the first step comes after epoch 5, but a trial",
        ),
        ([*STAIRS, "training.epochs=4"], "training.schedule_settings.decay_epochs: with staircase the first step"),
        ([*FUNCTION, "training.patience=2"], "training.patience: 2 has no effect: the function of job.call trains in"),
        (
            [*FUNCTION, "space.training.learning_rate.values=[0.1,0.01]"],
            "space.training.learning_rate: is searched, bu",
        ),
        ([*FUNCTION, "data.folds=3"], "data.folds: 3 has no effect: the function of job.call reads its own data"),
        ([*WAVES, "model.axes=2"], "model.axes: 2 has no effect: it is of spectrograms"),
        ([*WAVES, "space.model.mels.values=[20,40]"], "space.model.mels: is searched, but has no effect: it is of spe"),
        ([*WAVES, "model.embedding_dropout=0.5"], "model.embedding_dropout: 0.5 has no effect without model.embedding"),
        ([*WORDS, "model.representation=mel"], "model.representation: mel has no effect: it is of spectrograms"),
    ],
)
def test_what_has_no_effect_is_refused(overrides: list[str], fault: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(fault)}"):
        session.start(compose(overrides), session.Watcher())


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.min_delta=0.1", "space.training.patience.values=[2,4]"],
        ["training.clip_by=value", "space.training.gradient_clipping={min: 0.0, max: 1.0}"],
        ["training.warmup_epochs=5", "space.training.epochs.values=[3,6]"],
        ["model=transfer", "space=transfer", "training.unfreeze=0.2", "training.unfreeze_epochs=2"],
        [*PIECES, "training.epochs=9"],
        [*PIECES, "space.training.warmup_epochs={min: 0, max: 5}"],
        [*STAIRS, "training.epochs=5"],
        [*STAIRS, "training.epochs=6", "training.warmup_epochs=1"],
        [*FUNCTION, "training.epochs=3"],
        [*WORDS, "model.embedding_dropout=0.5"],
        [*WAVES, "space.model.mels.values=[20,40]", "space.model.representation.values=[waveform,mel]"],
    ],
)
def test_what_has_one_is_not(overrides: list[str]) -> None:
    check_effects(compose(overrides))
