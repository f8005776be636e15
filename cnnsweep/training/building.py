"""The compiled Keras models of a config."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cnnsweep.config.components import locate
from cnnsweep.config.schema import Config, Training
from cnnsweep.data.arrays import Dataset
from cnnsweep.models.fine_tuning import unfreeze
from cnnsweep.training import averaging
from cnnsweep.training.augmentation import augmentation, jit_compile, use_mixing
from cnnsweep.training.optimizers import make_optimizer
from cnnsweep.training.outputs import with_output_of
from cnnsweep.training.precision import computing_in

if TYPE_CHECKING:
    import keras


def build_model(
    config: Config, data: Dataset, seed: int, builder: str | None = None, for_training: bool = True
) -> keras.Model:
    """Build and compile the network of a config, its optimizer ready to be restored.

    `builder` names the function that builds it, in place of the model's own `_target_`. One `for_training` computes
    with fused operations, where TensorFlow has them; one that is not can be saved: it is made of Keras' own layers, and
    has none of the augmentation.
    """
    import keras

    _make_deterministic(config.training.deterministic)
    keras.utils.set_random_seed(seed)
    build = locate("model._target_", builder or config.model.target)
    # Always in float32.
    augment = augmentation(config.data.augment, seed, data.scale, data.kind, data.input_shape) if for_training else []
    with computing_in(config.training.policy):
        model = build(
            config.model.argument(), data.input_shape, data.classes, scale=data.scale, augment=augment, seed=seed
        )
        if not model.compiled:
            model = with_output_of(model, data)
    if for_training:
        use_mixing(model, config.data.augment)
    if model.compiled:  # by a function of the user's own, whose optimizer, loss and metrics count
        averaging.use(model)
        model.optimizer.build(model.trainable_variables)
        return model
    compile_model(model, config.training, data, for_training)
    return model


def compile_model(model: keras.Model, training: Training, data: Dataset, for_training: bool = True) -> None:
    """Compile a model with a new optimizer, built on the trainable weights."""
    import keras

    from cnnsweep.training.metrics import make_loss, make_metrics, needs_one_hot, relative

    steps = steps_an_epoch(training, data)
    one_hot = needs_one_hot(training, data.task)
    loss = make_loss(training, data.task, one_hot)
    model.compile(
        optimizer=make_optimizer(training, steps, for_training),
        loss=relative(loss, data.y_train) if data.task == "regression" else loss,
        metrics=make_metrics(training, data.task, data.classes, one_hot),
        jit_compile=jit_compile(model),
        steps_per_execution=_steps_per_execution(training.steps_per_execution, steps),
    )
    if for_training and keras.backend.backend() == "tensorflow":
        from cnnsweep.training.fused import fuse

        fuse(model)
    averaging.use(model)
    model.optimizer.build(model.trainable_variables)


def compile_plain(model: keras.Model, training: Training, data: Dataset) -> None:
    """Compile a model, to be saved, with Keras' own losses and metrics alone."""
    from cnnsweep.training.metrics import make_loss, make_metrics, needs_one_hot

    one_hot = needs_one_hot(training, data.task)
    of_keras = training if isinstance(training.loss, str) else training.replace(loss="auto", loss_settings={})
    loss = make_loss(of_keras, data.task, one_hot)
    metrics = make_metrics(training, data.task, data.classes, one_hot, own=False)
    model.compile(optimizer=model.optimizer, loss=loss, metrics=metrics)


def steps_an_epoch(training: Training, data: Dataset) -> int:
    """The steps of an epoch."""
    return math.ceil(training.examples(len(data.x_train)) / training.batch_size)


def start_fine_tuning(model: keras.Model, training: Training, data: Dataset) -> None:
    """Make the end of the backbone trainable, with the learning rate and the schedule of that phase."""
    unfreeze(model, training.unfreeze)
    later = training.replace(learning_rate=training.unfreeze_learning_rate, epochs=training.unfreeze_epochs)
    compile_model(model, later, data)


def _steps_per_execution(setting: str | int, steps: int) -> int:
    """On the CPU a step costs far more than its start; on an accelerator many small steps go in one call.

    Keras has that for TensorFlow and JAX; with PyTorch it takes no number but 1.
    """
    import keras

    if keras.backend.backend() == "torch":
        return 1
    if setting != "auto":
        return min(int(setting), steps)
    return 1 if on_cpu() else max(1, min(32, steps))


def _make_deterministic(setting: str | bool) -> None:
    import keras

    if setting is False or (setting == "auto" and not on_cpu()):
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)


def on_cpu() -> bool:
    """Whether the backend trains on the processor."""
    import keras

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return not tf.config.list_logical_devices("GPU")
        case "jax":
            import jax

            return jax.default_backend() == "cpu"
        case _:
            import torch

            return not torch.cuda.is_available()
