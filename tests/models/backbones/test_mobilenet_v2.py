import pytest
import torch
import torchvision

from pipeline.models.backbones.mobilenet_v2 import InvertedResidual, MobileNetV2


@torch.inference_mode()
def test_features_equal_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(weights=None)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of these images, so that signals keep their size
    theirs(torch.randn(2, 3, 65, 65))
    theirs.eval()
    ours = MobileNetV2(32).eval()
    ours.load_state_dict(
        {
            key: value
            for key, value in theirs.state_dict().items()
            if not key.startswith(("features.18.", "classifier."))
        }
    )
    images = torch.randn(1, 3, 70, 65)
    features = ours(images)
    torch.testing.assert_close(features.low, theirs.features[:4](images))
    torch.testing.assert_close(features.high, theirs.features[:18](images))


@pytest.mark.parametrize(
    ("output_stride", "rates"),
    [
        (32, [1] * 17),
        (16, [1] * 14 + [2] * 3),
        (8, [1] * 7 + [2] * 7 + [4] * 3),
    ],
)
def test_depthwise_rates_follow_the_output_stride(output_stride: int, rates: list[int]) -> None:
    with torch.device("meta"):
        network = MobileNetV2(output_stride)
    assert [
        module.dilation[0]
        for block in network.features
        if isinstance(block, InvertedResidual)
        for module in block.modules()
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3)
    ] == rates
