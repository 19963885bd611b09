import pytest
import torch
from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP as TORCHVISION_ASPP

from pipeline.errors import UserError
from pipeline.models.aspp import ASPP, ImagePooling, SummedASPP


def test_v3_equals_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = TORCHVISION_ASPP(32, [2, 4, 6], 16)
    theirs(torch.randn(2, 32, 17, 17))  # batch norm statistics other than 0 and 1
    ours = ASPP(32, (2, 4, 6), channels=16)
    names = (("convs", "branches"), ("project", "projection"))
    state = theirs.state_dict()
    for their_name, our_name in names:
        state = {key.replace(their_name, our_name): value for key, value in state.items()}
    ours.load_state_dict(state)
    high = torch.randn(2, 32, 9, 12)
    torch.testing.assert_close(ours.eval()(high), theirs.eval()(high))


@pytest.mark.parametrize("pooling", [True, False])
@pytest.mark.parametrize("rates", [(), (3,), (6, 12, 18, 24)])
def test_v3_concatenates_one_branch_a_rate(rates: tuple[int, ...], pooling: bool) -> None:
    aspp = ASPP(8, rates, pooling=pooling, channels=4).eval()
    projection = aspp.projection[0]
    assert isinstance(projection, nn.Conv2d)
    assert projection.in_channels == 4 * (1 + len(rates) + pooling)
    assert aspp(torch.randn(1, 8, 5, 7)).shape == (1, 4, 5, 7)


def test_separable_v3_separates_its_atrous_branches_alone() -> None:
    aspp = ASPP(8, (2, 4), channels=5, separable=True)
    convolutions = [module for module in aspp.modules() if isinstance(module, nn.Conv2d)]
    assert [tuple(one.weight.shape) for one in convolutions] == [
        (5, 8, 1, 1),
        *[(8, 1, 3, 3), (5, 8, 1, 1)] * 2,
        (5, 8, 1, 1),
        (5, 20, 1, 1),
    ]
    assert [one.dilation for one in convolutions if one.groups == 8] == [(2, 2), (4, 4)]


@pytest.mark.parametrize("separable", [False, True])
def test_v3_learns_in_every_branch(separable: bool) -> None:
    aspp = ASPP(8, (1, 2), channels=4, dropout=0, separable=separable)
    aspp(torch.randn(4, 8, 9, 9)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in aspp.parameters())


def test_v2_sums_its_branches() -> None:
    aspp = SummedASPP(8, 3, (1, 2, 4))
    high = torch.randn(2, 8, 9, 9)
    wanted = torch.zeros(2, 3, 9, 9)
    for branch, rate in zip(aspp.branches, (1, 2, 4), strict=True):
        assert isinstance(branch, nn.Conv2d)
        wanted += nn.functional.conv2d(
            high, branch.weight, branch.bias, padding=rate, dilation=rate
        )
    torch.testing.assert_close(aspp(high), wanted)


def test_image_pooling_in_training_refuses_a_single_image_and_names_the_remedy() -> None:
    pooling = ImagePooling(8, 4).train()
    with pytest.raises(UserError, match=r"one image.*train\.accumulate.*freeze_batch_norm=true"):
        pooling(torch.randn(1, 8, 5, 5))
    assert pooling(torch.randn(2, 8, 5, 5)).shape == (2, 4, 5, 5)


def test_image_pooling_with_frozen_batch_norm_takes_a_single_image() -> None:
    pooling = ImagePooling(8, 4).train()
    pooling[2].eval()
    spread = pooling(torch.randn(1, 8, 5, 6))
    assert spread.shape == (1, 4, 5, 6)
    assert torch.equal(spread, spread[..., :1, :1].expand_as(spread))
