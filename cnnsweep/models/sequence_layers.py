"""Keras models of stacks of layers over any number of axes, and of the layers of texts and signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import ModelConfig
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Layer, StagedLayers, measure
from cnnsweep.geometry.settings import Settings
from cnnsweep.models.keras_layers import keras_layer, layer_seed

if TYPE_CHECKING:
    import keras


SPECTROGRAMS = ("spectrogram", "mel_spectrogram")


def plain(stack: list[Layer]) -> list[Layer]:
    """The stack itself. Raises UserError for blocks that need height and width."""
    for layer in stack:
        if layer.kind in ("residual", "squeeze_excite", "depthwise_conv"):
            raise UserError(f"model.block: {layer.name} is a {layer.kind} layer, which only model=cnn has")
    return stack


def embedded(units: int, dropout: float) -> list[Layer]:
    """The layers that turn words into numbers, a share of which is dropped in training."""
    found = [Layer("embedding", "embedding", {"units": units}, "the embedding", {"units": "model.embedding"})]
    if dropout:
        keys = {"rate": "model.embedding_dropout"}
        found.append(Layer("dropout", "embedding_dropout", {"rate": dropout}, "the embedding's dropout", keys))
    return found


def over_time(recurrent: str, bidirectional: bool) -> str:
    """What follows the blocks, for people.

    >>> over_time("lstm", False), over_time("gru", True), over_time("none", True)
    ('an LSTM over time', 'a bidirectional GRU over time', 'pooling over time')
    """
    if recurrent == "none":
        return "pooling over time"
    article = "a bidirectional" if bidirectional else "an" if recurrent == "lstm" else "a"
    return f"{article} {recurrent.upper()} over time"


def connect(
    stack: Sequence[Layer],
    input_shape: Sequence[int],
    augment: Sequence[keras.layers.Layer],
    seed: int,
    name: str,
    scale: float = 1.0,
) -> keras.Model:
    """Return the uncompiled Keras model of a stack of layers: `augment`, then the layers one by one.

    Masks of a signal come after its spectrogram, if it has one; without one those of frequencies are omitted. A stack
    with an embedding takes texts, int32 (words,). A spectrogram's input is multiplied by `scale`, as its logarithm has
    a floor. Raises GeometryError where a layer does not fit its input.
    """
    network = measure(stack, input_shape)
    import keras

    from cnnsweep.models.random_layers import Mask

    is_text = any(layer.kind == "embedding" for layer in stack)
    sizes, kind = tuple(input_shape), "text" if is_text else "input"
    inputs = outputs = keras.Input(sizes[:1], dtype="int32", name=kind) if is_text else keras.Input(sizes, name=kind)
    masks = [layer for layer in augment if isinstance(layer, Mask)]
    for layer in augment:
        outputs = layer(outputs) if layer not in masks else outputs
    if scale != 1 and stack[0].kind in SPECTROGRAMS:
        outputs = keras.layers.Rescaling(scale, name="rescaling", dtype="float32")(outputs)
    before = network.input_shape
    for row in network.layers:
        outputs = _connect(row.layer, before, row.output_shape, layer_seed(seed, row.layer.name), outputs)
        if row is network.layers[0]:
            for mask in masks:
                outputs = mask(outputs) if mask.axis == 1 or row.layer.kind in SPECTROGRAMS else outputs
        before = row.output_shape
    return keras.Model(inputs, outputs, name=name)


def builder(
    config: type[ModelConfig], layers: StagedLayers, name: str, scale: float = 1.0
) -> Callable[..., keras.Model]:
    """Return the function that builds a family's uncompiled Keras models from (config, input shape, classes).

    `scale` is the default factor of the inputs. Their inputs have the shape of the data, those of texts are int32
    (words,); they give float32 class probabilities. Initial weights and dropout derive from `seed` and the layers'
    names alone. What is returned raises GeometryError where a layer does not fit its input.
    """
    default = scale

    @configured_by(config)
    def build(
        model: ModelConfig | Mapping[str, object],
        input_shape: Sequence[int],
        classes: int,
        scale: float = default,
        augment: Sequence[keras.layers.Layer] = (),
        *,
        seed: int,
    ) -> keras.Model:
        return connect(layers(model, tuple(input_shape), classes, scale), input_shape, augment, seed, name, scale)

    return build


def _connect(
    layer: Layer, shape: Sequence[int], output: Sequence[int], seed: int, x: keras.KerasTensor
) -> keras.KerasTensor:
    from keras import layers as kl

    name, s = layer.name, layer.settings
    match layer.kind:
        case "conv" | "max_pool" | "average_pool":
            return _window_layer(layer, len(shape) - 1, seed)(x)
        case "global_average_pool":
            return getattr(kl, f"GlobalAveragePooling{len(shape) - 1}D")(name=name)(x)
        case "global_max_pool":
            return getattr(kl, f"GlobalMaxPooling{len(shape) - 1}D")(name=name)(x)
        case "embedding":
            return kl.Embedding(shape[-1], s["units"], _uniform(seed), name=name)(x)
        case "conv_max_over_time":
            return _conv_max_over_time(layer, seed, x)
        case "spectrogram" | "mel_spectrogram":
            return _spectrogram(layer, output, x)
        case "merge_channels":
            return kl.Reshape(tuple(output), name=name)(x)
        case "lstm" | "gru":
            return recurrent_layer(layer, seed)(x)
        case _:
            return keras_layer(layer, seed)(x)


def _window_layer(layer: Layer, axes: int, seed: int) -> keras.layers.Layer:
    from keras import initializers
    from keras import layers as kl

    s = layer.settings

    def each(size: int) -> tuple[int, ...]:
        return (1, *(size,) * (axes - 1)) if s.get("each_frame") else (size,) * axes

    if layer.kind == "conv":
        return getattr(kl, f"Conv{axes}D")(
            s["filters"],
            each(s["kernel_size"]),
            each(s["stride"]),
            s["padding"],
            dilation_rate=each(s["dilation"]),
            use_bias=s["use_bias"],
            kernel_initializer=initializers.GlorotUniform(seed),
            name=layer.name,
        )
    kind = "MaxPooling" if layer.kind == "max_pool" else "AveragePooling"
    return getattr(kl, f"{kind}{axes}D")(each(s["pool_size"]), each(s["stride"]), s["padding"], name=layer.name)


def _uniform(seed: int) -> keras.initializers.Initializer:
    from keras import initializers

    return initializers.RandomUniform(-0.05, 0.05, seed)  # as Keras' Embedding


def _conv_max_over_time(layer: Layer, seed: int, x: keras.KerasTensor) -> keras.KerasTensor:
    from keras import initializers
    from keras import layers as kl

    s, found = layer.settings, []
    for size in s["kernel_sizes"]:
        name, start = f"{layer.name}_{size}", initializers.GlorotUniform(layer_seed(seed, str(size)))
        maps = kl.Conv1D(s["filters"], size, activation=s["activation"], kernel_initializer=start, name=name)(x)
        found.append(kl.GlobalMaxPooling1D(name=f"{name}_max")(maps))
    return kl.Concatenate(name=layer.name)(found) if len(found) > 1 else found[0]


def _spectrogram(layer: Layer, output: Sequence[int], x: keras.KerasTensor) -> keras.KerasTensor:
    """Logarithmic spectrograms as (frames, frequencies, channels), or with the last two as one axis, about -1 to 1."""
    from keras import layers as kl

    name, s, exact = layer.name, layer.settings, {"dtype": "float32"}
    if layer.kind == "spectrogram":
        transform = kl.STFTSpectrogram("log", s["frame"], s["step"], s["frame"], expand_dims=True, name=name, **exact)
        transform.trainable = False
        x = kl.Rescaling(1 / 8, 0.5, name=f"{name}_scaled", **exact)(transform(x))  # log of the amplitude: -16 to 3
    else:
        x = kl.Reshape((-1,), name=f"{name}_samples", **exact)(x)
        # With a top_db the floor would depend on the loudest signal of the batch.
        decibel = {"min_power": 1e-6, "top_db": 1000.0}
        sizes = {"fft_length": s["frame"], "sequence_stride": s["step"], "num_mel_bins": s["mels"]}
        x = kl.MelSpectrogram(**sizes, sampling_rate=s["rate"], **decibel, name=name, **exact)(x)
        x = kl.Permute((2, 1), name=f"{name}_frames", **exact)(x)
        x = kl.Rescaling(1 / 50, name=f"{name}_scaled", **exact)(x)  # decibels: -60 to 50
    return x if tuple(x.shape[1:]) == tuple(output) else kl.Reshape(tuple(output), name=f"{name}_shaped")(x)


def recurrent_layer(layer: Layer, seed: int) -> keras.layers.Layer:
    """An LSTM or GRU, in one direction or both."""
    from keras import layers as kl

    s = layer.settings
    two_ways = bool(s.get("bidirectional"))
    single = _one_way(layer.kind, s, seed, None if two_ways else layer.name)
    if not two_ways:
        return single
    backward = _one_way(layer.kind, {**s, "backward": True}, layer_seed(seed, "backward"), None)
    return kl.Bidirectional(single, backward_layer=backward, name=layer.name)


def _one_way(kind: str, s: Settings, seed: int, name: str | None) -> keras.layers.Layer:
    from keras import initializers
    from keras import layers as kl

    starts = {
        "kernel_initializer": initializers.GlorotUniform(seed),
        "recurrent_initializer": initializers.Orthogonal(seed=layer_seed(seed, "recurrent")),
    }
    options = {"return_sequences": bool(s.get("return_sequences")), "go_backwards": bool(s.get("backward"))}
    options["use_bias"] = bool(s.get("use_bias", True))
    if kind == "gru":
        return kl.GRU(s["units"], **starts, **options, reset_after=bool(s.get("reset_after", True)), name=name)
    return kl.LSTM(s["units"], **starts, **options, name=name)
