"""The typed configuration and its invariants, nothing else.

The values come from `params.yaml`, the structure from `conf/`; `compose.py` puts them together.
Every combination that cannot work is refused here, before anything runs.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pipeline.config.model import ModelConfig, check_model, output_strides
from pipeline.config.rules import above_zero, at_least, one_of
from pipeline.errors import UserError

#: What `evaluate.output_stride` can be; a backbone may allow fewer, which building it says.
STRIDES = (4, 8, 16, 32, 64, 128, 256)


@dataclass
class SecondPhase:
    """What a second phase changes (v3, section 4.1); everything else is as in the first.

    It goes on from the first one's weights, in a network built at another output stride, with a new
    optimiser and the schedule from its start.
    """

    #: v3: 30000; 0: there is no second phase.
    iterations: int = 0
    learning_rate: float = 0.001
    #: The trained network's in the end.
    output_stride: int = 8
    freeze_batch_norm: bool = True
    #: The split that is learned from (v3: trainval); None: the same.
    split: str | None = None


@dataclass
class TrainConfig:
    """The schedule and the random augmentation."""

    #: The split that is learned from: one of the data set's, e.g. train or trainaug.
    split: str = "train"
    #: Classes whose images come twice in a pass (bootstrapping on hard images: v3, section 4.3).
    repeat: list[str] = field(default_factory=list)
    iterations: int = 30000
    #: Images before the weights change, on all processes together.
    batch_size: int = 16
    #: Parts that a process's images are taken in, one after the other, to need less memory; batch
    #: norm, unless frozen, sees a part at a time.
    accumulate: int = 1
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
    #: Of each class in the loss. None: all 1; median_frequency: from the split's statistics (Eigen
    #: and Fergus, arXiv 1411.4734); or a list of numbers.
    class_weights: Any = None
    #: Share of a batch's pixels that are learned from, those of the largest loss (Shrivastava et
    #: al., arXiv 1604.03540; top_k_percent_pixels of the released v3+ code); 1: all. With
    #: `accumulate`, of each part.
    ohem: float = 1.0
    #: Keep the running statistics; scale and shift go on learning.
    freeze_batch_norm: bool = False
    #: The share of a batch in the running statistics (v3, section 4.1: 1 - 0.9997).
    batch_norm_momentum: float = 0.1
    #: Take statistics over all processes together; otherwise each one's own, and the first one's
    #: are kept (v3, Table 11).
    sync_batch_norm: bool = True
    #: Of a moving average of the weights, which is then what is validated and kept, e.g. 0.9999;
    #: None: the weights themselves.
    ema_decay: float | None = None
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
    #: Validations without a better val mIoU after which a phase ends; None: it never ends early.
    patience: int | None = None
    #: v3's second phase, at another output stride.
    second_phase: SecondPhase = field(default_factory=SecondPhase)
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
    #: Scales of the multi-scale figures (v3, section 4).
    scales: list[float] = field(default_factory=lambda: [0.5, 0.75, 1.0, 1.25, 1.5, 1.75])
    flip: bool = True
    #: How they are put together. average: the mean of the softmax (v3, section 4); maximum: the
    #: softmax of the greatest scores (v2, section 4.1.2).
    fusion: str = "average"
    #: Pad each image with the mean pixel to at least this side; None: to the next k * OS + 1.
    pad_to: int | None = None
    #: Run larger images in tiles of this side, rounded up to k * OS + 1; None: as a whole.
    window: int | None = None
    #: Share of a side that neighbouring tiles have in common, at least; there the scores are
    #: averaged.
    overlap: float = 0.33
    #: Images run together, all of one padded size.
    batch_size: int = 1
    #: Of the network's arithmetic: 32 bits, or bf16, faster on GPUs.
    precision: str = "32"
    #: Side in pixels at which GMACs and milliseconds an image are stated.
    cost_size: int = 513
    #: Test images whose overlays are saved.
    pictures: int = 6


#: What of `evaluate` the network's run over a split depends on; the rest is what becomes of it.
NETWORK_RUN = (
    "split",
    "output_stride",
    "scales",
    "flip",
    "pad_to",
    "window",
    "overlap",
    "batch_size",
    "precision",
    "cost_size",
)


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
    #: the size; exact: all pairs of pixels, for a GPU (minutes an image without); pydensecrf: the
    #: reference, slow, and not on Python 3.13.
    backend: str = "lattice"
    #: symmetric, as pydensecrf; after: divided after filtering, as the authors' code is believed to
    #: do. It moves the figures: published weights may want the other.
    normalisation: str = "symmetric"


@dataclass
class SearchConfig:
    """Coarse-to-fine search of the CRF's settings on images held apart (v1, section 5).

    The defaults are v2's (section 4). What is not listed (w2, sigma_gamma, iterations,
    normalisation) stays as `crf` says.
    """

    #: Images of evaluate.split that the search sees, and that no figure counts; 0: no search, `crf`
    #: as it stands.
    images: int = 0
    #: Which images are taken.
    seed: int = 0
    #: The first round's grid, in growing order; one value alone is kept as it is.
    w1: list[float] = field(default_factory=lambda: [3.0, 4.0, 5.0, 6.0])
    sigma_alpha: list[float] = field(
        default_factory=lambda: [30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0]
    )
    sigma_beta: list[float] = field(default_factory=lambda: [3.0, 4.0, 5.0, 6.0])
    #: The first, and those that follow with half the step around the best so far.
    rounds: int = 3


@dataclass
class TrainerConfig:
    """Where and how it runs; nothing here changes the result."""

    accelerator: str = "auto"
    devices: int = 1
    #: Machines that train together, each with so many devices.
    nodes: int = 1
    #: Loader processes for training, and images scored side by side in evaluation; None: one a
    #: core.
    workers: int | None = None
    #: Keep images decoded in data/decoded/, 4 bytes a pixel: for PNGs, and many GPUs a core.
    decoded: bool = False
    progress_bar: bool = True
    #: Minutes after which a training's state is saved again: at most this much is lost.
    save_minutes: float = 5.0
    #: Train the network through torch.compile: minutes at the start, then faster on a GPU; the same
    #: within rounding.
    compile: bool = False
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
    search: SearchConfig = field(default_factory=SearchConfig)
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
    _check_second_phase(config.train, config.train.second_phase, config.model)
    _check_evaluate(config.evaluate)
    _check_crf(config.crf)
    _check_search(config.search)
    at_least("trainer.devices", config.trainer.devices, 1)
    at_least("trainer.nodes", config.trainer.nodes, 1)
    if config.trainer.workers is not None:
        at_least("trainer.workers", config.trainer.workers, 0)
    one_of("trainer.accelerator", config.trainer.accelerator, ("auto", "cpu", "gpu", "mps"))
    if config.trainer.save_minutes < 0:
        raise UserError(f"trainer.save_minutes={config.trainer.save_minutes}: must be 0 or more")
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
    at_least("train.accumulate", train.accumulate, 1)
    if train.batch_size % train.accumulate:
        raise UserError(
            f"train.accumulate={train.accumulate}: train.batch_size={train.batch_size} must be a "
            "multiple of it"
        )
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
    _check_class_weights(train.class_weights)
    for key in ("ohem", "batch_norm_momentum"):
        share = getattr(train, key)
        if not 0 < share <= 1:
            raise UserError(f"train.{key}={share}: must be above 0 and up to 1")
    if train.ema_decay is not None and not 0 < train.ema_decay < 1:
        raise UserError(f"train.ema_decay={train.ema_decay}: must be above 0 and below 1, or null")
    if train.overfit_images is not None:
        at_least("train.overfit_images", train.overfit_images, 1)
    if train.patience is not None:
        at_least("train.patience", train.patience, 1)
    one_of("train.keep", train.keep, ("best", "last"))
    one_of("train.precision", train.precision, ("32-true", "bf16-mixed", "16-mixed"))


def _check_class_weights(weights: Any) -> None:
    if weights is None or weights == "median_frequency":
        return
    numbers = weights if isinstance(weights, list) else []
    known = all(isinstance(one, int | float) and 0 <= one < math.inf for one in numbers)
    if not known or not any(numbers):
        raise UserError(
            f"train.class_weights={weights}: null, median_frequency or a list of one number a "
            "class, 0 or more"
        )


def _check_second_phase(train: TrainConfig, then: SecondPhase, model: ModelConfig) -> None:
    at_least("train.second_phase.iterations", then.iterations, 0)
    if not then.iterations:
        return
    above_zero("train.second_phase.learning_rate", then.learning_rate)
    if then.output_stride not in (allowed := output_strides(model)):
        raise UserError(
            f"train.second_phase.output_stride={then.output_stride}: {model.backbone} can be built "
            f"at output stride {', '.join(map(str, allowed))}"
        )
    if (train.crop_size - 1) % then.output_stride:
        raise UserError(
            f"train.crop_size={train.crop_size}: must be k * {then.output_stride} + 1 for "
            "train.second_phase.output_stride too"
        )


def _check_evaluate(evaluate: EvaluateConfig) -> None:
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
    one_of("evaluate.fusion", evaluate.fusion, ("average", "maximum"))
    one_of("evaluate.precision", evaluate.precision, ("32", "bf16"))
    at_least("evaluate.batch_size", evaluate.batch_size, 1)
    if evaluate.window is not None:
        at_least("evaluate.window", evaluate.window, 33)
    if not 0 <= evaluate.overlap < 1:
        raise UserError(f"evaluate.overlap={evaluate.overlap}: a share of a side, 0 to below 1")


def _check_crf(crf: CrfConfig) -> None:
    for key in ("w1", "w2"):
        weight = getattr(crf, key)
        if not 0 <= weight < math.inf:
            raise UserError(f"crf.{key}={weight}: must be 0 or more, and finite")
    for key in ("sigma_alpha", "sigma_beta", "sigma_gamma"):
        sigma = getattr(crf, key)
        if not 0 < sigma < math.inf:
            raise UserError(f"crf.{key}={sigma}: must be above 0 and finite")
    at_least("crf.iterations", crf.iterations, 1)
    one_of("crf.backend", crf.backend, ("lattice", "fast", "exact", "pydensecrf"))
    one_of("crf.normalisation", crf.normalisation, ("symmetric", "after"))


def _check_search(search: SearchConfig) -> None:
    at_least("search.images", search.images, 0)
    at_least("search.rounds", search.rounds, 1)
    for key in ("w1", "sigma_alpha", "sigma_beta"):
        values = list(getattr(search, key))
        if not values or any(low >= high for low, high in pairwise(values)):
            raise UserError(
                f"search.{key}={values}: the values of the first round, each above the one before, "
                "e.g. [3, 4, 5, 6]"
            )
        above_zero(f"search.{key}", values[0])
