"""Which trained weights there are for a network, by name: a plain table, and timm's own list."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.config import ModelConfig
from pipeline.config.model import TIMM
from pipeline.errors import UserError, nearest
from pipeline.paths import PROJECT


class Normalisation(NamedTuple):
    """Mean and standard deviation of the RGB values in [0, 1] that a network was trained with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:.3g}" for value in values) for values in self)
        return f"mean {mean}, std {std}"


#: ImageNet's statistics: torchvision's networks, and most of timm's.
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Values from -1 to 1: TensorFlow's networks.
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
#: Values from 0 to 255 less their mean: Caffe's networks.
CAFFE = Normalisation((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255))

#: Of every repository of timm's.
HUB_FILE = "model.safetensors"
TORCHVISION_URL = "https://download.pytorch.org/models/"
#: What torchvision's whole networks are built with. Their output stride is 8 and their
#: align_corners false; weights do not depend on these.
TORCHVISION_FCN: Mapping[str, object] = {"network": "fcn", "blocks": 4}
TORCHVISION_DEEPLAB: Mapping[str, object] = {
    "network": "deeplab",
    "aspp": "v3",
    "aspp_channels": 256,
    "separable": False,
    "head_conv": True,
    "decoder": False,
    "blocks": 4,
}


@dataclass(frozen=True)
class WeightSet:
    """Published weights, as `model.weights` names them.

    Attributes:
        name: what `model.weights` says.
        backbone: what `model.backbone` says.
        publisher: "torchvision" or "timm".
        place: a URL whose file name ends in its sha256's first digits, or a repository of the
            Hugging Face hub.
        normalisation: of the images that they were trained with.
        metric: what their publisher states.
        width: what `model.width` says.
        stem: what `model.stem` says.
        settings: what else `model` must say, for a whole network.
    """

    name: str
    backbone: str
    publisher: str
    place: str
    normalisation: Normalisation
    metric: str
    width: float = 1.0
    stem: str = "7x7"
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where a browser finds the file."""
        if "://" in self.place:
            return self.place
        return f"https://huggingface.co/{self.place}/resolve/main/{HUB_FILE}"

    def __str__(self) -> str:
        needs = f"; needs {said(self.settings)}" if self.settings else ""
        return (
            f"{self.name}: {self.metric}; {self.publisher}, {self.url}; {self.normalisation}{needs}"
        )


def _torchvision(name: str, backbone: str, file: str, metric: str) -> WeightSet:
    return WeightSet(name, backbone, "torchvision", TORCHVISION_URL + file, IMAGENET, metric)


def _coco_voc(
    backbone: str, file: str, miou: str, settings: Mapping[str, object] = TORCHVISION_DEEPLAB
) -> WeightSet:
    place, metric = TORCHVISION_URL + file, f"mIoU {miou} on COCO val2017 with VOC's classes"
    return WeightSet(
        "coco_voc", backbone, "torchvision", place, IMAGENET, metric, settings=settings
    )


def _timm(
    name: str,
    backbone: str,
    repository: str,
    normalisation: Normalisation,
    metric: str,
    *,
    width: float = 1.0,
    stem: str = "7x7",
) -> WeightSet:
    place = f"timm/{repository}"
    return WeightSet(name, backbone, "timm", place, normalisation, metric, width, stem)


#: "imagenet" is what the papers' authors had, or what comes nearest; the others of a backbone are
#: later recipes for the same network. "top-1" is ImageNet's, in percent.
#: Sources: torchvision's weight enumerations; timm's results-imagenet.csv.
WEIGHT_SETS = (
    _torchvision("imagenet", "vgg16", "vgg16-397923af.pth", "top-1 71.592"),
    WeightSet(
        "imagenet_caffe",
        "vgg16",
        "torchvision",
        TORCHVISION_URL + "vgg16_features-amdegroot-88682ab5.pth",
        CAFFE,
        "not stated; the original network's, without its fully connected layers",
    ),
    _torchvision("imagenet", "resnet18", "resnet18-f37072fd.pth", "top-1 69.758"),
    _torchvision("imagenet", "resnet34", "resnet34-b627a593.pth", "top-1 73.314"),
    _torchvision("imagenet", "resnet50", "resnet50-0676ba61.pth", "top-1 76.13"),
    _torchvision("imagenet_v2", "resnet50", "resnet50-11ad3fa6.pth", "top-1 80.858"),
    _timm("imagenet", "resnet50", "resnet50s.gluon_in1k", IMAGENET, "top-1 78.718", stem="3x3"),
    _coco_voc("resnet50", "deeplabv3_resnet50_coco-cd0a2569.pth", "66.4"),
    _coco_voc("resnet50", "fcn_resnet50_coco-1167a1af.pth", "60.5", TORCHVISION_FCN),
    _torchvision("imagenet", "resnet101", "resnet101-63fe2227.pth", "top-1 77.374"),
    _torchvision("imagenet_v2", "resnet101", "resnet101-cd907fc2.pth", "top-1 81.886"),
    _timm("imagenet", "resnet101", "resnet101s.gluon_in1k", IMAGENET, "top-1 80.302", stem="3x3"),
    _coco_voc("resnet101", "deeplabv3_resnet101_coco-586e9e4e.pth", "67.4"),
    _coco_voc("resnet101", "fcn_resnet101_coco-7ecb50ca.pth", "63.7", TORCHVISION_FCN),
    _timm("imagenet", "xception41", "xception41.tf_in1k", HALF, "top-1 78.504"),
    _timm("imagenet", "xception65", "xception65.tf_in1k", HALF, "top-1 79.556"),
    _timm("imagenet_ra3", "xception65", "xception65.ra3_in1k", HALF, "top-1 83.182"),
    _timm("imagenet", "xception71", "xception71.tf_in1k", HALF, "top-1 79.872"),
    _torchvision("imagenet", "mobilenet_v2", "mobilenet_v2-b0353104.pth", "top-1 71.878"),
    _torchvision("imagenet_v2", "mobilenet_v2", "mobilenet_v2-7ebf99e0.pth", "top-1 72.154"),
    _timm(
        "imagenet",
        "mobilenet_v2",
        "mobilenetv2_050.lamb_in1k",
        IMAGENET,
        "top-1 65.95",
        width=0.5,
    ),
    _timm(
        "imagenet",
        "mobilenet_v2",
        "mobilenetv2_140.ra_in1k",
        IMAGENET,
        "top-1 76.52",
        width=1.4,
    ),
)


def known_weights() -> tuple[WeightSet, ...]:
    """Every named weight set of the project's own backbones; timm's come with `weight_sets`."""
    return WEIGHT_SETS


def weight_sets(model: ModelConfig) -> tuple[WeightSet, ...]:
    """The named weight sets of the configured backbone and network."""
    if model.backbone.startswith(TIMM):
        return _timm_sets(model.backbone)
    return tuple(
        one
        for one in WEIGHT_SETS
        if (one.backbone, one.width, one.stem) == (model.backbone, model.width, model.stem)
        and one.settings.get("network", model.network) == model.network
        and model.round_channels
    )


def describe(model: ModelConfig) -> list[str]:
    """A line for each weight set that `model.weights` can name: metric, source, normalisation."""
    return [str(one) for one in weight_sets(model)]


def find_weights(model: ModelConfig) -> WeightSet | Path | None:
    """What `model.weights` means: a known set, a file that is there, or None for random weights.

    A relative path starts at the project's root; a run's folder means its model.ckpt.

    Raises:
        UserError: for an unknown name, a missing file, or a set of another network.
    """
    asked = model.weights
    if asked is None:
        return None
    known = weight_sets(model)
    for one in known:
        if one.name == asked:
            _check_settings(one, model)
            return one
    path = PROJECT / Path(asked).expanduser()
    if path.is_dir():
        path /= "model.ckpt"
    if path.is_file():
        return path
    if "/" in asked or "." in asked:
        raise UserError(
            f"model.weights={asked}: no such file; name a state_dict (.pth, .safetensors), a .ckpt "
            f"or the folder of a run, {_or_names(known)}or set model.weights=null"
        )
    names = nearest(asked, [one.name for one in known]) if known else "there are none at all"
    raise UserError(
        f"model.weights={asked}: no published weights of this name for {_which(model)}; {names}; "
        "or name a file, or set model.weights=null for random weights"
    )


def said(settings: Mapping[str, object]) -> str:
    """Settings of `model` as a command line says them."""
    words = {True: "true", False: "false", None: "null"}
    return ", ".join(
        f"model.{key}={words[value] if value is None or isinstance(value, bool) else value}"
        for key, value in settings.items()
    )


def _check_settings(one: WeightSet, model: ModelConfig) -> None:
    own = vars(model)
    wrong = {key: own[key] for key, value in one.settings.items() if own[key] != value}
    if wrong:
        needed = {key: one.settings[key] for key in wrong}
        raise UserError(
            f"model.weights={one.name} with {said(wrong)}: they are a whole network's; "
            f"set {said(needed)}, or take other weights"
        )


def _which(model: ModelConfig) -> str:
    own, usual = vars(model), vars(ModelConfig())
    keys = ("network", "backbone", "width", "round_channels", "stem")
    return said({key: own[key] for key in keys if key == "backbone" or own[key] != usual[key]})


def _or_names(known: Iterable[WeightSet]) -> str:
    names = ", ".join(one.name for one in known)
    return f"or one of {names}, " if names else ""


def _timm_sets(backbone: str) -> tuple[WeightSet, ...]:
    """Of one of timm's models: "imagenet" is its default, and each goes by its tag."""
    import timm  # takes seconds, and few runs come here

    name = backbone.removeprefix(TIMM)
    architecture = name.partition(".")[0]
    tagged = timm.list_pretrained(f"{architecture}.*")
    sets = {one.partition(".")[2]: one for one in tagged}
    if name in (*tagged, architecture) and tagged:
        sets = {"imagenet": name} | sets
    found = ((tag, timm.get_pretrained_cfg(one)) for tag, one in sets.items())
    return tuple(
        WeightSet(
            name=tag,
            backbone=backbone,
            publisher="timm",
            place=cfg.hf_hub_id or str(cfg.url),
            normalisation=Normalisation(tuple(cfg.mean), tuple(cfg.std)),
            metric="see timm's results",
        )
        for tag, cfg in found
        if cfg is not None
    )
