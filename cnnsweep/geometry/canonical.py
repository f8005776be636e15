"""The normal form of a stack of layers: equal for two spellings of the same network."""

from __future__ import annotations

from math import prod

from cnnsweep.geometry import branches, sequences
from cnnsweep.geometry.layers import cost_of
from cnnsweep.geometry.settings import Part, Settings, Shape, has_bias, one_name
from cnnsweep.geometry.windows import ranges_of, single, taps, tiles, windows_of


def add_normal_form(parts: list[Part], kind: str, settings: Settings, shape: Shape, output: Shape) -> None:
    """Add to the normal form of a stack that of its next layer, from `shape` to `output`; nothing if it has no effect.

    Normal forms are equal for two layers with the same effect. Widths stand in the parts that act on the last axis, so
    that a flatten before or after one of those makes a difference. Only an average, or a maximum, of all pixels may
    change what is there already: it removes those before it for which `is_open`.
    """
    match kind:
        case "rescaling" if settings["scale"] != 1:
            parts.append(("rescaling", float(settings["scale"])))
        case "dropout" if settings["rate"] != 0:
            parts.append(("dropout", float(settings["rate"])))
        case "batch_norm":
            parts.append(("batch_norm", shape[-1]))
        case "activation":
            _add_activation(parts, settings["function"], shape)
        case "conv":
            parts.append(_conv_part(settings, shape, output))
        case "depthwise_conv":
            windows = windows_of(settings, "kernel_size", len(shape) - 1)
            parts.append((kind, has_bias(settings), *map(taps, windows, shape[:-1], output[:-1])))
        case "squeeze_excite":
            parts.append((kind, shape[-1], branches.hidden_units(settings, shape), one_name(settings["activation"])))
        case "residual":
            _add_residual(parts, settings, shape)
        case "max_pool" | "average_pool":
            _add_pool(parts, kind.removesuffix("_pool"), settings, shape, output)
        case "global_average_pool" | "global_max_pool":
            _add_global(parts, kind.split("_")[1], shape)
        case "upsample" | "crop" | "concatenate":
            parts.append((kind, *settings.values()))
        case "dense":
            parts.append(("dense", shape[-1], settings["units"], has_bias(settings)))
            _add_activation(parts, settings.get("activation", "linear"), output)
        case _ if kind in sequences.KINDS:
            parts.append(sequences.part_of(kind, settings, shape))


def is_open(part: Part) -> bool:
    """True for averages or maxima of equal tiles, which that of all pixels can still remove."""
    return part[0] in ("average", "max") and all(map(tiles, part[1:]))


def _conv_part(settings: Settings, shape: Shape, output: Shape) -> Part:
    windows = windows_of(settings, "kernel_size", len(shape) - 1)
    effect = output[-1], has_bias(settings)
    if all(window.size == 1 for window in windows) and shape[:-1] == output[:-1]:
        return "dense", shape[-1], *effect  # at each position, and so initialised
    return "conv", *effect, *map(taps, windows, shape[:-1], output[:-1])


def _add_residual(parts: list[Part], settings: Settings, shape: Shape) -> None:
    """Add a residual block; one without a shortcut is its branch alone."""
    branch, shortcut = branches.branches(settings, shape, cost_of)
    inside: list[Part] = []
    beside: list[Part] = []
    for found, elements_ in ((inside, branch), (beside, shortcut or [])):
        for element in elements_:
            add_normal_form(found, *element[:4])
    parts += inside if shortcut is None else [("residual", tuple(inside), tuple(beside))]


def _add_activation(parts: list[Part], function: str, shape: Shape) -> None:
    if function != "linear":
        parts.append(("activation", shape[-1], one_name(function)))


def _add_pool(parts: list[Part], kind: str, settings: Settings, shape: Shape, output: Shape) -> None:
    windows = windows_of(settings, "pool_size", len(shape) - 1)
    ranges = tuple(map(ranges_of, windows, shape[:-1], output[:-1]))
    if all(map(single, ranges)):
        if shape != output:
            parts.append(("pick", *ranges))
    elif set(output[:-1]) == {1} and all(map(tiles, ranges)):
        _add_global(parts, kind, shape)
    else:
        parts.append((kind, *ranges))


def _add_global(parts: list[Part], kind: str, shape: Shape) -> None:
    """Add the average or maximum of all positions; those of equal tiles just before it change nothing and go."""
    sizes = shape[:-1]
    while parts and parts[-1][0] == kind and is_open(parts[-1]):
        sizes = tuple(ranges[0] for ranges in parts.pop()[1:])
    if prod(sizes) > 1:
        parts.append((kind, *((size, (0, size)) for size in sizes)))
