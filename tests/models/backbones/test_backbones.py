import pytest
import torch
from norms import with_statistics

from pipeline.config import BACKBONES, ModelConfig
from pipeline.errors import UserError
from pipeline.models.backbones import Backbone, Features
from pipeline.models.backbones import build_backbone as build

STRIDES = (32, 16, 8, 4)
#: Each network, and the output strides from coarse to fine at which it must see the same.
CONSISTENT = [
    *((ModelConfig(backbone=name), STRIDES) for name in BACKBONES),
    # So narrow that channels stay the same where a stride is.
    (ModelConfig(backbone="mobilenet_v2", width=0.1), STRIDES),
    (ModelConfig(backbone="resnet18", stem="3x3"), STRIDES),
    (ModelConfig(backbone="resnet18", multi_grid=[2, 1]), STRIDES),
    (ModelConfig(backbone="resnet34", multi_grid=[1, 2, 4]), STRIDES),
    (ModelConfig(backbone="resnet34", multi_grid=[2, 2, 2]), STRIDES),
    (ModelConfig(backbone="resnet50", stem="3x3", multi_grid=[1, 2, 4], blocks=5), (64, 32, 16, 8)),
    (ModelConfig(backbone="resnet18", blocks=7), (256, 64, 32, 16, 8)),
    (ModelConfig(backbone="resnet18", multi_grid=[1, 2], blocks=6), (128, 32, 16, 8)),
]


def build_backbone(name: str, output_stride: int) -> Backbone:
    return build(ModelConfig(backbone=name, output_stride=output_stride))


def described(value: ModelConfig | tuple[int, ...]) -> str:
    if not isinstance(value, ModelConfig):
        return f"{value[0]}to{value[-1]}"
    default = vars(ModelConfig(backbone=value.backbone))
    others = (f"{key}={set_to}" for key, set_to in vars(value).items() if set_to != default[key])
    return " ".join((value.backbone, *others))


def at_output_stride(config: ModelConfig, output_stride: int) -> Backbone:
    return build(ModelConfig(**{**vars(config), "output_stride": output_stride}))


def assert_coarser(coarse: Features, dense: Features) -> None:
    """Every map of `coarse` is that of `dense` at each 2nd, 4th, ... pixel."""
    for wanted, level in zip(coarse.levels, dense.levels, strict=True):
        step = (level.shape[-1] - 1) // (wanted.shape[-1] - 1)
        got = level[..., ::step, ::step]
        assert got.shape == wanted.shape
        assert ((got - wanted).abs().max() / wanted.abs().max()).item() < 1e-9


@pytest.mark.parametrize(("config", "output_strides"), CONSISTENT, ids=described)
@torch.inference_mode()
def test_denser_features_subsampled_are_the_coarser_features(
    config: ModelConfig, output_strides: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    # Double precision: 33 random units make 5e-5 of single precision's rounding.
    trained = at_output_stride(config, 16).double()
    with_statistics(trained, torch.randn(2, 3, 97, 65, dtype=torch.float64))
    coarsest = output_strides[0]
    images = torch.randn(1, 3, max(96, coarsest) + 1, coarsest + 1, dtype=torch.float64)
    coarse: Features | None = None
    for output_stride in output_strides:
        with torch.device("meta"):  # no time on weights that are replaced
            backbone = at_output_stride(config, output_stride).double()
        backbone.load_state_dict(trained.state_dict(), assign=True)
        features = backbone.eval()(images)
        assert features.high.shape[-1] == (images.shape[-1] - 1) // output_stride + 1
        if coarse is not None:
            assert_coarser(coarse, features)
        coarse = features


@pytest.mark.parametrize("output_stride", STRIDES)
@pytest.mark.parametrize("name", BACKBONES)
def test_maps_have_the_stated_channels_and_strides(name: str, output_stride: int) -> None:
    with torch.device("meta"):  # shapes only
        backbone = build_backbone(name, output_stride)
        features = backbone(torch.empty(2, 3, 96, 65))
    assert backbone.name == name
    assert features.low.shape == (2, backbone.low_channels, 24, 17)
    for level, channels, stride in zip(
        features.levels, backbone.channels, (2, 4, 8, 16, 32), strict=True
    ):
        stride = min(stride, output_stride)
        assert level.shape == (2, channels, 96 // stride, 64 // stride + 1)


def test_unknown_backbone_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match=r"model\.backbone=resnet51: did you mean 'resnet50'"):
        build_backbone("resnet51", 16)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("output_stride", [12, 64])
def test_impossible_output_stride_is_refused(name: str, output_stride: int) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=f"output_stride={output_stride}"):
        build_backbone(name, output_stride)
