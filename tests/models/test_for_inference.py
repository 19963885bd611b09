from typing import Any

import torch
from norms import with_statistics
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.models.for_inference import BATCH_NORMS, for_inference
from pipeline.models.network import build_model


class Followed(nn.Module):
    """A convolution and a batch norm; the convolution's result may have another use too."""

    def __init__(self, seen_twice: bool) -> None:
        super().__init__()
        self.seen_twice = seen_twice
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.convolution(images)
        return self.norm(maps) + maps if self.seen_twice else self.norm(maps)


class Shared(nn.Module):
    """One convolution before two batch norms, and one batch norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.second(self.one(self.first(self.one(images))))
        return self.second(self.other(maps))


def norms(network: nn.Module) -> int:
    return sum(type(module) in BATCH_NORMS for module in network.modules())


def test_a_batch_norm_goes_into_the_convolution_before_it() -> None:
    network = with_statistics(Followed(seen_twice=False), torch.rand(2, 3, 9, 9))
    quick = for_inference(network)
    assert (norms(network), norms(quick)) == (1, 0)
    images = torch.rand(1, 3, 20, 30)
    torch.testing.assert_close(quick(images), network(images))


def test_a_convolution_that_something_else_sees_is_left_alone() -> None:
    for raw in (Followed(seen_twice=True), Shared()):
        network = with_statistics(raw, torch.rand(2, 3, 9, 9))
        quick = for_inference(network)
        assert norms(quick) == norms(network)
        images = torch.rand(1, 3, 20, 30)
        assert torch.equal(quick(images), network(images))


def test_the_decoder_convolves_first_and_its_order_does_not_show() -> None:
    built = build_model(ModelConfig(backbone="resnet18", decoder=True), 5)
    network: Any = with_statistics(built, torch.rand(2, 3, 65, 65))
    quick, images = for_inference(network), torch.rand(1, 3, 129, 97)
    usual = network.head.decoder.stages[0].refinement[0][0]
    early = quick.head.decoder.stages[0].refinement[0][0]
    called: list[nn.Module] = []
    for convolution in (usual, early):
        convolution.register_forward_hook(lambda layer, *_: called.append(layer))
    with torch.inference_mode():
        torch.testing.assert_close(quick(images), network(images), atol=1e-4, rtol=1e-4)
    # By itself it is not called: its weights are taken apart.
    assert called == [usual]


def test_it_is_about_as_near_in_half_precision() -> None:
    usual, swift = 0.0, 0.0
    for seed in range(4):
        torch.manual_seed(seed)
        built = build_model(ModelConfig(backbone="mobilenet_v2", decoder=True), 5)
        network = with_statistics(built, torch.rand(2, 3, 129, 129))
        quick, images = for_inference(network), torch.rand(1, 3, 129, 129)
        with torch.inference_mode():
            exact = network(images)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                usual += float((network(images) - exact).std() / exact.std())
                swift += float((quick(images) - exact).std() / exact.std())
    # Random weights round badly either way; with trained ones a fiftieth of the scores.
    assert 0 < swift <= 1.5 * usual


def test_weights_in_half_precision_are_those_that_autocast_makes() -> None:
    built = build_model(ModelConfig(backbone="mobilenet_v2", decoder=True), 5)
    network = with_statistics(built, torch.rand(2, 3, 65, 65))
    made, kept = for_inference(network), for_inference(network, "bf16")
    images = torch.rand(1, 3, 129, 97)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(kept(images), made(images))
    kinds = {weight.dtype for weight in kept.parameters() if weight.dim() == 4}
    assert kinds == {torch.bfloat16}
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
