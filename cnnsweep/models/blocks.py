"""Blocks of a convolutional network, each as a list of layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cnnsweep.config.section import Plain
from cnnsweep.geometry.branches import Inner
from cnnsweep.geometry.network import Layer

KINDS = ("plain", "separable", "residual", "bottleneck", "inverted")
_KEYS = {name: f"model.{name}" for name in ("filters", "kernel_size", "stride", "dilation", "padding", "expansion")}
_KEYS |= {"function": "model.activation", "activation": "model.activation", "ratio": "model.squeeze_excite"}
_POOL_KEYS = {"pool_size": "model.pool_size", "stride": "model.pool_size"}


class BlockSettings(NamedTuple):
    """The settings of one block, by the keys of `model`."""

    block: str
    """plain: a convolution. separable: one for each channel, then 1×1 (Howard et al. 2017, arXiv 1704.04861).
    residual: two, added to their input (He et al. 2015, arXiv 1512.03385). bottleneck: 1×1 to fewer channels, one, 1×1
    back, added to their input (the same). inverted: 1×1 to more channels, one for each channel, 1×1 to fewer, added to
    their input where that has their shape (Sandler et al. 2018, arXiv 1801.04381).
    """
    repeats: int
    filters: int
    kernel_size: int
    stride: int
    dilation: int
    padding: str
    pooling: str
    pool_size: int
    activation: str
    batch_norm: bool
    expansion: int
    squeeze_excite: int


def block_layers(name: str, part: str, block: BlockSettings) -> list[Layer]:
    """The layers of a block: its unit, so often as it repeats, the first with the stride; then pooling."""
    found: list[Layer] = []
    for number in range(1, block.repeats + 1):
        prefix = f"{name}_" if block.repeats == 1 else f"{name}_unit{number}_"
        unit = block if number == 1 else block._replace(stride=1)
        found += [_layer(inner, prefix, part) for inner in _UNITS[block.block](unit)]
    if block.pooling != "none":
        pool = {"pool_size": block.pool_size, "stride": block.pool_size, "padding": "valid"}
        found.append(Layer(f"{block.pooling}_pool", f"{name}_pool", pool, part, _POOL_KEYS))
    return found


def _layer(inner: Inner, prefix: str, part: str) -> Layer:
    return Layer(inner.kind, f"{prefix}{inner.name}", dict(inner.settings), part, _KEYS)


def _plain(block: BlockSettings) -> Iterator[Inner]:
    yield from _conv(block, "conv", "norm", filters=block.filters)
    yield _activation(block, "activation")
    yield from _squeeze_excite(block)


def _separable(block: BlockSettings) -> Iterator[Inner]:
    yield from _depthwise(block, "depthwise", "depthwise_norm")
    yield _activation(block, "depthwise_activation")
    yield from _conv(block, "conv", "norm", kernel_size=1, filters=block.filters)
    yield _activation(block, "activation")
    yield from _squeeze_excite(block)


def _residual(block: BlockSettings) -> Iterator[Inner]:
    branch = [
        *_conv(block, "conv1", "norm1", filters=block.filters),
        _activation(block, "activation1"),
        *_conv(block._replace(stride=1), "conv2", "norm2", filters=block.filters),
        *_squeeze_excite(block),
    ]
    yield _added(branch, _projection(block))
    yield _activation(block, "activation")


def _bottleneck(block: BlockSettings) -> Iterator[Inner]:
    narrow = max(1, block.filters // block.expansion)
    branch = [
        *_conv(block._replace(stride=1), "conv1", "norm1", kernel_size=1, filters=narrow),
        _activation(block, "activation1"),
        *_conv(block, "conv2", "norm2", filters=narrow),
        _activation(block, "activation2"),
        *_conv(block._replace(stride=1), "conv3", "norm3", kernel_size=1, filters=block.filters),
        *_squeeze_excite(block),
    ]
    yield _added(branch, _projection(block))
    yield _activation(block, "activation")


def _inverted(block: BlockSettings) -> Iterator[Inner]:
    branch = [
        *_depthwise(block, "depthwise", "depthwise_norm"),
        _activation(block, "depthwise_activation"),
        *_squeeze_excite(block),
        *_conv(block._replace(stride=1), "conv", "norm", kernel_size=1, filters=block.filters),
    ]
    if block.expansion > 1:
        wide = _conv(block._replace(stride=1), "expand", "expand_norm", kernel_size=1, expansion=block.expansion)
        branch = [*wide, _activation(block, "expand_activation"), *branch]
    yield _added(branch, [])


_UNITS = {
    "plain": _plain,
    "separable": _separable,
    "residual": _residual,
    "bottleneck": _bottleneck,
    "inverted": _inverted,
}


def _conv(block: BlockSettings, name: str, norm: str, **settings: Any) -> Iterator[Inner]:
    """A convolution and its normalisation, which would take a bias out again."""
    if settings.get("kernel_size") == 1:
        block = block._replace(dilation=1)
    common: Plain = {"kernel_size": block.kernel_size, "stride": block.stride, "dilation": block.dilation}
    common |= {"padding": block.padding, "use_bias": not block.batch_norm}
    yield Inner("conv", name, tuple({**common, **settings}.items()))
    if block.batch_norm:
        yield Inner("batch_norm", norm)


def _depthwise(block: BlockSettings, name: str, norm: str) -> Iterator[Inner]:
    settings: Plain = {"kernel_size": block.kernel_size, "stride": block.stride, "dilation": block.dilation}
    settings |= {"padding": block.padding, "use_bias": not block.batch_norm}
    yield Inner("depthwise_conv", name, tuple(settings.items()))
    if block.batch_norm:
        yield Inner("batch_norm", norm)


def _projection(block: BlockSettings) -> list[Inner]:
    return list(_conv(block, "projection", "projection_norm", kernel_size=1, filters=block.filters))


def _activation(block: BlockSettings, name: str) -> Inner:
    return Inner("activation", name, (("function", block.activation),))


def _squeeze_excite(block: BlockSettings) -> Iterator[Inner]:
    """Channels weighted by what all pixels hold (Hu et al. 2017, arXiv 1709.01507)."""
    if block.squeeze_excite:
        yield Inner("squeeze_excite", "se", (("ratio", block.squeeze_excite), ("activation", block.activation)))


def _added(branch: list[Inner], projection: list[Inner]) -> Inner:
    return Inner("residual", "residual", (("branch", tuple(branch)), ("projection", tuple(projection))))
