"""The typed configuration and its invariants, nothing else.

The values come from `params.yaml`, the structure from `conf/`; `compose.py` puts them together.
Every combination that cannot work is refused here, before anything runs.
"""

from dataclasses import dataclass, field

from pipeline.config.model import ModelConfig, check_model
from pipeline.config.rules import above_zero, at_least, one_of
from pipeline.errors import UserError

#: What `evaluate.output_stride` can be; a backbone may allow fewer, which building it says.
STRIDES = (4, 8, 16, 32, 64, 128, 256)


@dataclass
class TrainConfig:
    """The schedule and the random augmentation."""

    #: The split that is learned from: one of the data set's, e.g. train or trainaug.
    split: str = "train"
    #: Classes whose images come twice in a pass (bootstrapping on hard images: v3, section 4.3).
    repeat: list[str] = field(default_factory=list)
    iterations: int = 30000
    batch_size: int = 16
    #: Pixels a side of a training crop, k * output_stride + 1.
    crop_size: int = 513
    learning_rate: float = 0.007
    #: How it falls: poly, (1 - iteration / iterations) ** power (v2, section 4.1); step, times
    #: step_factor after each step_every iterations (v1, section 4); cosine.
    schedule: str = "poly"
    power: float = 0.9
    step_every: int = 2000
    step_factor: float = 0.1
    #: Iterations over which the learning rate first grows linearly; 0: none.
    warmup_iterations: int = 0
    momentum: float = 0.9
    weight_decay: float = 4e-5
    #: The learning rate of everything that is not the backbone, as a multiple (v2: 10).
    head_multiplier: float = 1.0
    #: The learning rate of biases, as a multiple of their layer's; other than 1, they are not
    #: decayed either (v1 and v2, released settings: 2).
    bias_multiplier: float = 1.0
    #: Whether the scores are upsampled to the labels for the loss (v3, Table 8); otherwise the
    #: labels are subsampled to the scores (v1, v2).
    upsample_logits: bool = True
    #: Of the auxiliary classifier's loss, where model.auxiliary has one.
    auxiliary_weight: float = 0.5
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
    #: At which the trained network is run; None: as it was trained (v3, Table 10).
    output_stride: int | None = None
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
    #: lattice: this project's filter on the permutohedral lattice; fast: the same on a grid of half
    #: the size; pydensecrf: the reference, slow.
    backend: str = "lattice"
    #: symmetric, as pydensecrf; after: divided after filtering, as the authors' code is believed to
    #: do. It moves the figures: published weights may want the other.
    normalisation: str = "symmetric"


@dataclass
class TrainerConfig:
    """Where and how it runs; nothing here changes the result."""

    accelerator: str = "auto"
    devices: int = 1
    #: Loader processes for training, and CRF processes in evaluation; None: one a core.
    workers: int | None = None
    #: Keep images decoded in data/decoded/, 4 bytes a pixel: for PNGs, and many GPUs a core.
    decoded: bool = False
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


def check(config: Config) -> None:
    """Refuse what cannot work.

    Raises:
        UserError: with the key, the value and what is allowed.
    """
    check_model(config.model)
    _check_train(config.train, config.model.output_stride)
    _check_evaluate(config.evaluate, config.crf)
    at_least("trainer.devices", config.trainer.devices, 1)
    if config.trainer.workers is not None:
        at_least("trainer.workers", config.trainer.workers, 0)
    one_of("trainer.accelerator", config.trainer.accelerator, ("auto", "cpu", "gpu", "mps"))
    if config.trainer.profiler is not None:
        one_of("trainer.profiler", config.trainer.profiler, ("simple", "advanced"))


def _check_train(train: TrainConfig, output_stride: int) -> None:
    smallest = 2 * output_stride + 1
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
    at_least("train.iterations", train.iterations, 0)
    at_least("train.batch_size", train.batch_size, 1)
    at_least("train.validate_every", train.validate_every, 1)
    if not 0 < train.scale_min <= train.scale_max:
        raise UserError(
            f"train.scale_min={train.scale_min}, train.scale_max={train.scale_max}: "
            "must be 0 < scale_min <= scale_max"
        )
    above_zero("train.scale_step", train.scale_step)
    above_zero("train.learning_rate", train.learning_rate)
    one_of("train.schedule", train.schedule, ("poly", "step", "cosine"))
    at_least("train.step_every", train.step_every, 1)
    at_least("train.warmup_iterations", train.warmup_iterations, 0)
    for key in ("step_factor", "bias_multiplier", "head_multiplier"):
        above_zero(f"train.{key}", getattr(train, key))
    if train.overfit_images is not None:
        at_least("train.overfit_images", train.overfit_images, 1)
    one_of("train.keep", train.keep, ("best", "last"))
    one_of("train.precision", train.precision, ("32-true", "bf16-mixed", "16-mixed"))


def _check_evaluate(evaluate: EvaluateConfig, crf: CrfConfig) -> None:
    if not evaluate.scales or min(evaluate.scales) <= 0:
        raise UserError(
            f"evaluate.scales={list(evaluate.scales)}: a list of scales above 0, e.g. [0.5, 1.0]"
        )
    at_least("evaluate.pictures", evaluate.pictures, 0)
    at_least("evaluate.cost_size", evaluate.cost_size, 33)
    if evaluate.output_stride is not None and evaluate.output_stride not in STRIDES:
        raise UserError(
            f"evaluate.output_stride={evaluate.output_stride}: one of "
            f"{', '.join(map(str, STRIDES))}, or null for the stride of training"
        )
    if evaluate.pad_to is not None:
        at_least("evaluate.pad_to", evaluate.pad_to, 1)
    for key in ("sigma_alpha", "sigma_beta", "sigma_gamma"):
        above_zero(f"crf.{key}", getattr(crf, key))
    at_least("crf.iterations", crf.iterations, 1)
    one_of("crf.backend", crf.backend, ("lattice", "fast", "pydensecrf"))
    one_of("crf.normalisation", crf.normalisation, ("symmetric", "after"))
