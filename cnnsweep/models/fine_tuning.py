"""Fine-tuning: after the head, the last layers of a frozen backbone are trained as well."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnsweep.config.schema import Training
from cnnsweep.errors import UserError, nearest

if TYPE_CHECKING:
    import keras

Setting = str | int | float | None
"""`training.unfreeze`: none, a layer, a share of the layers above 0 and up to 1, or a number of blocks ("2 blocks")."""

PATTERNS = (
    r"^(.*?block_?\d+[a-z]?)(?:_|$)",  # VGG, ResNet, DenseNet, EfficientNet, MobileNetV2, Xception, ConvNeXt
    r"^conv_(?:dw|pw|pad)_(\d+)(?:_|$)",  # MobileNet
    r"^(?:expanded_conv)_(\d+)(?:_|$)",  # MobileNetV3
)
"""Names of the layers of one block in the networks of keras.applications."""
ENDS = re.compile(r"mixed\d+|mixed_\d[ab]|block\d+_\d+_ac|(normal|reduction)_concat_.+")
"""Names of the layers that end a block, where not all in it have names: InceptionV3, InceptionResNetV2, NASNet."""


def total_epochs(training: Training) -> int:
    """Epochs of a whole trial: those of the head, and those of fine-tuning."""
    return training.epochs + (0 if is_off(training.unfreeze) else training.unfreeze_epochs)


def is_off(setting: Setting) -> bool:
    """
    >>> [is_off(setting) for setting in (None, "none", 0, "0.3", "2 blocks")]
    [True, True, True, False, False]
    """
    return setting is None or str(setting) in ("none", "") or _number(setting) == 0


def head_epochs(training: Training) -> float:
    """The epochs before fine-tuning; infinite without it."""
    return math.inf if is_off(training.unfreeze) else training.epochs


def out_of_patience(training: Training, best: int | None, done: int) -> bool:
    """Whether early stopping ends the trial after `done` epochs; `best` is an index from 0.

    A head that is fine-tuned later always gets all its epochs, so that fine-tuning begins on time.
    """
    patience, head = training.patience, 0 if is_off(training.unfreeze) else training.epochs
    return patience is not None and best is not None and done - 1 - max(best, head - 1) >= patience


def unfreeze(model: keras.Model, setting: Setting) -> None:
    """Make the layers that `training.unfreeze` names trainable; the model must then be compiled again.

    Batch normalisation stays frozen, in inference mode. Raises UserError for a model without a backbone, and for
    layers that it does not have.
    """
    if "backbone" not in [layer.name for layer in model.layers]:
        raise UserError(f"training.unfreeze={setting}: {model.name} has no backbone; it needs model=transfer")
    backbone = model.get_layer("backbone")
    backbone.trainable = True
    chosen = {id(layer) for layer in chosen_layers(backbone, setting)}
    for layer in backbone.layers:
        layer.trainable = id(layer) in chosen


def chosen_layers(backbone: keras.Model, setting: Setting) -> list[keras.layers.Layer]:
    """The layers with weights that `training.unfreeze` names, without batch normalisation."""
    from keras.layers import BatchNormalization

    candidates = backbone.layers[_first(backbone.layers, setting) :]
    chosen = [layer for layer in candidates if layer.weights and not isinstance(layer, BatchNormalization)]
    if not chosen:
        raise UserError(f"training.unfreeze: '{setting}' holds no layer to train")
    return chosen


def blocks(layers: Sequence[keras.layers.Layer]) -> list[int]:
    """The index of each block's first layer, in order; a block has weights, up to the end."""
    if ends := [i + 1 for i, layer in enumerate(layers) if ENDS.fullmatch(layer.name)]:
        return [start for start in (0, *ends) if any(layer.weights for layer in layers[start:])]
    for pattern in PATTERNS:
        found = [(i, m[1]) for i, layer in enumerate(layers) if (m := re.match(pattern, layer.name))]
        starts = {name: i for i, name in reversed(found)}
        if len(starts) > 1:
            return sorted(starts.values())
    return [0]


def _first(layers: Sequence[keras.layers.Layer], setting: Setting) -> int:
    names = [layer.name for layer in layers]
    if str(setting) in names:
        return names.index(str(setting))
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


def _number(setting: Setting) -> float | None:
    try:
        return None if setting is None else float(setting)
    except ValueError:
        return None
