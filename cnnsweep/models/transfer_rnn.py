"""A pre-trained backbone on each frame of a video, then recurrent layers or pooling over time, and a new head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.validation import Int
from cnnsweep.geometry.network import Layer
from cnnsweep.models import transfer
from cnnsweep.models.cnn import typed
from cnnsweep.models.keras_layers import layer_seed
from cnnsweep.models.sequence_layers import over_time, recurrent_layer
from cnnsweep.models.transfer import TransferConfig

if TYPE_CHECKING:
    import keras


class TransferRnnConfig(TransferConfig):
    """A backbone, recurrent layers and a head."""

    takes: ClassVar[tuple[str, ...]] = ("video",)
    head_builder: ClassVar[str] = "cnnsweep.models.transfer_rnn.build_head"
    recurrent: Literal["lstm", "gru", "none"]
    recurrent_units: Int = Field(ge=1)
    recurrent_layers: Int = Field(ge=1, le=20)
    bidirectional: bool

    @property
    def title(self) -> str:
        """What kind of network it is: "a pre-trained MobileNet on each frame with a GRU over time"."""
        backbone = super().title.removesuffix(" with a new head")
        return f"{backbone} on each frame with {over_time(self.recurrent, self.bidirectional)}"

    def describe(self, values: Mapping[str, object]) -> str:
        """The network in a few characters: "MobileNet average gru64 128"."""
        first, last = super().describe(values).split(f" {self.pooling} ", 1)
        over_time = f"{'bi' if self.bidirectional else ''}{self.recurrent}{self.recurrent_units}"
        return f"{first} {self.pooling} {'mean' if self.recurrent == 'none' else over_time} {last}"


@configured_by(TransferRnnConfig)
def build(
    model: TransferRnnConfig | Mapping[str, object],
    input_shape: Sequence[int],
    classes: int,
    scale: float = 1 / 255,
    augment: Sequence[keras.layers.Layer] = (),
    *,
    seed: int,
) -> keras.Model:
    """Build the whole uncompiled model of a `model` config, as `transfer.build` does, for videos of `input_shape`.

    That is (frames, height, width, channels); the backbone sees the frames one by one.
    """
    model = typed(TransferRnnConfig, model)
    return transfer.connect(model, build_head, input_shape, classes, scale, augment, seed)


def build_head(
    model: TransferRnnConfig | Mapping[str, object], input_shape: Sequence[int], classes: int, *, seed: int, **_: object
) -> keras.Model:
    """Build the part after the pooling: features (frames, channels) in, probabilities out.

    Its weights derive from `seed` and are those of the head in `build`.
    """
    from keras import layers

    model = typed(TransferRnnConfig, model)
    stack = [layers.GlobalAveragePooling1D(name="over_time")]
    if model.recurrent != "none":
        settings = {"units": model.recurrent_units, "bidirectional": model.bidirectional}
        stack = []
        for number in range(1, model.recurrent_layers + 1):
            each = {**settings, "return_sequences": number < model.recurrent_layers}
            layer = Layer(model.recurrent, f"recurrent{number}", each)
            stack.append(recurrent_layer(layer, layer_seed(seed, layer.name)))
    return transfer.finish_head(model, input_shape, classes, seed, stack)
