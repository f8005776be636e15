"""What has no effect with a model of the user's own is an error before the first trial."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.data.storage import open_saved
from cnnsweep.errors import UserError
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.sweep.session import check_code

COMPILED = ("model=function", "model.call=own_models.compiled")
LOGITS = ("model=function", "model.call=own_models.logits")
SUBCLASSED = ("model=function", "model.call=own_models.Subclassed")
WITH_FIT = ("model=keras_tuner", "model.hypermodel=own_models.WithFit", "+model.hp.units=4")


@pytest.mark.parametrize(
    ("network", "override", "fault"),
    [
        (
            COMPILED,
            "training.learning_rate=0.1",
            "training.learning_rate: 0.1 has no effect: .* own_models.compiled is",
        ),
        (COMPILED, "space.training.optimizer.values=[adam,sgd]", "space.training.optimizer: is searched, but has no"),
        (COMPILED, "training.metrics=[f1]", "training.metrics: .* has no effect"),
        (WITH_FIT, "training.patience=2", "training.patience: 2 has no effect: own_models.WithFit trains by its own"),
        (LOGITS, "training.loss=mean_squared_error", "training.loss: mean_squared_error does not fit task=class"),
        (LOGITS, "objective=val_auc", "objective: val_auc is not measured"),
        (SUBCLASSED, "data.augment.flip=true", "data.augment.flip: has no effect: own_models.Subclassed returns a sub"),
        (SUBCLASSED, "space.data.augment.zoom.values=[0.1,0.2]", "data.augment.zoom: has no effect"),
    ],
)
def test_what_has_no_effect_or_does_not_fit_is_refused(
    network: tuple[str, ...], override: str, fault: str, digits: Path, tmp_path: Path
) -> None:
    executor = InlineExecutor("tensorflow", tmp_path / "log.txt", threads=1)
    data = open_saved(digits)
    check_code(compose([*network, "training.batch_size=16", "training.epochs=2"]), data, executor)
    with pytest.raises(UserError, match=f"^{fault}") as caught:
        check_code(compose([*network, override]), data, executor)
    assert len(re.findall("has no effect|but has no|does not fit|is not measured", str(caught.value))) == 1
