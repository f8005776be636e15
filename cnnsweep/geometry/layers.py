"""Each kind of layer: its output shape and its costs.

Convolution and pooling slide over any number of axes: the shape (steps, channels) has one, (height, width, channels)
two, (frames, height, width, channels) three.
"""

from __future__ import annotations

from math import prod

from cnnsweep.errors import unknown
from cnnsweep.geometry import branches, sequences
from cnnsweep.geometry.branches import Element
from cnnsweep.geometry.settings import (
    Cost,
    MisfitError,
    Settings,
    Shape,
    check_function,
    has_bias,
    is_number,
    positive,
)  # fmt: skip
from cnnsweep.geometry.windows import positions_of, slide, windows_of

KINDS = (
    "rescaling", "conv", "batch_norm", "activation", "max_pool", "average_pool", "flatten", "global_average_pool",
    "global_max_pool", "dropout", "dense", "depthwise_conv", "upsample", "crop", "concatenate", *branches.KINDS,
    *sequences.KINDS,
)  # fmt: skip
_VIEWS = {"flatten", "dropout"}


def cost_of(kind: str, settings: Settings, shape: Shape) -> tuple[Shape, Cost]:
    """Return one layer's output shape and its cost for one image.

    Raises MisfitError for settings that Keras could not build on this input, and UserError for an unknown kind.
    """
    output, parameters, mult_adds = shape, 0, 0
    match kind:
        case "conv":
            output, parameters, mult_adds = _conv(settings, shape, _filters(settings, shape[-1]), shape[-1])
        case "depthwise_conv":
            output, parameters, mult_adds = _conv(settings, shape, shape[-1], 1)
        case "batch_norm":
            parameters = 4 * shape[-1]  # scale and shift are trained; mean and variance are not
        case "activation":
            check_function("function", settings.get("function"))
        case "max_pool" | "average_pool":
            output = slide(settings, "pool_size", shape)
        case "flatten":
            output = (prod(shape),)
        case "global_average_pool" | "global_max_pool":
            output = positions_of(shape)[-1:]
        case "dropout":
            if not is_number(rate := settings.get("rate")) or not 0 <= rate < 1:
                raise MisfitError("rate", f"value is {rate!r}, not a number from 0 to below 1", mistake=True)
        case "dense":
            output, parameters, mult_adds = _dense(settings, shape)
        case "upsample" | "crop" | "concatenate":
            output = _resized(kind, settings, *_image(shape))
        case "rescaling":
            if not is_number(scale := settings.get("scale")):
                raise MisfitError("scale", f"value is {scale!r}, not a number", mistake=True)
        case _ if kind in branches.KINDS:
            found = elements(kind, settings, shape)
            costs = [element.cost for element in found]
            return found[-1].output, (sum(c[0] for c in costs), sum(c[1] for c in costs), sum(c[2] for c in costs))
        case _ if kind in sequences.KINDS:
            return sequences.cost_of(kind, settings, shape)
        case _ if kind not in ("add", "multiply"):
            raise unknown("layer kind", kind, KINDS)
    return output, (parameters, mult_adds, 0 if kind in _VIEWS else 4 * prod(output))


def _conv(settings: Settings, shape: Shape, filters: int, inputs: int) -> tuple[Shape, int, int]:
    """Shape, parameters and multiply-adds of a convolution whose filters each see so many of the channels."""
    *positions, _ = slide(settings, "kernel_size", shape)
    weights = prod(w.size for w in windows_of(settings, "kernel_size", len(positions))) * inputs * filters
    return (*positions, filters), weights + filters * has_bias(settings), prod(positions) * weights


def _dense(settings: Settings, shape: Shape) -> tuple[Shape, int, int]:
    units = positive(settings, "units")
    check_function("activation", settings.get("activation", "linear"))
    weights = shape[-1] * units
    return (*shape[:-1], units), weights + units * has_bias(settings), prod(shape[:-1]) * weights


def elements(kind: str, settings: Settings, shape: Shape) -> list[Element]:
    """The elementary layers of a layer, more than one for those of `branches`."""
    return branches.elements(kind, settings, shape, cost_of)


def _resized(kind: str, settings: Settings, height: int, width: int, channels: int) -> tuple[int, int, int]:
    """The shape after repeating pixels, after cutting what is below and to the right, or beside more channels."""
    if kind == "upsample":
        size = positive(settings, "size")
        return height * size, width * size, channels
    if kind == "crop":
        return positive(settings, "height"), positive(settings, "width"), channels
    return height, width, channels + positive(settings, "channels")


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) == 3:
        return shape
    raise MisfitError("input", f"input has shape {shape}, not height × width × channels")


def _filters(settings: Settings, channels: int) -> int:
    """Given as they are, or as a multiple of the input's channels."""
    return channels * positive(settings, "expansion") if "expansion" in settings else positive(settings, "filters")
