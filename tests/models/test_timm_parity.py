import pytest
import timm
import torch
from norms import with_statistics
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.models.backbones import build_backbone
from pipeline.models.weights.converters import from_backbone, from_timm_mobilenet_v2

XCEPTIONS = ("xception41", "xception65", "xception71")
#: timm's name, and the width.
MOBILENETS = (("mobilenetv2_100", 1.0), ("mobilenetv2_050", 0.5), ("mobilenetv2_140", 1.4))
#: Where timm's Xception is the paper's: at output stride 8 its xception71 has lost a projection.
XCEPTION_CASES = [(name, stride) for name in XCEPTIONS for stride in (32, 16)] + [
    ("xception41", 8),
    ("xception65", 8),
]


def classifier(name: str) -> nn.Module:
    """timm's, with random weights and batch norm's statistics of random images."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False)
    return with_statistics(network, torch.randn(2, 3, 65, 65))


def timms_features(
    name: str, output_stride: int, state: dict[str, Tensor], images: Tensor
) -> list[Tensor]:
    network = timm.create_model(
        name, pretrained=False, features_only=True, output_stride=output_stride
    )
    # timm flattens the names of Xception's parts when it is to give features.
    network.load_state_dict(
        {
            key: state[key.replace("stem_", "stem.").replace("blocks_", "blocks.")]
            for key in network.state_dict()
        }
    )
    return network.eval()(images)


def our_levels(
    config: ModelConfig, converted: dict[str, Tensor], images: Tensor
) -> tuple[Tensor, ...]:
    network = build_backbone(config)
    assert all(key.startswith("backbone.") for key in converted)
    network.load_state_dict({k.removeprefix("backbone."): v for k, v in converted.items()})
    return network.eval()(images).levels


def assert_equal_features(got: tuple[Tensor, ...], wanted: list[Tensor]) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(("name", "output_stride"), XCEPTION_CASES)
@torch.inference_mode()
def test_converted_xception_gives_timms_features(name: str, output_stride: int) -> None:
    theirs = classifier(name)
    converted, left_out = from_backbone(theirs.state_dict(), ("head.",))
    assert set(left_out) == {"head.fc.weight", "head.fc.bias"}
    images = torch.randn(1, 3, 65, 50)
    config = ModelConfig(backbone=name, output_stride=output_stride)
    stem, *levels = our_levels(config, converted, images)
    # timm's first feature is of the first unit, at the stem's stride.
    _, *features = timms_features(name, output_stride, theirs.state_dict(), images)
    assert_equal_features((stem, *levels), [theirs.get_submodule("stem")(images), *features])


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize(("name", "width"), MOBILENETS)
@torch.inference_mode()
def test_converted_mobilenet_v2_gives_timms_features(
    name: str, width: float, output_stride: int
) -> None:
    state = classifier(name).state_dict()
    converted, left_out = from_timm_mobilenet_v2(state)
    assert {key.split(".")[0] for key in left_out} == {"conv_head", "bn2", "classifier"}
    assert len(converted) + len(left_out) == len(state)
    images = torch.randn(1, 3, 65, 50)
    config = ModelConfig(backbone="mobilenet_v2", width=width, output_stride=output_stride)
    assert_equal_features(
        our_levels(config, converted, images), timms_features(name, output_stride, state, images)
    )


def test_unknown_layers_keep_their_names_for_the_loader_to_report() -> None:
    state = {
        "blocks.0.0.conv_dw.weight": torch.ones(1),
        "blocks.0.0.se.conv_reduce.weight": torch.ones(1),
        "blocks.1.0.attention.weight": torch.ones(1),
        "conv_stem.weight": torch.ones(1),
        "norm.weight": torch.ones(1),
    }
    converted, left_out = from_timm_mobilenet_v2(state)
    assert list(converted) == [
        "backbone.features.1.conv.0.0.weight",
        "backbone.blocks.0.0.se.conv_reduce.weight",
        "backbone.blocks.1.0.attention.weight",
        "backbone.features.0.0.weight",
        "backbone.norm.weight",
    ]
    assert left_out == ()
