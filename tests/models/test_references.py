import pytest
import segmentation_models_pytorch as smp
import torch
from norms import with_statistics
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torchvision.models.segmentation import fcn_resnet50

from pipeline.composition import load_config
from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.layers import ClassLayer
from pipeline.models.network import SegmentationNetwork, build_model

REFERENCES = ("fcn", "unet", "linknet", "fpn", "pspnet")
#: The stride of the scores; None: the output stride.
SCORE_STRIDES = {"fcn": None, "unet": 1, "linknet": 1, "fpn": 4, "pspnet": None}


def network(name: str, output_stride: int = 32, backbone: str = "resnet18") -> SegmentationNetwork:
    config = ModelConfig(network=name, backbone=backbone, output_stride=output_stride)
    return build_model(config, num_classes=5)


def smp_model(name: str) -> SegmentationModel:
    settings = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 5}
    match name:
        case "unet":
            return smp.Unet(**settings)
        case "linknet":
            return smp.Linknet(**settings)
        case "fpn":
            return smp.FPN(**settings)
        case _:  # the whole backbone; the library's own preset ends it at stride 8
            return smp.PSPNet(encoder_depth=5, upsampling=32, **settings)


def with_weights_of(reference: SegmentationModel, name: str) -> SegmentationNetwork:
    ours = network(name)
    ours.backbone.load_state_dict(reference.encoder.state_dict())
    decoder = {f"decoder.{k}": v for k, v in reference.decoder.state_dict().items()}
    last = {f"classifier.{k}": v for k, v in reference.segmentation_head[0].state_dict().items()}
    ours.head.load_state_dict(decoder | last)
    return ours.eval()


def library_scores(reference: SegmentationModel, normalised: Tensor) -> Tensor:
    """Before upsampling."""
    return reference.segmentation_head[0](reference.decoder(reference.encoder(normalised)))


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("unet", 64, 96),
        ("unet", 65, 83),  # the library's U-Net takes any size as well
        ("linknet", 64, 96),
        ("fpn", 64, 96),
        ("pspnet", 64, 96),
    ],
)
@torch.no_grad()
def test_scores_are_segmentation_models_pytorchs(name: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    reference = smp_model(name).eval()
    with_statistics(reference, torch.randn(2, 3, 64, 64))
    ours = with_weights_of(reference, name)
    images = torch.rand(2, 3, height, width)
    wanted = library_scores(reference, (images - ours.input_mean) / ours.input_std)
    torch.testing.assert_close(ours.scores(images), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_logits_are_those_of_torchvisions_fcn() -> None:
    torch.manual_seed(0)
    theirs = fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    with_statistics(theirs, torch.randn(2, 3, 65, 65))
    config = ModelConfig(
        network="fcn", backbone="resnet50", output_stride=8, align_corners=False, auxiliary=True
    )
    ours = build_model(config, num_classes=5)
    ours.backbone.load_state_dict(theirs.backbone.state_dict())
    for part, head in ((theirs.classifier, ours.head), (theirs.aux_classifier, ours.auxiliary)):
        assert head is not None
        renamed = zip(head.state_dict(), part.state_dict().values(), strict=True)
        head.load_state_dict(dict(renamed))
    images = torch.rand(1, 3, 65, 48)
    wanted = theirs.eval()((images - ours.input_mean) / ours.input_std)
    torch.testing.assert_close(ours.eval()(images), wanted["out"], rtol=1e-5, atol=1e-5)
    assert ours.auxiliary is not None
    auxiliary = ours.auxiliary(ours.backbone((images - ours.input_mean) / ours.input_std))
    upsampled = ours.upsample(auxiliary, images)
    torch.testing.assert_close(upsampled, wanted["aux"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "timm/convnext_atto"])
@pytest.mark.parametrize("name", REFERENCES)
def test_every_size_and_output_stride_gives_logits_of_the_inputs_size(
    name: str, backbone: str
) -> None:
    if name == "linknet" and backbone.startswith("timm/"):
        backbone = "timm/resnet18"  # ConvNeXt has no stride 2 to add
    with torch.device("meta"):
        for output_stride in (32,) if name == "linknet" else (8, 32):
            model = network(name, output_stride, backbone).train()
            stride = SCORE_STRIDES[name] or output_stride
            for height, width in ((97, 66), (64, 75)):
                images = torch.empty(2, 3, height, width)
                assert model(images).shape == (2, 5, height, width)
                assert model.scores(images).shape == (
                    2,
                    5,
                    -(-height // stride),
                    -(-width // stride),
                )


@pytest.mark.parametrize("name", REFERENCES)
def test_a_step_of_sgd_lowers_the_loss_even_of_one_image(name: str) -> None:
    torch.manual_seed(0)
    model = network(name, 32 if name == "linknet" else 16).train()
    images, labels = torch.rand(1, 3, 65, 65), torch.randint(5, (1, 65, 65))

    def loss() -> Tensor:
        torch.manual_seed(1)  # the same dropout
        return nn.functional.cross_entropy(model(images), labels)

    before = loss()
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert loss().item() < before.item()


@pytest.mark.parametrize("name", ["fcn", "unet", "fpn", "pspnet"])
def test_weights_of_one_output_stride_fit_another(name: str) -> None:
    coarse, fine = network(name, 32), network(name, 8)
    fine.load_state_dict(coarse.state_dict())


@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_traced_and_exported_networks_give_the_same_logits(name: str) -> None:
    torch.manual_seed(0)
    model = network(name).eval()
    example = torch.rand(1, 3, 65, 48)
    exported = torch.export.export(model, (example,)).module()
    torch.testing.assert_close(exported(example), model(example))
    traced = torch.jit.trace(model, example)
    for images in (example, torch.rand(2, 3, 97, 64)):
        torch.testing.assert_close(traced(images), model(images))


@pytest.mark.parametrize("name", ["unet", "linknet", "fpn", "pspnet"])
def test_decoder_starts_from_the_librarys_distribution(name: str) -> None:
    torch.manual_seed(0)
    convolutions = [m for m in network(name).head.modules() if isinstance(m, nn.Conv2d)]
    *decoder, last = convolutions
    assert isinstance(last, ClassLayer)
    assert decoder
    for layer in decoder:  # He's uniform distribution over the incoming connections
        bound = (6 / layer.weight[0].numel()) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max().item() <= bound
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize(
    ("name", "output_stride", "backbone", "told"),
    [
        ("linknet", 16, "resnet18", "model.output_stride=16 with model.network=linknet: "),
        ("linknet", 32, "timm/convnext_atto", "no map at each of the strides 2, 4, 8, 16, 32"),
        ("pspnet", 16, "timm/rexnet_100", "185 channels, which 4 does not divide"),
        ("unett", 16, "resnet18", "model.network=unett: "),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(
    name: str, output_stride: int, backbone: str, told: str
) -> None:
    with torch.device("meta"), pytest.raises(UserError) as caught:
        network(name, output_stride, backbone)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", REFERENCES)
def test_preset_is_its_network_at_its_usual_output_stride(name: str) -> None:
    model = load_config([f"model={name}"]).model
    assert model.network == name
    assert model.output_stride == (8 if name in ("fcn", "pspnet") else 32)
    with torch.device("meta"):
        built = build_model(model, num_classes=5)
        assert type(built.head).__name__.lower() == name
