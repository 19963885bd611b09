import pytest
import timm
import torch
from norms import with_statistics
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.backbones.from_timm import STRIDES, TimmBackbone
from pipeline.models.network import build_model

#: Each gives its maps in another way: plainly; by hooks; without stride 2 and in whole patches;
#: N x H x W x C; from stride 1 on; only of even sides.
MODELS = ["resnet18", "xception41", "convnext_atto", "mambaout_femto", "vgg11", "dla34"]
#: The atrous form of these is exact.
CONSISTENT = [
    "resnet18",
    "resnetv2_18",
    "regnetx_002",
    "mobilenetv2_050",
    "efficientnet_lite0",
    "xception41",
]


def atrous_backbone(name: str, output_stride: int) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(f"timm/{name}", output_stride).eval()


@pytest.mark.parametrize("name", MODELS)
def test_levels_have_the_size_of_their_stride_for_any_image(name: str) -> None:
    with torch.device("meta"):
        for output_stride in (8, 32) if name in MODELS[:3] else (32,):
            backbone = TimmBackbone(f"timm/{name}", output_stride)
            for height, width in ((97, 66), (64, 75)):
                features = backbone(torch.empty(2, 3, height, width))
                for level, channels, stride in zip(
                    features.levels, backbone.channels, STRIDES, strict=True
                ):
                    kept = min(stride, output_stride)
                    assert level.shape == (2, channels, -(-height // kept), -(-width // kept))


def test_a_level_that_the_model_has_not_is_without_channels() -> None:
    backbone = atrous_backbone("convnext_atto", 32)
    assert backbone.channels == (0, 40, 80, 160, 320)
    assert backbone(torch.rand(1, 3, 65, 33)).levels[0].shape == (1, 0, 33, 17)


@pytest.mark.parametrize("name", CONSISTENT)
@torch.no_grad()
def test_features_subsampled_are_those_of_the_coarser_output_stride(name: str) -> None:
    backbones = {stride: atrous_backbone(name, stride) for stride in (8, 16, 32)}
    with_statistics(backbones[32], torch.randn(2, 3, 97, 65))
    images = torch.randn(1, 3, 97, 65)
    for coarse, fine in ((32, 16), (16, 8)):
        backbones[fine].load_state_dict(backbones[coarse].state_dict())
        wanted = backbones[coarse](images).high
        got = backbones[fine](images).high[..., ::2, ::2]
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@torch.no_grad()
def test_whole_patches_are_seen_unchanged_and_others_filled_with_the_last_row() -> None:
    backbone = atrous_backbone("convnext_atto", 16)
    images = torch.randn(1, 3, 80, 64)
    wanted = backbone.body(images)
    for level, one in zip(backbone(images).levels[1:], wanted, strict=True):
        assert torch.equal(level, one)
    images[..., 65:, :] = images[..., 64:65, :]
    cut = backbone(images[..., :65, :])
    for level, one in zip(cut.levels[1:], backbone.body(images), strict=True):
        assert torch.equal(level, one[..., : level.shape[-2], :])


@torch.no_grad()
def test_maps_with_their_channels_last_are_turned() -> None:
    backbone = atrous_backbone("mambaout_femto", 32)
    images = torch.randn(1, 3, 64, 96)
    wanted = backbone.body(images)[-1].permute(0, 3, 1, 2)
    assert torch.equal(backbone(images).high, wanted)
    assert wanted.shape == (1, backbone.high_channels, 2, 3)


@pytest.mark.parametrize("name", ["resnet18", "xception41", "convnext_atto"])
def test_body_takes_the_weights_of_timms_feature_extractor(name: str) -> None:
    timms = timm.create_model(name, pretrained=False, features_only=True)
    backbone = atrous_backbone(name, 8)
    backbone.body.load_state_dict(timms.state_dict())
    assert all(torch.equal(backbone.body.state_dict()[k], v) for k, v in timms.state_dict().items())


def test_normalisation_is_that_of_timms_weights() -> None:
    with torch.device("meta"):
        assert TimmBackbone("timm/xception41", 16).mean == (0.5, 0.5, 0.5)
        tagged = TimmBackbone("timm/resnet18.a1_in1k", 16)
    assert tagged.name == "timm/resnet18.a1_in1k"
    assert (tagged.mean, tagged.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "output_stride", "told"),
    [
        ("resnet5O", 16, "no such model; did you mean 'timm/resnet50'?"),
        ("resnet18.in1k", 16, "valid: timm/resnet18.a1_in1k, "),
        ("hf-hub:somebody/model", 16, "no such model"),
        ("vit_tiny_patch16_224", 32, "strides 16, 16, 16, and segmentation needs those of 4 and"),
        ("swin_tiny_patch4_window7_224", 32, "Input height (160) doesn't match model (224)"),
        ("legacy_xception", 32, "not ceil(side / stride)"),
        ("densenet121", 16, "unexpected keyword argument 'output_stride'"),
        ("resnet18", 4, "timm cannot build it so"),
        ("xception71", 8, "another network than at 32, whose weights do not fit (blocks_4.short"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(
    name: str, output_stride: int, told: str
) -> None:
    with torch.device("meta"), pytest.raises(UserError) as caught:
        TimmBackbone(f"timm/{name}", output_stride)
    message = str(caught.value)
    assert told in message
    assert f"model.backbone=timm/{name}" in message
    assert "\n" not in message


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "efficientnet_lite0"])
def test_a_decoder_and_an_auxiliary_head_stand_on_it(name: str, output_stride: int) -> None:
    config = ModelConfig(
        backbone=f"timm/{name}",
        output_stride=output_stride,
        decoder=True,
        decoder_features=["conv3", "conv2"],
        auxiliary=True,
    )
    with torch.device("meta"):
        model = build_model(config, 5).train()
        outputs = model.outputs(torch.empty(2, 3, 97, 66))
    assert outputs.scores.shape == (2, 5, 25, 17)
    assert outputs.auxiliary is not None
    stride = min(16, output_stride)
    assert outputs.auxiliary.shape == (2, 5, -(-97 // stride), -(-66 // stride))


@pytest.mark.parametrize(("name", "aspp"), [("resnet18", "v3"), ("convnext_atto", "none")])
def test_a_step_of_sgd_lowers_the_loss_with_batch_norm_and_without_any(
    name: str, aspp: str
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(backbone=f"timm/{name}", aspp=aspp, aspp_channels=16, dropout=0)
    model = build_model(config, 5).train()
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == (aspp == "v3")
    images, labels = torch.rand(2, 3, 65, 65), torch.randint(5, (2, 65, 65))

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(images), labels)

    before = loss()
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert loss().item() < before.item()


@pytest.mark.parametrize("name", ["xception41", "convnext_atto"])
@torch.no_grad()
def test_traced_network_gives_the_same_scores(name: str) -> None:
    config = ModelConfig(backbone=f"timm/{name}", output_stride=32, aspp_channels=16)
    model = build_model(config, 5).eval()
    images = torch.rand(1, 3, 65, 33)
    traced = torch.jit.trace(model, torch.rand(1, 3, 65, 33))
    torch.testing.assert_close(traced(images), model(images))
