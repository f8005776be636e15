"""Keras models of the user's own: called as they are written, and made ready for the images of `data`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnsweep.data.inputs import Shapes, zeros
from cnnsweep.errors import UserError, nearest

if TYPE_CHECKING:
    import keras

GIVEN = ("input_shape", "classes")
"""Arguments that a function or class gets where it has them."""
SPARSE = {
    "categorical_crossentropy": "sparse_categorical_crossentropy",
    "CategoricalCrossentropy": "SparseCategoricalCrossentropy",
    "categorical_accuracy": "sparse_categorical_accuracy",
    "CategoricalAccuracy": "SparseCategoricalAccuracy",
    "TopKCategoricalAccuracy": "SparseTopKCategoricalAccuracy",
}
"""What takes labels as vectors with a 1, and its equal for labels as numbers, which `data` has."""


def call(key: str, function: Callable[..., Any], arguments: Mapping[str, object], known: Mapping[str, object]) -> Any:
    """Call a function with the arguments, and with those of `known` that it has.

    Raises UserError where it does not take them; `key` is the config's, for the error.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # one in C
        return function(**arguments)
    given = {name: known[name] for name in GIVEN if name in signature.parameters and name in known}
    try:
        signature.bind(**{**given, **arguments})
    except TypeError as error:
        raise UserError(f"{key}: {function.__name__}{signature} cannot be called with these keys: {error}") from error
    return function(**{**given, **arguments})


def finish(
    model: object,
    source: str,
    input_shape: Sequence[int],
    classes: int,
    scale: float = 1.0,
    augment: Sequence[keras.layers.Layer] = (),
) -> keras.Model:
    """Return a model for images as `data` has them: `scale` and `augment` come before the user's.

    A model without an input shape is built. A compiled one keeps its optimizer, loss and metrics. A subclassed one is
    returned as it is, and gets the images as they are. Raises UserError for what cannot be trained on the images.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise UserError(f"{source} returned {type(model).__name__}, expected a Keras model")
    if not model.built and isinstance(model, keras.Sequential) and not isinstance(input_shape, Shapes):
        model.build((None, *input_shape))
    elif not model.built:  # a subclassed one
        model(zeros(1, input_shape))
    if not is_graph(model):
        return model
    if isinstance(input_shape, Shapes):
        _check_inputs(model, source, input_shape.by_name)
    else:
        _check_shape(model, source, tuple(input_shape))
    _check_outputs(model, source, classes)
    if scale == 1.0 and not augment:
        return model
    inputs = x = keras.Input(tuple(input_shape))
    if scale != 1.0:
        x = keras.layers.Rescaling(scale)(x)
    for layer in augment:
        x = layer(x)
    whole = keras.Model(inputs, model(x), name="network")
    if model.compiled:
        compile_alike(whole, model)
    return whole


def is_graph(model: keras.Model) -> bool:
    """Whether its layers are known in their order; those of a subclassed model are not."""
    import keras
    from keras.src.models.functional import Functional

    return type(model) in (keras.Sequential, keras.Model) or isinstance(model, Functional)


def shape_for(input_shape: Sequence[int]) -> object:
    """What a function or class gets as `input_shape`: of several inputs the shape of each by name."""
    return dict(input_shape.by_name) if isinstance(input_shape, Shapes) else tuple(input_shape)


def _fits(expected: Sequence[int | None], shape: Sequence[int]) -> bool:
    return len(expected) == len(shape) and all(a in (None, b) for a, b in zip(expected, shape, strict=True))


def _check_shape(model: keras.Model, source: str, input_shape: tuple[int, ...]) -> None:
    if len(model.inputs) != 1:
        raise UserError(f"{source} takes {len(model.inputs)} inputs, but the data have one: data=npz takes several, as "
                        "arrays x_train_NAME …, and a function of your own with job=function any")  # fmt: skip
    if not _fits(expected := tuple(model.inputs[0].shape[1:]), input_shape):
        raise UserError(f"{source} takes inputs of shape {expected}, but the images have {input_shape}")


def _check_inputs(model: keras.Model, source: str, known: Mapping[str, tuple[int, ...]]) -> None:
    for given in model.inputs:
        if given.name not in known:
            raise UserError(f"{source} has an input '{given.name}'{nearest(given.name, known)} (the data have "
                            f"{', '.join(known)}; keras.Input(…, name=NAME))")  # fmt: skip
        if not _fits(expected := tuple(given.shape[1:]), known[given.name]):
            raise UserError(f"{source}: input '{given.name}' has the shape {expected}, the data's {known[given.name]}")


def _check_outputs(model: keras.Model, source: str, classes: int) -> None:
    if len(model.outputs) != 1:
        raise UserError(f"{source} has {len(model.outputs)} outputs, but the data have one y; train it in a function "
                        "of your own with job=function")  # fmt: skip
    found = tuple(model.outputs[0].shape[1:])
    if found != (classes,):
        raise UserError(f"{source} has outputs of shape {found}, but the data have {classes} classes: ({classes},)")


def compile_alike(whole: keras.Model, model: keras.Model) -> None:
    """Compile a model with the optimizer, loss and metrics of another, its own objects, for labels as numbers."""
    compiled = model._compile_metrics
    metrics = compiled._user_metrics if compiled is not None else None
    many = isinstance(metrics, (list, tuple))
    whole.compile(
        optimizer=model.optimizer,
        loss=for_numbers(model.loss),
        metrics=[for_numbers(m) for m in metrics] if many and metrics else metrics,
    )


def for_numbers(kind: Any) -> object:
    """A loss or metric for class labels as numbers, where it is one for vectors with a 1."""
    import keras

    if isinstance(kind, str):
        return SPARSE.get(kind, kind)
    equal = SPARSE.get(type(kind).__name__)
    if equal is None or type(kind).__module__.partition(".")[0] != "keras":
        return kind
    module = keras.losses if isinstance(kind, keras.losses.Loss) else keras.metrics
    config = kind.get_config()
    if config.pop("label_smoothing", 0):
        raise UserError(f"{type(kind).__name__} with label_smoothing takes labels as vectors; the data have numbers")
    config.pop("axis", None)
    return getattr(module, equal)(**config)
