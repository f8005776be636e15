"""A function of the user's own that returns a Keras model, compiled or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cnnsweep.config.components import configured_by, locate
from cnnsweep.config.schema import ModelConfig
from cnnsweep.geometry.network import Network
from cnnsweep.models import own
from cnnsweep.models.keras_sizes import measure_model

if TYPE_CHECKING:
    import keras


class FunctionConfig(ModelConfig, extra="allow"):
    """The function; all other keys are its arguments."""

    call: str


@configured_by(FunctionConfig)
def build(
    model: Mapping[str, object],
    input_shape: Sequence[int],
    classes: int,
    *,
    scale: float = 1.0,
    augment: Sequence[keras.layers.Layer] = (),
    seed: int = 0,  # noqa: ARG001
) -> keras.Model:
    """Call the function with the config's keys, and with `input_shape` and `classes` where it has such arguments."""
    declared = {field.alias or name for name, field in FunctionConfig.model_fields.items()}
    arguments = {name: value for name, value in model.items() if name not in declared}
    function = locate("model.call", str(model["call"]))
    made = own.call("model.call", function, arguments, {"input_shape": own.shape_for(input_shape), "classes": classes})
    return own.finish(made, f"model.call: {model['call']}", input_shape, classes, scale, augment)


def measure(model: Mapping[str, object], input_shape: Sequence[int], classes: int) -> Network:
    """The sizes of the network, which is built for that."""
    return measure_model(lambda: build(model, input_shape, classes), input_shape)
