from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.fc6 import Fc6Branch
from pipeline.models.heads import Fc6Head
from pipeline.models.network import IMAGENET_MEAN, IMAGENET_STD, build_model
from pipeline.models.weights.files import State
from pipeline.models.weights.vgg16 import from_torchvision_vgg16


def classifier(filters: int = 32, in_channels: int = 8) -> State:
    """A VGG-16's in torchvision's layout, but small."""
    torch.manual_seed(0)
    state: State = {"features.0.weight": torch.randn(4, 3, 3, 3)}
    for at, (out, inputs) in {
        0: (filters, in_channels * 49),
        3: (filters, filters),
        6: (10, filters),
    }.items():
        state[f"classifier.{at}.weight"] = torch.randn(out, inputs) / inputs**0.5
        state[f"classifier.{at}.bias"] = torch.randn(out)
    return state


def head(
    kernel: int, channels: int, rates: tuple[int, ...] = (1,), in_channels: int = 8
) -> Fc6Head:
    branches = (
        Fc6Branch(in_channels, 5, kernel=kernel, rate=rate, channels=channels) for rate in rates
    )
    return Fc6Head(branches).eval()


def own(fc6: Fc6Head) -> State:
    return {f"head.{key}": value for key, value in fc6.state_dict().items()}


def loaded(fc6: Fc6Head, converted: State) -> Fc6Branch:
    """The first branch of the head, with the converted weights and its own fc8."""
    state = {
        key.removeprefix("head."): value
        for key, value in (own(fc6) | converted).items()
        if key.startswith("head.")
    }
    fc6.load_state_dict(state)
    branch = fc6.branches[0]
    assert isinstance(branch, Fc6Branch)
    return branch


def fc7_features(branch: Fc6Branch, high: Tensor) -> Tensor:
    return branch.fc7(branch.fc6(high).relu()).relu()


@pytest.fixture(scope="module")
def full_classifier() -> Iterator[nn.Sequential]:
    """torchvision's fc6 and fc7 with random weights of a size that keeps signals alive."""
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None, init_weights=False)
    layers = theirs.classifier[:6].to_empty(device="cpu").eval()
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -0.02, 0.02)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
    yield layers


@torch.inference_mode()
def test_converted_fc6_and_fc7_equal_torchvisions_classifier(
    full_classifier: nn.Sequential,
) -> None:
    settings = ModelConfig(
        backbone="vgg16",
        output_stride=32,
        aspp="fc6",
        fc6_kernel=7,
        fc6_channels=4096,
        rates=[4],  # stated at output stride 8: 1 at 32, the classifier's
    )
    with torch.device("meta"):
        network = build_model(settings, 21).eval()
    state = {f"classifier.{key}": value for key, value in full_classifier.state_dict().items()}
    converted, left_out = from_torchvision_vgg16(state, network.state_dict())
    assert left_out == ()
    branch = network.head.get_submodule("branches.0")
    assert isinstance(branch, Fc6Branch)
    prefix = "head.branches.0."
    for name in ("fc6", "fc7"):
        layer = branch.get_submodule(name)
        tensors = {at: converted[f"{prefix}{name}.{at}"] for at in ("weight", "bias")}
        layer.load_state_dict(tensors, assign=True)

    pool5 = torch.rand(2, 512, 7, 7)  # of a 224 x 224 image
    wanted = full_classifier(pool5.flatten(1))
    got = fc7_features(branch, pool5)[:, :, 3, 3]  # the only place where fc6 sees no padding
    assert wanted.abs().max() > 1
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "every"), [(7, 1), (4, 2), (3, 3)])
def test_fc6_is_decimated(kernel: int, every: int) -> None:
    state = classifier()
    fc6 = head(kernel, 32, rates=(every,))
    branch = loaded(fc6, from_torchvision_vgg16(state, own(fc6))[0])

    # The same as all 7 x 7 taps at rate 1, those left out being 0.
    full = state["classifier.0.weight"].reshape(32, 8, 7, 7)
    kept = torch.zeros(7, 7)
    kept[::every, ::every] = 1
    assert kept.sum() == kernel**2
    high = torch.randn(2, 8, 11, 12)
    wanted = F.conv2d(high, full * kept, state["classifier.0.bias"], padding=3)
    torch.testing.assert_close(branch.fc6(high), wanted)


def test_fewer_channels_keep_the_same_filters_throughout() -> None:
    state = classifier()
    fc6 = head(7, 12)
    branch = loaded(fc6, from_torchvision_vgg16(state, own(fc6))[0])
    assert branch.fc6.bias is not None
    original = state["classifier.0.bias"].tolist()
    kept = [original.index(bias) for bias in branch.fc6.bias.tolist()]
    assert len(set(kept)) == 12
    assert kept == sorted(kept)

    # The same as the whole classifier in which the other filters are silent.
    silent = torch.zeros(32)
    silent[kept] = 1
    pool5 = torch.randn(3, 8, 7, 7)
    x = F.linear(pool5.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"])
    x = F.linear(x.relu() * silent, state["classifier.3.weight"], state["classifier.3.bias"]).relu()
    torch.testing.assert_close(fc7_features(branch, pool5)[:, :, 3, 3], x[:, kept])


def test_choice_of_filters_is_the_seeds() -> None:
    state, network = classifier(), own(head(3, 12))
    key = "head.branches.0.fc6.bias"

    def biases(seed: int) -> list[float]:
        return from_torchvision_vgg16(state, network, seed=seed)[0][key].tolist()

    torch.manual_seed(1)
    first = biases(0)
    torch.manual_seed(2)
    assert biases(0) == first
    assert biases(1) != first


def test_every_branch_starts_from_the_same() -> None:
    network = own(head(3, 12, rates=(6, 12, 18, 24)))
    converted, _ = from_torchvision_vgg16(classifier(), network)
    for key in ("fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"):
        first = converted[f"head.branches.0.{key}"]
        for branch in (1, 2, 3):
            assert torch.equal(converted[f"head.branches.{branch}.{key}"], first)


@pytest.mark.parametrize(
    ("changes", "random"),
    [
        ({}, ("head.branches.0.fc8.",)),
        ({"multi_scale_features": True}, ("head.branches.0.fc8.", "head.multi_scale.")),
        ({"aspp": "v3"}, ("head.",)),
    ],
)
@pytest.mark.parametrize("classifies", [True, False])
def test_everything_fits_the_network_and_only_new_layers_stay_random(
    changes: dict[str, object], random: tuple[str, ...], classifies: bool
) -> None:
    settings = {"backbone": "vgg16", "output_stride": 8, "aspp": "fc6"} | changes
    with torch.device("meta"):
        network = build_model(ModelConfig(**settings), 21)  # type: ignore[arg-type]
    theirs = torchvision.models.vgg16(weights=None, init_weights=False).features
    state = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    if classifies:
        state |= {k: v for k, v in classifier(1500, 512).items() if k.startswith("classifier.")}
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    converted, left_out = from_torchvision_vgg16(state, network.state_dict())

    for key, value in converted.items():
        assert value.shape == wanted[key]
    stay = random if classifies else ("head.",)
    assert wanted.keys() - converted.keys() == {k for k in wanted if k.startswith(stay)}
    used = ("classifier.0.", "classifier.3.") if stay != ("head.",) else ()
    keys = [key for key in state if key.startswith("classifier.") and not key.startswith(used)]
    assert list(left_out) == keys


def test_weights_with_a_classifier_bring_torchvisions_inputs() -> None:
    converted, _ = from_torchvision_vgg16(classifier(), own(head(3, 12)))
    assert converted["input_mean"].flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert converted["input_std"].flatten().tolist() == pytest.approx(IMAGENET_STD)


@pytest.mark.parametrize("values", ["missing", "nan"])
def test_weights_without_a_classifier_bring_the_original_networks_inputs(values: str) -> None:
    state = classifier()
    for key in [key for key in state if key.startswith("classifier.")]:
        if values == "nan":
            state[key] = torch.full_like(state[key], float("nan"))
        else:
            del state[key]
    converted, left_out = from_torchvision_vgg16(state, own(head(3, 12)))
    # RGB minus a mean, in 0 to 255, as the set's own `transforms` have it.
    presets = torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    assert converted["input_mean"].flatten().tolist() == pytest.approx(presets.mean)
    assert converted["input_std"].flatten().tolist() == pytest.approx(presets.std)
    assert {key for key in converted if key.startswith("head.")} == set()
    assert len(left_out) == (6 if values == "nan" else 0)


def test_unknown_tensors_are_handed_on_to_be_reported() -> None:
    converted, left_out = from_torchvision_vgg16({"fc.weight": torch.ones(1)}, {})
    assert "backbone.fc.weight" in converted
    assert left_out == ()


def test_more_channels_than_the_original_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.fc6_channels=40: .* 32 filters.*weights=null"):
        from_torchvision_vgg16(classifier(), own(head(3, 40)))
