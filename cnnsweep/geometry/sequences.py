"""Layers of texts, signals and sequences: embeddings, convolutions with maxima over time, spectrograms, recurrence.

A text is (words, vocabulary): each word is a one-hot vector, which Keras stores as a number. An embedding is a dense
layer on it.
"""

from __future__ import annotations

from math import prod

from cnnsweep.formatting import counted
from cnnsweep.geometry.settings import (
    Cost,
    MisfitError,
    Part,
    Settings,
    Shape,
    check_function,
    has_bias,
    one_name,
    positive,
)  # fmt: skip

LOWEST = 20
"""Hertz from which Keras' mel spectrogram has bands."""
KINDS = ("embedding", "conv_max_over_time", "spectrogram", "mel_spectrogram", "merge_channels", "lstm", "gru")
GATES = {"lstm": 4, "gru": 3}


def cost_of(kind: str, settings: Settings, shape: Shape) -> tuple[Shape, Cost]:
    """Return one layer's output shape and its cost for one input. Raises MisfitError."""
    output, parameters, mult_adds = _sizes(kind, settings, shape)
    return output, (parameters, mult_adds, 4 * _values(kind, settings, shape, output))


def _values(kind: str, settings: Settings, shape: Shape, output: Shape) -> int:
    """How many numbers the Keras layers that make up this one put out, views aside."""
    match kind:
        case "conv_max_over_time":  # the maps of each size, their maxima, and these side by side
            sizes = settings["kernel_sizes"]
            maps = sum(shape[0] - size + 1 for size in sizes) * positive(settings, "filters")
            return maps + prod(output) * (2 if len(sizes) > 1 else 1)
        case "spectrogram" | "mel_spectrogram":  # before and after they are scaled
            return 2 * prod(output)
        case "merge_channels":
            return 0
        case _:
            return prod(output)


def _sizes(kind: str, settings: Settings, shape: Shape) -> tuple[Shape, int, int]:
    match kind:
        case "embedding":
            steps, vocabulary = _sequence(shape)
            units = positive(settings, "units")
            return (steps, units), vocabulary * units, 0
        case "conv_max_over_time":
            return _conv_max_over_time(settings, shape)
        case "spectrogram" | "mel_spectrogram":
            return _spectrogram(kind, settings, shape)
        case "merge_channels":
            return (shape[0], prod(shape[1:])), 0, 0
        case _:
            return _recurrent(kind, settings, shape)


def part_of(kind: str, settings: Settings, shape: Shape) -> Part:
    """The normal form of a layer: equal for two with the same effect."""
    match kind:
        case "embedding":
            return kind, shape[-1], settings["units"]
        case "conv_max_over_time":
            sizes = tuple(sorted(settings["kernel_sizes"]))
            return kind, shape, settings["filters"], sizes, one_name(settings.get("activation", "linear"))
        case "merge_channels":
            return kind, shape
        case "spectrogram" if settings["frame"] + settings["step"] > shape[0]:  # one window
            return kind, shape, settings["frame"], settings["axes"]
        case _:
            return kind, shape, *sorted(settings.items())


def _conv_max_over_time(settings: Settings, shape: Shape) -> tuple[Shape, int, int]:
    """Convolutions of several sizes side by side, each with its maximum over time (Kim 2014, arXiv 1408.5882)."""
    steps, channels = _sequence(shape)
    filters, sizes = positive(settings, "filters"), settings["kernel_sizes"]
    check_function("activation", settings.get("activation", "linear"))
    if max(sizes) > steps:
        problem = f"kernel of size {max(sizes)} is larger than its input of {counted(steps, 'step')}"
        raise MisfitError("kernel_sizes", problem)
    weights = [positive({"kernel_sizes": size}, "kernel_sizes") * channels * filters for size in sizes]
    mult_adds = sum(w * (steps - size + 1) for w, size in zip(weights, sizes, strict=True))
    return (filters * len(sizes),), sum(weights) + filters * len(sizes), mult_adds


def _spectrogram(kind: str, settings: Settings, shape: Shape) -> tuple[Shape, int, int]:
    """Short-time Fourier transforms of windows of `frame` samples, one each `step` samples.

    Keras computes a spectrogram by convolution with two kernels, cosines and sines, which are not trained but count
    among its parameters. The mel spectrogram's Fourier transform is no convolution and has none. With `axes` 1 each
    frequency is a channel, with 2 frequency is an axis.
    """
    samples, channels = _sequence(shape)
    frame, step = positive(settings, "frame"), positive(settings, "step")
    if frame > samples:
        raise MisfitError("frame", f"window of {frame} samples is longer than its input of {samples}")
    if step > frame:
        raise MisfitError("step", f"step of {step} samples is larger than the window of {frame}")
    if kind == "mel_spectrogram":
        frames, frequencies, weights, mult_adds = 1 + samples // step, positive(settings, "mels"), 0, 0
        if channels != 1:
            raise MisfitError("mels", f"input has {channels} channels, and Keras' mel spectrogram takes one")
        if (rate := positive(settings, "rate")) <= 2 * (LOWEST + rate / frame):
            problem = f"rate of {rate} samples a second has no frequencies above {LOWEST} Hz, where mel bands begin"
            raise MisfitError("rate", f"{problem}; a plain spectrogram has all")
        if (samples + 1) % step == 0:  # there Keras promises one frame more than it computes
            raise MisfitError("step", f"step of {step} samples divides {samples} + 1; take another")
    else:
        frames, frequencies = (samples - frame) // step + 1, frame // 2 + 1
        weights = 2 * frame * frequencies
        mult_adds = weights * frames * channels
    output = (frames, frequencies, channels) if settings["axes"] == 2 else (frames, frequencies * channels)
    return output, weights, mult_adds


def _recurrent(kind: str, settings: Settings, shape: Shape) -> tuple[Shape, int, int]:
    """An LSTM or GRU, its state after the last step or, with `return_sequences`, after each one."""
    steps, channels = _sequence(shape)
    units, gates = positive(settings, "units"), GATES[kind]
    directions = 2 if settings.get("bidirectional") else 1
    weights = gates * (channels + units) * units
    biases = gates * units * (2 if kind == "gru" and settings.get("reset_after", True) else 1) * has_bias(settings)
    output = (steps, directions * units) if settings.get("return_sequences") else (directions * units,)
    return output, directions * (weights + biases), directions * steps * weights


def _sequence(shape: Shape) -> tuple[int, int]:
    if len(shape) != 2:
        raise MisfitError("input", f"input has shape {shape}, not steps × channels")
    return shape[0], shape[1]
