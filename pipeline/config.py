"""The typed configuration and its invariants, nothing else.

The values come from `params.yaml`, the structure from `conf/`; `compose.py` puts them together.
Every combination that cannot work is refused here, before anything runs.
"""

from dataclasses import dataclass, field

from pipeline.errors import UserError, nearest

BACKBONES = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101")
OUTPUT_STRIDES = (8, 16, 32)

#: What `model.aspp` can be, and the atrous rates of its paper.
#: v2 states its rates at output stride 8, v3 at 16; `atrous_rates` moves them to the one asked for.
ASPP_RATES: dict[str, tuple[int, ...]] = {
    "summed": (6, 12, 18, 24),  # v2, ASPP-L: straight to the classes, summed
    "v3": (6, 12, 18),  # v3, section 3.3: 1x1, three atrous, image pooling, concatenated
    "no_pooling": (6, 12, 18),  # v3, Table 5: the same without image pooling
    "no_atrous": (),  # MobileNetV2, section 6.3: only 1x1 and image pooling
}
RATES_STATED_AT = {"summed": 8, "v3": 16, "no_pooling": 16, "no_atrous": 16}


@dataclass
class ModelConfig:
    """The network: a backbone at an output stride, a head, and where its weights start."""

    backbone: str = "mobilenet_v2"
    output_stride: int = 16
    aspp: str = "v3"
    #: Atrous rates at the output stride where the paper states them (v2: 8, v3: 16); they are
    #: scaled to `output_stride`. None: the paper's own.
    rates: list[int] | None = None
    #: Of v3's ASPP, as is the dropout; v2's summed branches end in the classes and have neither.
    aspp_channels: int = 256
    dropout: float = 0.1
    decoder: bool = False
    #: Of the decoder.
    low_level_channels: int = 48
    #: None: random. "imagenet": the backbone's, fetched by torchvision. Otherwise a file.
    weights: str | None = None


@dataclass
class TrainConfig:
    """The schedule and the random augmentation."""

    iterations: int = 30000
    batch_size: int = 16
    #: Pixels a side of a training crop, k * output_stride + 1.
    crop_size: int = 513
    learning_rate: float = 0.007
    #: Poly schedule: learning_rate * (1 - iteration / iterations) ** power (v2, section 4.1).
    power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 4e-5
    #: The learning rate of everything that is not the backbone, as a multiple (v2: 10).
    head_multiplier: float = 1.0
    freeze_batch_norm: bool = False
    #: Random scale, drawn from scale_min, scale_min + scale_step, ..., scale_max.
    scale_min: float = 0.5
    scale_max: float = 2.0
    scale_step: float = 0.25
    flip: bool = True
    photometric: bool = False
    #: Iterations between two validations over the whole val split.
    validate_every: int = 1000
    #: Which weights become model.ckpt: of the best val mIoU, or the last (the papers').
    keep: str = "best"
    #: Use only the first N training images, without augmentation; None: all of them.
    overfit_images: int | None = None
    #: Lightning's precision: 32-true, bf16-mixed, 16-mixed.
    precision: str = "32-true"


@dataclass
class EvaluateConfig:
    """What is scored, and how the network is run at test time."""

    split: str = "test"
    #: Scales of the multi-scale figures, softmax averaged (v3, section 4).
    scales: list[float] = field(default_factory=lambda: [0.5, 0.75, 1.0, 1.25, 1.5, 1.75])
    flip: bool = True
    #: Pad each image with the mean pixel to at least this side; None: to the next k * OS + 1.
    pad_to: int | None = None
    #: Side in pixels at which GMACs and milliseconds an image are stated.
    cost_size: int = 513
    #: Test images whose overlays are saved.
    pictures: int = 6


@dataclass
class CrfConfig:
    """The fully connected CRF, in the papers' names (v1, section 2.3; v2, section 3.3)."""

    w1: float = 4.0
    #: Pixels.
    sigma_alpha: float = 67.0
    #: Intensity levels of 0..255.
    sigma_beta: float = 3.0
    w2: float = 3.0
    #: Pixels.
    sigma_gamma: float = 1.0
    iterations: int = 10


@dataclass
class TrainerConfig:
    """Where and how it runs; nothing here changes the result."""

    accelerator: str = "auto"
    devices: int = 1
    #: Loader processes for training, and CRF processes in evaluation; None: one a core.
    workers: int | None = None
    progress_bar: bool = True
    #: None, simple or advanced (Lightning's profilers).
    profiler: str | None = None
    #: Run this many batches of training and validation, and stop; 0: everything.
    fast_dev_run: int = 0


@dataclass
class Config:
    """One run: which data, which network, how it is trained, evaluated and refined."""

    dataset: str = "shapes"
    seed: int = 0
    #: The run's name in MLflow and in the report.
    variant: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    #: The overrides that made this run, for its name and its row in MLflow.
    overrides: list[str] = field(default_factory=list)
    #: Name -> Hydra overrides; what `dvc repro` compares. Empty in a resolved configuration.
    variants: dict[str, list[str]] = field(default_factory=dict)


def atrous_rates(config: ModelConfig) -> tuple[int, ...]:
    """The ASPP's atrous rates at the configured output stride.

    v3, section 3.3: (6, 12, 18) at output stride 16 are doubled at 8; halved at 32.
    """
    stated = tuple(config.rates) if config.rates is not None else ASPP_RATES[config.aspp]
    factor = RATES_STATED_AT[config.aspp] / config.output_stride
    return tuple(max(1, round(rate * factor)) for rate in stated)


def architecture(config: ModelConfig) -> str:
    """The name of the paper's network that the settings amount to."""
    if config.aspp == "summed":
        return "DeepLabv2"
    return "DeepLabv3+" if config.decoder else "DeepLabv3"


def check(config: Config) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: with the key, the value and what is allowed.
    """
    _check_model(config.model)
    _check_train(config.train, config.model.output_stride)
    _check_evaluate(config.evaluate, config.crf)
    _at_least("trainer.devices", config.trainer.devices, 1)
    if config.trainer.workers is not None:
        _at_least("trainer.workers", config.trainer.workers, 0)
    _one_of("trainer.accelerator", config.trainer.accelerator, ("auto", "cpu", "gpu", "mps"))
    if config.trainer.profiler is not None:
        _one_of("trainer.profiler", config.trainer.profiler, ("simple", "advanced"))


def _check_model(model: ModelConfig) -> None:
    _one_of("model.backbone", model.backbone, BACKBONES)
    if model.output_stride not in OUTPUT_STRIDES:
        raise UserError(
            f"model.output_stride={model.output_stride}: {model.backbone} can be built at "
            f"output stride {', '.join(map(str, OUTPUT_STRIDES))}"
        )
    _one_of("model.aspp", model.aspp, tuple(ASPP_RATES))
    if model.decoder and model.aspp == "summed":
        raise UserError(
            "model.decoder=true with model.aspp=summed: v2's ASPP ends in class scores, a decoder "
            "needs features; take model.aspp=v3, no_pooling or no_atrous"
        )
    if model.rates is not None:
        if model.aspp == "no_atrous" and model.rates:
            raise UserError(
                f"model.rates={list(model.rates)} with model.aspp=no_atrous: there are no atrous "
                "branches to take rates; remove model.rates"
            )
        if model.aspp != "no_atrous" and not model.rates:
            raise UserError("model.rates=[]: for no atrous branches say model.aspp=no_atrous")
        for rate in model.rates:
            _at_least("model.rates", rate, 1)
    _at_least("model.aspp_channels", model.aspp_channels, 1)
    _at_least("model.low_level_channels", model.low_level_channels, 1)
    if not 0 <= model.dropout < 1:
        raise UserError(f"model.dropout={model.dropout}: must be in 0 <= dropout < 1")


def _check_train(train: TrainConfig, output_stride: int) -> None:
    smallest = 4 * output_stride + 1
    if train.crop_size < smallest:
        raise UserError(
            f"train.crop_size={train.crop_size}: too small for model.output_stride="
            f"{output_stride}; at least {smallest}"
        )
    if (train.crop_size - 1) % output_stride:
        lower = (train.crop_size - 1) // output_stride * output_stride + 1
        raise UserError(
            f"train.crop_size={train.crop_size}: must be k * output_stride + 1; at output stride "
            f"{output_stride} the nearest are {lower} and {lower + output_stride}"
        )
    _at_least("train.iterations", train.iterations, 0)
    _at_least("train.batch_size", train.batch_size, 1)
    _at_least("train.validate_every", train.validate_every, 1)
    if not 0 < train.scale_min <= train.scale_max:
        raise UserError(
            f"train.scale_min={train.scale_min}, train.scale_max={train.scale_max}: "
            "must be 0 < scale_min <= scale_max"
        )
    if train.scale_step <= 0:
        raise UserError(f"train.scale_step={train.scale_step}: must be above 0")
    if train.learning_rate <= 0:
        raise UserError(f"train.learning_rate={train.learning_rate}: must be above 0")
    if train.overfit_images is not None:
        _at_least("train.overfit_images", train.overfit_images, 1)
    _one_of("train.keep", train.keep, ("best", "last"))
    _one_of("train.precision", train.precision, ("32-true", "bf16-mixed", "16-mixed"))


def _check_evaluate(evaluate: EvaluateConfig, crf: CrfConfig) -> None:
    _one_of("evaluate.split", evaluate.split, ("train", "val", "test"))
    if not evaluate.scales or min(evaluate.scales) <= 0:
        raise UserError(
            f"evaluate.scales={list(evaluate.scales)}: a list of scales above 0, e.g. [0.5, 1.0]"
        )
    _at_least("evaluate.pictures", evaluate.pictures, 0)
    _at_least("evaluate.cost_size", evaluate.cost_size, 33)
    if evaluate.pad_to is not None:
        _at_least("evaluate.pad_to", evaluate.pad_to, 1)
    for key in ("sigma_alpha", "sigma_beta", "sigma_gamma"):
        if getattr(crf, key) <= 0:
            raise UserError(f"crf.{key}={getattr(crf, key)}: must be above 0")
    _at_least("crf.iterations", crf.iterations, 1)


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{key}={value}: {nearest(value, known)}")


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{key}={value}: must be at least {least}")
