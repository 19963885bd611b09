from pathlib import Path

import pytest
import torch
import torchvision
from norms import with_statistics
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.backbones import build_backbone
from pipeline.models.heads import build_auxiliary
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.models.references import FCN
from pipeline.models.weights import WeightReport, load_weights

CLASSES = 21
#: Of the largest of torchvision's logits.
RELATIVE = 1e-5
#: Small, and no multiple of the output stride.
SIDES = {"resnet50": (97, 82), "resnet101": (65, 65)}


def torchvisions(name: str, auxiliary: bool) -> nn.Module:
    """With random weights, and batch norm's statistics of random images."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, aux_loss=auxiliary, num_classes=CLASSES
    )
    return with_statistics(network, torch.randn(2, 3, 65, 65))


def settings(backbone: str, weights: Path, auxiliary: bool) -> ModelConfig:
    """Those of torchvision's DeepLabv3; the paper's differ in the last two."""
    return ModelConfig(
        backbone=backbone,
        output_stride=8,
        aspp="v3",
        auxiliary=auxiliary,
        weights=str(weights),
        head_conv=True,
        align_corners=False,
    )


def loaded(theirs: nn.Module, ours: SegmentationNetwork, config: ModelConfig) -> WeightReport:
    torch.save(theirs.state_dict(), str(config.weights))
    return load_weights(ours, config)


def assert_equal_outputs(theirs: nn.Module, ours: SegmentationNetwork, images: Tensor) -> None:
    ours.eval()
    # Of the root alone: the auxiliary head runs, without dropout, and batch norm stays as it is.
    ours.training = ours.auxiliary is not None
    wanted = theirs((images - ours.input_mean) / ours.input_std)
    outputs = ours.outputs(images)
    found = {"out": outputs.scores}
    if outputs.auxiliary is not None:
        found["aux"] = outputs.auxiliary
    if ours.auxiliary is not None:
        assert found.keys() == wanted.keys()
    for name, scores in found.items():
        assert wanted[name].shape[-2:] == images.shape[-2:]
        error = (ours.upsample(scores, images) - wanted[name]).abs().max()
        assert error <= RELATIVE * wanted[name].abs().max(), name


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
@torch.no_grad()
def test_deeplabv3_has_the_same_logits(backbone: str, auxiliary: bool, tmp_path: Path) -> None:
    theirs = torchvisions(f"deeplabv3_{backbone}", auxiliary)
    config = settings(backbone, tmp_path / "weights.pth", auxiliary)
    ours = build_model(config, CLASSES)
    report = loaded(theirs, ours, config)
    assert report.random == report.left_out == ()
    assert len(report.loaded) == len(theirs.state_dict()) + 2  # the input's mean and deviation
    assert_equal_outputs(theirs, ours, torch.rand(1, 3, *SIDES[backbone]))


@pytest.mark.parametrize("auxiliary", [False, True])
@torch.no_grad()
def test_fcn_has_the_same_logits(auxiliary: bool, tmp_path: Path) -> None:
    theirs = torchvisions("fcn_resnet50", auxiliary)
    config = settings("resnet50", tmp_path / "weights.pth", auxiliary)
    backbone = build_backbone(config)
    ours = SegmentationNetwork(
        backbone,
        FCN(backbone.high_channels, CLASSES),
        config.output_stride,
        auxiliary=build_auxiliary(backbone, CLASSES) if auxiliary else None,
        align_corners=False,
    )
    report = loaded(theirs, ours, config)
    assert report.random == report.left_out == ()
    assert_equal_outputs(theirs, ours, torch.rand(1, 3, 97, 82))


@torch.no_grad()
def test_a_network_without_auxiliary_head_leaves_torchvisions_out(tmp_path: Path) -> None:
    theirs = torchvisions("deeplabv3_resnet50", auxiliary=True)
    config = settings("resnet50", tmp_path / "weights.pth", auxiliary=False)
    ours = build_model(config, CLASSES)
    report = loaded(theirs, ours, config)
    assert report.random == ()
    assert {key.split(".")[0] for key in report.left_out} == {"auxiliary"}
    assert_equal_outputs(theirs, ours, torch.rand(1, 3, 65, 65))


@torch.no_grad()
def test_other_classes_and_output_stride_take_the_rest_of_the_weights(tmp_path: Path) -> None:
    theirs = torchvisions("deeplabv3_resnet50", auxiliary=True)
    config = settings("resnet50", tmp_path / "weights.pth", auxiliary=True)
    config.output_stride = 16
    report = loaded(theirs, build_model(config, 5), config)
    assert set(report.random) == {
        f"{head}.classifier.{tensor}"
        for head in ("head", "auxiliary")
        for tensor in ("weight", "bias")
    }
    assert report.left_out == ()


def test_the_papers_head_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    theirs = torchvisions("deeplabv3_resnet50", auxiliary=False)
    config = settings("resnet50", tmp_path / "weights.pth", auxiliary=False)
    config.head_conv = False
    with pytest.raises(UserError, match=r"unexpected: head\.conv\.0\..*model\.head_conv=true"):
        loaded(theirs, build_model(config, CLASSES), config)
