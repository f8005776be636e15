"""The types and bounds of every key of the config. Values stand in conf/, never here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def key(**bounds: Any) -> Any:
    """A key without a default. Bounds: `above`, `least`, `below`, `most` for numbers, `choices` for words.

    `each`: such bounds for a whole number or a word, or for each of a list of them.
    """
    return field(default=MISSING, metadata=bounds)


BACKENDS = ("tensorflow", "jax", "torch")
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
SCHEDULES = ("constant", "cosine")
ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "linear", "mish",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "squareplus", "swish", "tanh",
)  # fmt: skip
PADDINGS = ("same", "valid")
POOLINGS = ("max", "average", "none")
BACKBONES = (
    "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge", "DenseNet121", "DenseNet169",
    "DenseNet201", "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3", "EfficientNetB4",
    "EfficientNetB5", "EfficientNetB6", "EfficientNetB7", "EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2",
    "EfficientNetV2B3", "EfficientNetV2L", "EfficientNetV2M", "EfficientNetV2S", "InceptionResNetV2", "InceptionV3",
    "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small", "NASNetLarge", "NASNetMobile", "ResNet101",
    "ResNet101V2", "ResNet152", "ResNet152V2", "ResNet50", "ResNet50V2", "VGG16", "VGG19", "Xception",
)  # fmt: skip
"""The networks of keras.applications, listed here so that a wrong name is found without loading Keras."""
SAMPLERS = ("random", "tpe", "gp", "cmaes", "qmc", "nsga2")
VARIANTS = ("promotion", "stopping")
METRICS = ("val_accuracy", "val_loss", "accuracy", "loss")
COSTS = ("parameters", "mmacs")
"""What may be an objective beside a metric: known of a network before it is trained."""


@dataclass
class Root:
    name: str = key()
    seed: int = key(least=0, most=2**32 - 1)
    backend: str = key(choices=BACKENDS)
    objective: Any = key()
    limits: Any = None
    data: Any = None
    model: Any = None
    space: Any = None
    search: Any = None
    training: Any = None
    executor: Any = None
    tracking: Any = None
    budget: Any = None
    export: Any = None


@dataclass
class Limits:
    parameters: Any = key()
    mmacs: Any = key()
    activation_mb: Any = key()


@dataclass
class Augment:
    flip: bool = key()
    shift: float = key(least=0, below=1)
    rotation: float = key(least=0, most=1)
    zoom: float = key(least=0, below=1)
    contrast: float = key(least=0, most=1)


@dataclass
class Data:
    _target_: str = key()
    dir: str | None = key()
    limit: int | None = key(above=0)
    validation: float = key(above=0, below=1)
    augment: Augment = field(default_factory=Augment)


@dataclass
class Npz(Data):
    file: str = key()


SIZE = {"most": 2**31 - 1}


@dataclass
class ImageFolder(Data):
    test: float = key(above=0, below=1)
    image_size: Any = key()
    resize: str = key(choices=("crop", "pad", "stretch"))
    color: str = key(choices=("rgb", "grey"))
    skip_bad: bool = key()
    cache: str = key()


@dataclass
class Transfer:
    """A pre-trained backbone and a head; models.transfer says what the keys mean."""

    _target_: str = key()
    layers: str | None = key()
    check: str | None = key()
    prepare: str | None = key()
    backbone: str = key(choices=BACKBONES)
    weights: str = key()
    cut: str | None = key()
    input_size: int | None = key(least=1)
    pooling: str = key(choices=("average", "max", "flatten"))
    dense_layers: int = key(least=0)
    dense_units: int = key(least=1)
    activation: str = key(choices=ACTIVATIONS)
    dropout: float = key(least=0, below=1)
    cache: str | None = key()


@dataclass
class Cnn:
    """Block settings are one value or a list with one a block; the bounds hold for `each`.

    Sizes below 1 are left to the arithmetic of layers, which refuses them with the table of the layers before.
    """

    _target_: str = key()
    layers: str | None = key()
    blocks: int = key(least=1, most=100)
    filters: Any = key(each=SIZE)
    kernel_size: Any = key(each=SIZE)
    stride: Any = key(each=SIZE)
    dilation: Any = key(each=SIZE)
    padding: Any = key(each={"choices": PADDINGS})
    pooling: Any = key(each={"choices": POOLINGS})
    pool_size: Any = key(each=SIZE)
    activation: str = key(choices=ACTIVATIONS)
    batch_norm: bool = key()
    head: str = key(choices=("flatten", "average"))
    dense_units: int = key(least=0)
    dropout: float = key(least=0, below=1)


@dataclass
class Training:
    epochs: int = key(least=1)
    batch_size: int = key(least=1)
    optimizer: str = key(choices=OPTIMIZERS)
    learning_rate: float = key(above=0)
    weight_decay: float = key(least=0)
    schedule: str = key(choices=SCHEDULES)
    patience: int | None = key(least=1)
    steps_per_execution: Any = key()
    deterministic: Any = key()
    retry_smaller_batch: bool = key()
    unfreeze: Any = key()
    unfreeze_epochs: int = key(least=1)
    unfreeze_learning_rate: float = key(above=0)


@dataclass
class Search:
    _target_: str = key()
    max_failures: int | None = key(least=1)
    start_with: Any = key()
    learn_from: str | None = key()


@dataclass
class Bayesian(Search):
    initial_points: int | None = key(least=1)
    alpha: float = key(above=0)
    beta: float = key(least=0)


@dataclass
class Hyperband(Search):
    factor: int = key(least=2)
    iterations: int | None = key(least=1)
    sampler: str = key(choices=SAMPLERS)
    startup: int | None = key(least=1)


@dataclass
class Asha(Search):
    factor: int = key(least=2)
    min_epochs: int = key(least=1)
    variant: str = key(choices=VARIANTS)
    sampler: str = key(choices=SAMPLERS)
    startup: int | None = key(least=1)


@dataclass
class Modelled(Search):
    startup: int | None = key(least=1)


@dataclass
class Evolved(Modelled):
    population: int | None = key(least=2)


@dataclass
class Limited:
    """What every executor of ours knows."""

    _target_: str = key()
    trial_minutes: float | None = key(above=0)
    hang_minutes: float | None = key(above=0)
    grace_seconds: float = key(least=0)


@dataclass
class Inline(Limited):
    threads: int = key(least=1)


@dataclass
class Process(Limited):
    device: str = key(choices=("auto", "gpu", "cpu"))
    gpus: int | None = key(least=1)
    workers_per_gpu: int = key(least=1)
    workers: int | None = key(least=1)
    threads: int | None = key(least=1)
    trials_per_worker: int | None = key(least=1)


@dataclass
class Ray(Limited):
    address: str | None = key()
    num_gpus: float | None = key(least=0, most=1)
    num_cpus: float | None = key(above=0)
    storage: str | None = key()


@dataclass
class Tracking:
    uri: str | None = key()
    dir: str = key()
    experiment: str = key()
    tags: dict[str, Any] = field(default_factory=dict)
    gallery: int = key(least=0)
    report: bool = key()


@dataclass
class Export:
    seeds: int = key(least=1, most=100)


@dataclass
class Budget:
    trials: int | None = key(least=1)
    minutes: float | None = key(above=0)
    epochs: int | None = key(least=1)
    finalists: int | None = key(least=1)
    replicates: int | None = key(least=1)


BY_TARGET: dict[str, type] = {
    "cnnsweep.data.npz.load": Npz,
    "cnnsweep.data.digits.load": Data,
    "cnnsweep.data.idx.mnist": Data,
    "cnnsweep.data.idx.fashion_mnist": Data,
    "cnnsweep.data.image_folder.load": ImageFolder,
    "cnnsweep.models.cnn.build": Cnn,
    "cnnsweep.models.transfer.build": Transfer,
    "cnnsweep.search.random.RandomOracle": Search,
    "cnnsweep.search.grid.GridOracle": Search,
    "cnnsweep.search.bayesian.BayesianOracle": Bayesian,
    "cnnsweep.search.hyperband.HyperbandOracle": Hyperband,
    "cnnsweep.search.asha.AshaOracle": Asha,
    "cnnsweep.search.tpe.TpeOracle": Modelled,
    "cnnsweep.search.gp.GpOracle": Modelled,
    "cnnsweep.search.cmaes.CmaesOracle": Evolved,
    "cnnsweep.search.qmc.QmcOracle": Search,
    "cnnsweep.search.nsga2.Nsga2Oracle": Evolved,
    "cnnsweep.executors.inline.InlineExecutor": Inline,
    "cnnsweep.executors.process.ProcessExecutor": Process,
    "cnnsweep.executors.ray.executor.RayExecutor": Ray,
}
"""What a component's config may hold. A target that is not listed is a user's own: its keys are its own affair."""

BY_GROUP: dict[str, type] = {"tracking": Tracking, "budget": Budget, "limits": Limits, "export": Export}
EXTENSIBLE = ("data", "model", "search", "executor")
