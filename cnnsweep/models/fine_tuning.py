"""Training the end of a frozen backbone as well, after the head has been trained: which layers, and from when."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cnnsweep.errors import UserError, nearest

PATTERNS = (
    r"^(.*?block_?\d+[a-z]?)(?:_|$)",  # VGG, ResNet, DenseNet, EfficientNet, MobileNetV2, Xception, ConvNeXt
    r"^conv_(?:dw|pw|pad)_(\d+)(?:_|$)",  # MobileNet
    r"^(?:expanded_conv)_(\d+)(?:_|$)",  # MobileNetV3
)
"""How the networks of keras.applications name the layers of one block."""
JOINS = ("Add", "Concatenate")


def total_epochs(training: Mapping[str, Any]) -> int:
    """Epochs of a whole trial: those for the head, and those after the unfreezing."""
    return training["epochs"] + (0 if is_off(training["unfreeze"]) else training["unfreeze_epochs"])


def is_off(setting: Any) -> bool:
    """
    >>> [is_off(setting) for setting in (None, "none", 0, "0.3", "2 blocks")]
    [True, True, True, False, False]
    """
    return setting is None or str(setting) in ("none", "") or _number(setting) == 0


def unfreezes_at(training: Mapping[str, Any], epoch: int) -> bool:
    """Whether the backbone's end is to be trained from this epoch (counted from 1) on."""
    return not is_off(training["unfreeze"]) and epoch == training["epochs"] + 1


def is_unfrozen(training: Mapping[str, Any], done: int) -> bool:
    """Whether the last of `done` epochs trained the backbone's end."""
    return not is_off(training["unfreeze"]) and done > training["epochs"]


def out_of_patience(training: Mapping[str, Any], best: int | None, done: int) -> bool:
    """Whether early stopping ends the trial after `done` epochs; `best` is an index from 0.

    A head that is to be fine-tuned is always given all its epochs, so that the unfreezing comes when it is due.
    """
    patience, head = training["patience"], 0 if is_off(training["unfreeze"]) else training["epochs"]
    return bool(patience) and best is not None and done - 1 - max(best, head - 1) >= patience


def unfreeze(model: Any, setting: Any) -> None:
    """Make the layers that `training.unfreeze` names trainable; the model is to be compiled anew.

    Batch normalisation stays as it is, in inference mode. Raises UserError for a model without a backbone, and for
    layers that are not there.
    """
    if "backbone" not in [layer.name for layer in model.layers]:
        raise UserError(f"training.unfreeze={setting}: {model.name} has no backbone; it needs model=transfer")
    backbone = model.get_layer("backbone")
    backbone.trainable = True
    chosen = {id(layer) for layer in chosen_layers(backbone, setting)}
    for layer in backbone.layers:
        layer.trainable = id(layer) in chosen


def chosen_layers(backbone: Any, setting: Any) -> list[Any]:
    """The layers with weights of their own that `training.unfreeze` names, batch normalisation left out."""
    layers = backbone.layers
    first = _first(layers, setting)
    chosen = [la for la in layers[first:] if la.weights and type(la).__name__ != "BatchNormalization"]
    if not chosen:
        raise UserError(f"training.unfreeze: '{setting}' holds no layer to train")
    return chosen


def blocks(layers: list[Any]) -> list[int]:
    """Where each block begins, as an index of the layers, the first block first."""
    for pattern in PATTERNS:
        found = [(i, m[1]) for i, layer in enumerate(layers) if (m := re.match(pattern, layer.name))]
        starts = {name: i for i, name in reversed(found)}
        if len(starts) > 1:
            return sorted(starts.values())
    joins = [i for i, layer in enumerate(layers) if type(layer).__name__ in JOINS]
    return [0, *(i + 1 for i in joins if i + 1 < len(layers))]


def _first(layers: list[Any], setting: Any) -> int:
    names = [layer.name for layer in layers]
    if setting in names:
        return names.index(setting)
    share, count = _number(setting), re.fullmatch(r"\s*(\d+)\s*blocks?\s*", str(setting))
    if share is not None and 0 < share <= 1:
        return len(layers) - max(1, round(share * len(layers)))
    if count and int(count[1]):
        starts = blocks(layers)
        if int(count[1]) > len(starts):
            raise UserError(f"training.unfreeze: '{setting}', but the backbone has {len(starts)} blocks up to its cut")
        return starts[-int(count[1])]
    raise UserError(
        f"training.unfreeze: '{setting}' is no layer of the backbone{nearest(str(setting), names)} "
        '(none, a layer, a share of the layers above 0 and up to 1, or a number of blocks such as "2 blocks")'
    )


def _number(setting: Any) -> float | None:
    try:
        return float(setting)
    except (TypeError, ValueError):
        return None
