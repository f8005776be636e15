"""Optimizers, schedules, clipping and averages: those of Keras, with their settings, and resumed to the last digit."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from trials import reloaded, run, straight_and_resumed

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.optimizers import OPTIMIZERS, SCHEDULES
from cnnsweep.data.storage import open_saved
from cnnsweep.errors import UserError
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.training import averaging, checkpoint
from cnnsweep.training.building import build_model
from cnnsweep.training.early_stopping import reason_to_stop
from cnnsweep.training.optimizers import make_optimizer
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec

STEPS = 10
SCHEDULE = {name: [f"training.schedule={name}"] for name in SCHEDULES}
SCHEDULE["piecewise"].append("training.schedule_settings={boundaries: [1, 3], factors: [1, 0.5, 0.1]}")


def optimizer_of(*overrides, **settings):
    return make_optimizer(compose(["space=none", *overrides]).training, STEPS, **settings)


def rates(*overrides, steps=range(0, 41, 10)):
    optimizer = optimizer_of("training.learning_rate=1", "training.epochs=4", *overrides)
    found = []
    for step in steps:
        optimizer.iterations.assign(step)
        found.append(round(float(np.asarray(optimizer.learning_rate)), 6))
    return found


# The tables


def test_every_optimizer_of_keras_is_there_with_its_settings():
    kinds = {
        name: kind
        for name, kind in vars(keras.optimizers).items()
        if inspect.isclass(kind) and issubclass(kind, keras.optimizers.Optimizer)
    }
    others = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer", "LegacyOptimizerWarning"}
    assert {kind.keras for kind in OPTIMIZERS.values()} == set(kinds) - others
    common = set(inspect.signature(keras.optimizers.SGD.__init__).parameters) - {"momentum", "nesterov"}
    theirs = {"exclude_layers", "exclude_embeddings", "muon_a", "muon_b", "muon_c"}
    for name, kind in OPTIMIZERS.items():
        parameters = inspect.signature(kinds[kind.keras].__init__).parameters
        own = {key: p.default for key, p in parameters.items() if key not in common}
        assert set(own) - theirs == set(kind.defaults), name
        ours = {key for key, default in kind.defaults.items() if own[key] != default}
        changed = {"sgd": {"momentum", "nesterov"}, "muon": {"adam_weight_decay"}, "adafactor": {"epsilon_1"}}
        assert ours == changed.get(name, set())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_made_with_its_settings_and_keeps_as_many_numbers_as_the_plan_says(name):
    setting, default = next(iter(OPTIMIZERS[name].defaults.items()))
    optimizer = optimizer_of(f"training.optimizer={name}", f"training.optimizer_settings.{setting}={default / 2}")
    assert getattr(optimizer, setting) == default / 2
    weights = [keras.Variable(np.zeros((20, 30), "float32"))]
    before = len(optimizer.variables)
    optimizer.build(weights)
    kept = sum(int(np.prod(v.shape)) for v in optimizer.variables[before:])
    assert kept <= (OPTIMIZERS[name].values + 0.2) * 600


def test_adafactor_leaves_weights_between_dead_units_as_they_are():
    optimizer = optimizer_of("training.optimizer=adafactor")
    gradient = np.array([[0, 0], [0, 100]], "float32")
    weights = keras.Variable(np.ones((2, 2), "float32"))
    optimizer.build([weights])
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weights])
    found = np.asarray(weights)
    np.testing.assert_array_equal(found[gradient == 0], 1)
    assert 0 < found[1, 1] < 1


# Schedules


def test_schedules_are_in_epochs():
    assert rates() == [1, 1, 1, 1, 1]
    assert rates("training.schedule=cosine") == pytest.approx([1, 0.853553, 0.5, 0.146447, 0])
    assert rates("training.schedule=polynomial") == [1, 0.75, 0.5, 0.25, 0]
    halves = ["training.schedule_settings={decay_epochs: 2, decay_rate: 0.25}", "training.schedule=exponential"]
    assert rates(*halves) == [1, 0.5, 0.25, 0.125, 0.0625]
    assert rates("training.schedule=inverse_time") == pytest.approx([1, 1 / 1.5, 1 / 2, 1 / 2.5, 1 / 3], abs=1e-6)
    assert rates(*SCHEDULE["piecewise"], steps=(9, 10, 29, 30)) == [1, 0.5, 0.5, 0.1]
    assert rates("training.schedule=cosine_restarts", steps=(0, 5, 10, 20)) == pytest.approx([1, 0.5, 1, 0.5])


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_follows_a_warm_up(name):
    found = rates(*SCHEDULE[name], "training.warmup_epochs=0.5", "training.epochs=8", steps=(0, 1, 4, 5, 6))
    assert found[:4] == pytest.approx([0.2, 0.4, 1, 1])
    assert found[4] <= 1


def test_a_cosine_after_a_warm_up_ends_at_zero():
    assert rates("training.schedule=cosine", "training.warmup_epochs=1", steps=(10, 25, 40)) == pytest.approx(
        [1, 0.5, 0]
    )


def test_gradients_are_clipped_in_the_way_that_is_named():
    assert optimizer_of().global_clipnorm is None
    assert optimizer_of("training.gradient_clipping=0.5").global_clipnorm == 0.5
    assert optimizer_of("training.gradient_clipping=0.5", "training.clip_by=norm").clipnorm == 0.5
    assert optimizer_of("training.gradient_clipping=0.5", "training.clip_by=value").clipvalue == 0.5


def test_what_is_saved_with_a_model_needs_keras_alone():
    levers = ["training.schedule=cosine", "training.warmup_epochs=1", "training.ema_momentum=0.9"]
    optimizer = optimizer_of(*levers, for_training=False)
    assert (optimizer.use_ema, float(np.asarray(optimizer.learning_rate))) == (False, pytest.approx(1e-3))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_model_that_was_trained_by_any_optimizer_loads_with_keras_alone(name, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    levers = [f"training.optimizer={name}", "training.schedule=cosine", "training.ema_momentum=0.9"]
    model.compile(optimizer_of(*levers, for_training=False), "mse")
    model.optimizer.build(model.trainable_variables)
    loaded = reloaded(model, tmp_path)
    assert type(loaded.optimizer) is type(model.optimizer)


# Bad input


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.optimizer_settings.momentun=1", "'momentun', did you mean 'momentum'"),
        ("training.optimizer_settings.momentum=0.5", "adam has no such setting; it has amsgrad, beta_1, beta_2, epsi"),
        ("training.optimizer_settings.beta_1=1", r"beta_1: 1 \(must be at least 0 and below 1"),
        ("training.optimizer_settings.amsgrad=3", "amsgrad: '3' is not true or false"),
        ("training.optimizer_settings.beta_1=[1]", r"beta_1: '\[1\]' is not a number"),
        ("training.optimizer_settings=5", "'5'"),
        ("training.schedule_settings.alpha=0.1", "training.schedule_settings.alpha: constant has no such setting"),
        ("training.schedule_settings={boundaries: [2, 1], factors: [1, 1, 1]}", "do not rise"),
        ("training.schedule_settings={boundaries: [2]}", "one more of the factors"),
        ("training.schedule=piecewise", "piecewise needs them, in epochs"),
        ("training.clip_by=nrom", "unknown training.clip_by 'nrom', did you mean 'norm'"),
        ("training.ema_momentum=1", "must be at least 0 and below 1"),
        ("training.warmup_epochs=-1", "must be at least 0"),
        ("training.schedule_settings={boundaries: [], factors: [1]}", r"boundaries: \[\] has no number"),
        ("training.schedule_settings.t_mul=0.5", r"t_mul: 0.5 \(must be at least 1"),
        ("training.optimizer_settings.learning_rate_power=1", r"learning_rate_power: 1 \(must be at most 0"),
        ("training.optimizer_settings.beta_2_decay=1", r"beta_2_decay: 1 \(must be at most 0"),
        ("training.optimizer_settings.clip_threshold=0", r"clip_threshold: 0 \(must be above 0"),
        ("space.training.optimizer_settings.momentum={min: 0.5, max: 1.5}", "must be at least 0 and below 1"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(override, message):
    with pytest.raises(UserError, match=message):
        parse_space(compose([*(["space.training.optimizer.values=[sgd]"] if "space" in override else []), override]))


@pytest.mark.parametrize("optimizer", ["lion", "schedule_free_adamw"])
def test_a_beta_1_of_0_is_refused_for_the_optimizers_that_cannot_have_it(optimizer):
    chosen = ["space=none", f"training.optimizer={optimizer}"]
    for given in ("training.optimizer_settings.beta_1=0", "space.training.optimizer_settings.beta_1.values=[0,0.9]"):
        with pytest.raises(UserError, match=f"beta_1: 0(.0)? .must be above 0 and below 1 for {optimizer}"):
            parse_space(compose([*chosen, given]))
    assert optimizer_of("training.optimizer=adam", "training.optimizer_settings.beta_1=0").beta_1 == 0


def test_whole_numbers_are_settings_that_keras_takes():
    assert optimizer_of("training.optimizer=sgd", "training.optimizer_settings.momentum=0").momentum == 0
    muon = optimizer_of("training.optimizer=muon", "training.optimizer_settings={ns_steps: 3, rms_rate: 1}")
    assert (muon.ns_steps, muon.rms_rate) == (3, 1)


# Search


def test_a_setting_is_searched_only_with_the_optimizers_that_have_it():
    space = parse_space(
        compose(
            [
                "space=none",
                "space.training.optimizer.values=[adam,sgd,rmsprop]",
                "space.training.optimizer_settings.momentum.values=[0.8,0.9]",
                "space.training.optimizer_settings.beta_2.values=[0.95,0.999]",
                "space.training.schedule.values=[constant,cosine]",
                "space.training.schedule_settings.alpha.values=[0.0,0.1]",
            ]
        )
    )
    assert space.size == (2 + 2 + 2) * (1 + 2)
    config = compose(["training.optimizer_settings.nesterov=false", "training.optimizer=sgd"])
    changed = config.with_values({"training.optimizer_settings.momentum": 0.8})
    assert changed.training.optimizer_settings == {"nesterov": False, "momentum": 0.8}


# Early stopping


def test_a_trial_ends_at_its_target_or_without_enough_improvement():
    goal = Objective.of("val_accuracy")
    rows = [{"val_accuracy": value} for value in (0.5, 0.6, 0.62, 0.63)]

    def reason(count, *overrides):
        return reason_to_stop(rows[:count], goal, compose(list(overrides)).training)

    assert reason(4) is None
    assert reason(4, "training.patience=2") is None
    assert reason(4, "training.patience=2", "training.min_delta=0.05") == (
        "no better val_accuracy for 2 epochs (by more than 0.05)"
    )
    assert reason(2, "training.target=0.6") == "val_accuracy reached 0.6"
    assert reason(1, "training.target=0.6") is None
    assert reason_to_stop([{"val_loss": 0.4}], Objective.of("val_loss"), compose(["training.target=0.4"]).training)


# Trials


def trial_of(digits, folder, *overrides, epochs=2):
    settings = ["data=digits", "space=none", "model.blocks=1", "model.filters=2", "training.batch_size=20"]
    settings += ["model.dense_units=4", "model.dropout=0.2", "data.augment.shift=0.1"]
    return TrialSpec(1, {}, compose([*settings, f"training.epochs={epochs}", *overrides]), 5, folder, digits, epochs)


LEVERS = [["training.warmup_epochs=0.5"], ["training.gradient_clipping=0.1"], ["training.ema_momentum=0.9"]]
CASES = [
    pytest.param(optimizer, schedule, LEVERS[i % 3], id=f"{optimizer}-{schedule}",
                 marks=[] if optimizer in ("adamw", "lion", "muon") else pytest.mark.slow)
    for i, (optimizer, schedule) in enumerate(zip(OPTIMIZERS, [*SCHEDULES, *SCHEDULES], strict=True))
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "schedule", "lever"), CASES)
def test_a_trial_that_was_killed_goes_on_to_the_last_digit(digits, tmp_path, optimizer, schedule, lever):
    overrides = [f"training.optimizer={optimizer}", *SCHEDULE[schedule], *lever]
    straight, resumed = straight_and_resumed(trial_of(digits, tmp_path / "a", *overrides), train)
    assert straight == resumed


@pytest.mark.parametrize(("steps", "momentum"), [(0, 0.1), (8, 0.5), (1000, 0.9)])
def test_an_average_is_of_few_steps_at_the_start(steps, momentum):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(use_ema=True, ema_momentum=0.9), "mse")
    averaging.use(model)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(steps)
    assert float(model.optimizer.ema_momentum) == pytest.approx(momentum)


def test_an_average_follows_the_weights():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.2), "mse")
    averaging.use(model)
    averages = []
    for _ in range(3):  # the weight is -1, -2, -3
        model.optimizer.apply([np.ones((1, 1), "float32")], model.trainable_variables)
        averages.append(float(np.array(model.optimizer._model_variables_moving_average[0]).item()))
    first = -1
    second = 2 / 11 * first + 9 / 11 * -2
    assert averages == pytest.approx([first, second, 0.2 * second + 0.8 * -3])


def test_an_average_of_the_weights_is_validated_and_kept_and_loads_with_keras_alone(digits, tmp_path):
    common = ["training.learning_rate=0.02", "model.dropout=0"]
    trial = trial_of(digits, tmp_path / "a", *common, "training.ema_momentum=0.5")
    (averaged, _), (alone, _) = run(train(trial)), run(train(trial_of(digits, tmp_path / "b", *common)))
    # The training itself is the same.
    assert [r.metrics["loss"] for r in averaged] == [r.metrics["loss"] for r in alone]
    assert averaged[1].metrics["val_loss"] != alone[1].metrics["val_loss"]
    data = open_saved(digits)
    model = build_model(trial.config, data, trial.seed, for_training=False)
    checkpoint.load(trial.folder / checkpoint.LAST, model, with_optimizer=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    measured = loaded.evaluate(np.array(data.x_val), np.array(data.y_val), verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(averaged[1].metrics["val_loss"], rel=1e-5)
