"""The network's settings: every choice of the papers' tables, and what cannot be combined."""

from dataclasses import dataclass, field

from pipeline.config.rules import above_zero, at_least, one_of
from pipeline.errors import UserError, nearest

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
XCEPTIONS = ("xception41", "xception65", "xception71")
#: The project's own; any other comes from timm, as `timm/NAME`.
BACKBONES = ("vgg16", *RESNETS, *XCEPTIONS, "mobilenet_v2")
TIMM = "timm/"

#: DeepLab, and the networks that its papers compare with.
NETWORKS = ("deeplab", "fcn", "unet", "linknet", "fpn", "pspnet")
OUTPUT_STRIDES = (4, 8, 16, 32)
STEMS = ("7x7", "3x3")
DECODER_FEATURES = ("conv2", "conv3")

#: What `model.aspp` can be, and the atrous rates of its paper.
#: v1 and v2 state their rates at output stride 8, v3 at 16; `atrous_rates` moves them to the one
#: asked for.
ASPP_RATES: dict[str, tuple[int, ...]] = {
    "none": (),  # a 1x1 convolution to the classes; v3, section 3.2 (cascade)
    "fc6": (12,),  # VGG-16's fc6-fc7-fc8, one branch a rate, summed; v1 LargeFOV; v2 ASPP-S, -L
    "summed": (6, 12, 18, 24),  # v2 on ResNet-101: a 3x3 a rate straight to the classes, summed
    "v3": (6, 12, 18),  # v3, section 3.3: 1x1, three atrous, image pooling, concatenated
    "no_pooling": (6, 12, 18),  # v3, Table 5: the same without image pooling
    "no_atrous": (),  # MobileNetV2, section 6.3: only 1x1 and image pooling
}
RATES_STATED_AT = {"fc6": 8, "summed": 8}
#: Those that end in features, which a decoder can take.
FEATURE_ASPPS = ("v3", "no_pooling", "no_atrous")


@dataclass
class ModelConfig:
    """The network: a backbone at an output stride, a head, and where its weights start."""

    #: deeplab, or one to compare with: fcn, unet, linknet, fpn, pspnet. Those have their library's
    #: head; of the settings below they read the backbone's, `output_stride` and `weights`.
    network: str = "deeplab"
    backbone: str = "mobilenet_v2"
    output_stride: int = 16
    #: Of MobileNetV2: the channels, as a multiple of the paper's.
    width: float = 1.0
    #: Of MobileNetV2: channels as multiples of 8, as published weights have them. false: the
    #: product itself, as the DeepLab authors' release has it at every width but 1.
    round_channels: bool = True
    #: Of ResNet: the 7x7 (torchvision's), or the three 3x3 of the DeepLab authors' release.
    stem: str = "7x7"
    #: Of ResNet: the last block; 5, 6 and 7 are copies of block 4 (v3, section 3.2).
    blocks: int = 4
    #: Of ResNet: rates of the convolutions in the units of block 4 and its copies, as multiples
    #: of the block's rate (v3, section 3.2.1). None: all the same.
    multi_grid: list[int] | None = None

    #: none, fc6, summed, v3, no_pooling, no_atrous: the head's shape, see `ASPP_RATES`.
    aspp: str = "v3"
    #: Atrous rates at the output stride where the paper states them (v1, v2: 8; v3: 16); they are
    #: scaled to `output_stride`. None: the paper's own.
    rates: list[int] | None = None
    #: Of aspp=fc6: 7, 4 or 3 pixels a side, and the channels of fc6 and fc7 (v2, Table 1).
    fc6_kernel: int = 3
    fc6_channels: int = 1024
    #: Of aspp=fc6: features of the image and of each of the first four pools join the last ones
    #: ("MSc"; v1, section 4.3).
    multi_scale_features: bool = False
    #: Of v3's ASPP.
    aspp_channels: int = 256
    dropout: float = 0.1
    #: Whether the ASPP's atrous 3x3s and the decoder's convolutions are depthwise separable (v3+).
    separable: bool = False
    #: A 3x3 of `aspp_channels` between the ASPP and the classes: torchvision's, not the paper's.
    head_conv: bool = False

    decoder: bool = False
    #: Of the decoder (v3+, Tables 1 and 2): channels to which the low-level maps are reduced;
    #: which maps join; the convolutions after each joining: how many, kernel, channels.
    low_level_channels: int = 48
    decoder_features: list[str] = field(default_factory=lambda: ["conv2"])
    decoder_layers: int = 2
    decoder_kernel: int = 3
    decoder_channels: int = 256

    #: The image is seen at each scale with the same weights, the scores fused by maximum, in
    #: training and in test ("MSC"; v2, section 4.1.2: [0.5, 0.75, 1]).
    scales: list[float] = field(default_factory=lambda: [1.0])
    #: A second classifier on block 3 whose loss joins in training (torchvision's FCN head).
    auxiliary: bool = False
    #: How scores are upsampled: corners on corners, or (torchvision's) pixel areas.
    align_corners: bool = True
    #: None: random. "imagenet" and other names of pipeline/models/weights; otherwise a file.
    weights: str | None = None


def atrous_rates(config: ModelConfig) -> tuple[int, ...]:
    """The head's atrous rates at the configured output stride.

    v3, section 3.3: (6, 12, 18) at output stride 16 are doubled at 8; halved at 32.
    """
    stated = tuple(config.rates) if config.rates is not None else ASPP_RATES[config.aspp]
    factor = RATES_STATED_AT.get(config.aspp, 16) / config.output_stride
    return tuple(max(1, round(rate * factor)) for rate in stated)


def output_strides(config: ModelConfig) -> tuple[int, ...]:
    """The output strides that the configured backbone can be built at."""
    extra = range(5, config.blocks + 1) if config.backbone in RESNETS else ()
    return (*OUTPUT_STRIDES, *(2 ** (block + 1) for block in extra))


def architecture(config: ModelConfig) -> str:
    """The name of the paper's network that the settings amount to."""
    others = {"fcn": "FCN", "unet": "U-Net", "linknet": "LinkNet", "fpn": "FPN", "pspnet": "PSPNet"}
    if config.network != "deeplab":
        return others[config.network]
    if config.decoder:
        return "DeepLabv3+"
    if config.aspp == "fc6":
        many = config.rates is not None and len(config.rates) > 1
        return "DeepLabv2" if many else "DeepLabv1"
    if config.aspp == "none" and config.blocks == 4 and config.multi_grid is None:
        # Atrous and no more: v2, with its scales, and v3 both start from it.
        return "DeepLabv2" if len(config.scales) > 1 else "DeepLab"
    return "DeepLabv2" if config.aspp == "summed" else "DeepLabv3"


def check_model(model: ModelConfig) -> None:
    """Refuse a network that cannot be built.

    Raises:
        UserError: with the key, the value and what is allowed.
    """
    one_of("model.network", model.network, NETWORKS)
    if not model.backbone.startswith(TIMM) and model.backbone not in BACKBONES:
        raise UserError(
            f"model.backbone={model.backbone}: {nearest(model.backbone, BACKBONES)}; "
            f"or timm/NAME for one of timm's"
        )
    if model.output_stride not in (allowed := output_strides(model)):
        raise UserError(
            f"model.output_stride={model.output_stride}: {model.backbone} can be built at "
            f"output stride {', '.join(map(str, allowed))}"
        )
    if model.network == "linknet" and model.output_stride != 32:
        raise UserError(
            f"model.output_stride={model.output_stride} with model.network=linknet: its decoder "
            "doubles each of five levels; take model.output_stride=32, or model.network=unet or fpn"
        )
    _check_backbone(model)
    _check_head(model)
    _check_decoder(model)
    if not model.scales or min(model.scales) <= 0 or max(model.scales) != 1.0:
        raise UserError(
            f"model.scales={list(model.scales)}: a list of scales above 0 of which the largest "
            "is 1, e.g. [0.5, 0.75, 1.0]"
        )
    if model.auxiliary and list(model.scales) != [1.0]:
        raise UserError(
            f"model.auxiliary=true with model.scales={list(model.scales)}: each scale has its own "
            "loss already; take model.auxiliary=false or model.scales=[1.0]"
        )


def _check_backbone(model: ModelConfig) -> None:
    above_zero("model.width", model.width)
    one_of("model.stem", model.stem, STEMS)
    if not 4 <= model.blocks <= 7:
        raise UserError(f"model.blocks={model.blocks}: the last block is 4, 5, 6 or 7")
    if model.width != 1.0 and model.backbone != "mobilenet_v2":
        raise UserError(
            f"model.width={model.width} with model.backbone={model.backbone}: only mobilenet_v2 "
            "has a width multiplier"
        )
    if not model.round_channels and model.width == 1.0:
        raise UserError(
            "model.round_channels=false with model.width=1.0: at this width nothing is rounded; "
            "leave it out, or set model.width"
        )
    if model.backbone in RESNETS:
        units = 2 if model.backbone == "resnet18" else 3
        if model.multi_grid is not None and (
            len(model.multi_grid) != units or min(model.multi_grid) < 1
        ):
            raise UserError(
                f"model.multi_grid={list(model.multi_grid)}: the last block of {model.backbone} "
                f"has {units} units; give each a rate of 1 or more, e.g. {[1, 2, 4][:units]}"
            )
        return
    for key, changed in (
        (f"model.stem={model.stem}", model.stem != "7x7"),
        (f"model.blocks={model.blocks}", model.blocks != 4),
        (f"model.multi_grid={model.multi_grid}", model.multi_grid is not None),
    ):
        if changed:
            raise UserError(
                f"{key} with model.backbone={model.backbone}: only {', '.join(RESNETS)} have this"
            )


def _check_head(model: ModelConfig) -> None:
    one_of("model.aspp", model.aspp, tuple(ASPP_RATES))
    if model.rates is not None:
        if model.rates and not ASPP_RATES[model.aspp]:
            raise UserError(
                f"model.rates={list(model.rates)} with model.aspp={model.aspp}: there are no "
                "atrous branches to take rates; remove model.rates"
            )
        if ASPP_RATES[model.aspp] and not model.rates:
            raise UserError("model.rates=[]: for no atrous branches say model.aspp=no_atrous")
        for rate in model.rates:
            at_least("model.rates", rate, 1)
    if model.fc6_kernel not in (3, 4, 7):
        raise UserError(f"model.fc6_kernel={model.fc6_kernel}: 3, 4 or 7")
    at_least("model.fc6_channels", model.fc6_channels, 1)
    if model.multi_scale_features and model.aspp != "fc6":
        raise UserError(
            f"model.multi_scale_features=true with model.aspp={model.aspp}: they join fc7's "
            "features; take model.aspp=fc6"
        )
    if model.multi_scale_features and model.rates is not None and len(model.rates) > 1:
        raise UserError(
            f"model.multi_scale_features=true with model.rates={list(model.rates)}: they join the "
            "fc7 of a single branch; take one rate"
        )
    at_least("model.aspp_channels", model.aspp_channels, 1)
    if not 0 <= model.dropout < 1:
        raise UserError(f"model.dropout={model.dropout}: must be in 0 <= dropout < 1")
    if model.head_conv and (model.aspp not in FEATURE_ASPPS or model.decoder):
        raise UserError(
            f"model.head_conv=true with model.aspp={model.aspp}, model.decoder={model.decoder}: "
            "it stands between v3's ASPP and the classes"
        )


def _check_decoder(model: ModelConfig) -> None:
    if model.decoder and model.aspp not in FEATURE_ASPPS:
        raise UserError(
            f"model.decoder=true with model.aspp={model.aspp}: that head ends in class scores, a "
            f"decoder needs features; take model.aspp={', '.join(FEATURE_ASPPS)}"
        )
    at_least("model.low_level_channels", model.low_level_channels, 1)
    at_least("model.decoder_layers", model.decoder_layers, 1)
    at_least("model.decoder_channels", model.decoder_channels, 1)
    if model.decoder_kernel not in (1, 3):
        raise UserError(f"model.decoder_kernel={model.decoder_kernel}: 1 or 3")
    if list(model.decoder_features) not in (["conv2"], ["conv3", "conv2"]):
        raise UserError(
            f"model.decoder_features={list(model.decoder_features)}: [conv2], or [conv3, conv2] "
            "to join Conv3 first"
        )
