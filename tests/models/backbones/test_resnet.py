import pytest
import torch
import torchvision

from pipeline.models.backbones.resnet import ResNet

DILATE = {
    8: [False, True, True],
    16: [False, False, True],
    32: [False, False, False],
}


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("resnet18", 32), ("resnet34", 32), ("resnet50", 16), ("resnet50", 8), ("resnet101", 8)],
)
@torch.inference_mode()
def test_features_equal_torchvisions(name: str, output_stride: int) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(
        name, weights=None, replace_stride_with_dilation=DILATE[output_stride]
    )
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of these images, so that signals keep their size
    theirs(torch.randn(2, 3, 65, 65))
    theirs.eval()
    ours = ResNet(name, output_stride).eval()
    state = theirs.state_dict()
    ours.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})

    images = torch.randn(1, 3, 70, 65)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    low = theirs.layer1(x)
    high = theirs.layer4(theirs.layer3(theirs.layer2(low)))
    features = ours(images)
    torch.testing.assert_close(features.low, low)
    torch.testing.assert_close(features.high, high)


def test_basic_block_is_dilated_after_its_lost_stride() -> None:
    with torch.device("meta"):
        resnet = ResNet("resnet18", 8)
    rates = [
        (block.conv1.dilation[0], block.conv2.dilation[0])  # type: ignore[union-attr, index]
        for layer in (resnet.layer2, resnet.layer3, resnet.layer4)
        for block in layer
    ]
    assert rates == [(1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4)]
