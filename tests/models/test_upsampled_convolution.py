import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.backbones import Features
from pipeline.models.decoder import Decoder
from pipeline.models.upsampled_convolution import convolve_upsampled, pays
from pipeline.training import batch_norm


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(
    ("small", "large"), [((5, 7), (17, 25)), ((1, 1), (4, 3)), ((4, 3), (4, 3)), ((3, 5), (11, 14))]
)
def test_it_is_the_convolution_of_the_upsampled_maps(
    small: tuple[int, int], large: tuple[int, int], kernel: int, align_corners: bool
) -> None:
    maps = torch.randn(2, 6, *small, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 6, kernel, kernel, dtype=torch.float64, requires_grad=True)
    fine = torch.randn(2, 4, *large, dtype=torch.float64, requires_grad=True)
    upsampled = F.interpolate(maps, large, mode="bilinear", align_corners=align_corners)
    expected = fine + F.conv2d(upsampled, weight, padding=kernel // 2)
    found = convolve_upsampled(maps, weight, fine, align_corners=align_corners)
    torch.testing.assert_close(found, expected)
    outer = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (maps, weight, fine), outer)
    torch.testing.assert_close(torch.autograd.grad(found, (maps, weight, fine), outer), wanted)


def test_half_precision_loses_no_more_than_by_the_usual_order() -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(2, 64, 17, 17), torch.randn(32, 64, 3, 3) / 24
    fine = torch.zeros(2, 32, 65, 65)

    def usual() -> Tensor:
        upsampled = F.interpolate(maps, (65, 65), mode="bilinear", align_corners=True)
        return fine + F.conv2d(upsampled, weight, padding=1)

    exact = usual()
    with torch.autocast("cpu", torch.bfloat16):
        found = convolve_upsampled(maps, weight, fine, align_corners=True).float()
        other = usual().float()
    assert (found - exact).square().mean() < 2 * (other - exact).square().mean()


def test_it_pays_where_maps_are_enlarged() -> None:
    weight = torch.empty(256, 256, 3, 3, device="meta")

    def of(side: int, large: int) -> bool:
        return pays(torch.empty(1, 256, side, side, device="meta"), weight, (large, large))

    assert of(33, 129)
    assert of(65, 129)
    assert not of(129, 129)


@pytest.mark.parametrize(("kernel", "separable", "before"), [(3, False, 1), (3, True, 0)])
def test_a_decoder_gives_the_same_in_training(kernel: int, separable: bool, before: int) -> None:
    decoder = Decoder(32, (4, 8, 16), 3, kernel=kernel, channels=16, separable=separable).double()
    low = torch.randn(2, 8, 33, 33, dtype=torch.float64)
    features = Features(torch.empty(2, 3, 1, 1), (torch.empty(0), low))
    encoded = torch.randn(2, 32, 9, 9, dtype=torch.float64)
    first = decoder.get_submodule("stages.0.refinement.0.0")
    usual: list[object] = []
    first.register_forward_hook(lambda *_: usual.append(True))
    batch_norm.freeze(decoder.train())
    trained = decoder(encoded, features)
    assert len(usual) == 1 - before
    torch.testing.assert_close(decoder.eval()(encoded, features), trained)
    assert len(usual) == 2 - before
