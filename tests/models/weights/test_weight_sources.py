import math
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from small_networks import load, saved, small, small_config
from torchvision.models import get_model_weights

from pipeline.config.model import BACKBONES
from pipeline.errors import UserError
from pipeline.models.network import build_model
from pipeline.models.weights import describe, find_weights, known_weights
from pipeline.models.weights.files import sha256_of
from pipeline.models.weights.sources import HALF, WeightSet, weight_sets

TORCHVISION = [one for one in known_weights() if one.publisher == "torchvision"]
TIMM = [one for one in known_weights() if one.publisher == "timm"]
COCO = {"backbone": "resnet50", "aspp": "v3", "aspp_channels": 256, "head_conv": True}


def label(one: WeightSet) -> str:
    return f"{one.backbone}-{one.name}-{one.place.rsplit('/')[-1]}"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_imagenets(backbone: str) -> None:
    assert "imagenet" in [one.name for one in weight_sets(small_config(backbone=backbone))]


def test_no_two_sets_share_a_name() -> None:
    keys = [
        (one.backbone, one.width, one.stem, one.name, one.settings.get("network"))
        for one in known_weights()
    ]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("one", TORCHVISION, ids=label)
def test_the_table_says_what_torchvision_says(one: WeightSet) -> None:
    prefix = {"deeplab": "deeplabv3_", "fcn": "fcn_", None: ""}
    network = prefix[one.settings.get("network")] + one.backbone  # type: ignore[index]
    theirs = {weights.url: weights for weights in get_model_weights(network)}[one.place]
    transforms = theirs.transforms()
    assert one.normalisation.mean == pytest.approx(transforms.mean)
    assert one.normalisation.std == pytest.approx(transforms.std)
    (metrics,) = theirs.meta["_metrics"].values()
    figure = metrics.get("acc@1", metrics.get("miou"))
    assert ("not stated" if math.isnan(figure) else str(figure)) in one.metric


@pytest.mark.parametrize("one", TIMM, ids=label)
def test_the_table_says_what_timm_says(one: WeightSet) -> None:
    name = one.place.removeprefix("timm/")
    theirs = timm.get_pretrained_cfg(name)
    assert name in timm.list_pretrained()
    assert theirs is not None and theirs.hf_hub_id == one.place
    assert one.normalisation == (theirs.mean, theirs.std)


@pytest.mark.parametrize("one", TIMM, ids=label)
def test_timms_network_has_the_shapes_of_ours(one: WeightSet) -> None:
    config = small_config(backbone=one.backbone, width=one.width, stem=one.stem)
    with torch.device("meta"):
        theirs = timm.create_model(one.place.removeprefix("timm/").split(".")[0])
        ours = build_model(config, 5).backbone
    features = sorted(
        tuple(value.shape)
        for key, value in theirs.state_dict().items()
        if not key.startswith(("fc.", "head.", "conv_head.", "bn2.", "classifier."))
    )
    assert features == sorted(tuple(value.shape) for value in ours.state_dict().values())


def test_a_name_is_fetched_and_brings_its_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    theirs = torchvision.models.resnet18(weights=None)
    file = saved(theirs.state_dict(), tmp_path / "resnet18.pth")
    file = file.rename(tmp_path / f"resnet18-{sha256_of(file)[:8]}.pth")
    here = WeightSet("imagenet", "resnet18", "somebody", file.as_uri(), HALF, "none")
    monkeypatch.setattr("pipeline.models.weights.sources.WEIGHT_SETS", (here,))
    model = small(backbone="resnet18")
    report = load(model, "imagenet", backbone="resnet18")
    assert torch.equal(model.backbone.state_dict()["conv1.weight"], theirs.conv1.weight)
    assert report.left_out == ("fc.weight", "fc.bias")
    assert model.input_mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert report.sha256 == sha256_of(file)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": "imagenett"}, "did you mean 'imagenet'? valid: imagenet, imagenet_v2"),
        ({"weights": "coco_voc"}, "model.backbone=mobilenet_v2; valid: imagenet, imagenet_v2"),
        ({"weights": "imagenet", "width": 0.75}, "model.width=0.75; there are none at all"),
        (
            {"weights": "imagenet", "width": 0.5, "round_channels": False},
            "model.width=0.5, model.round_channels=false; there are none at all",
        ),
        (
            {"weights": "imagenet", "backbone": "resnet18", "stem": "3x3"},
            "model.backbone=resnet18, model.stem=3x3; there are none at all",
        ),
        (
            {"weights": "imagenet_v2", "backbone": "resnet50", "stem": "3x3"},
            "did you mean 'imagenet'? valid: imagenet;",
        ),
        (
            {"weights": "coco_voc", "backbone": "resnet50", "network": "unet"},
            "model.network=unet, model.backbone=resnet50",
        ),
        ({"weights": "nothing", "backbone": "timm/regnetx_002"}, "valid: imagenet, pycls_in1k"),
        ({"weights": "imagenet", "backbone": "timm/regnetx_002.x"}, "valid: pycls_in1k;"),
        ({"weights": "imagenet", "backbone": "timm/no_such"}, "there are none at all"),
        (COCO | {"weights": "coco_voc", "head_conv": False}, "set model.head_conv=true,"),
        (COCO | {"weights": "coco_voc", "aspp": "summed"}, "coco_voc with model.aspp=summed:"),
    ],
)
def test_a_name_that_is_not_of_the_network_is_refused(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError) as error:
        find_weights(small_config(**settings))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"width": 0.5}, "timm/mobilenetv2_050.lamb_in1k"),
        ({"backbone": "resnet101", "stem": "3x3"}, "timm/resnet101s.gluon_in1k"),
        ({"backbone": "xception65"}, "timm/xception65.tf_in1k"),
        ({"backbone": "timm/resnet50"}, "timm/resnet50.a1_in1k"),
        ({"backbone": "timm/resnet50.tv_in1k"}, "timm/resnet50.tv_in1k"),
    ],
)
def test_imagenets_depend_on_width_stem_and_tag(settings: dict[str, object], place: str) -> None:
    found = find_weights(small_config(weights="imagenet", **settings))
    assert isinstance(found, WeightSet)
    assert found.place == place


def test_the_tags_of_a_timm_backbone_are_names() -> None:
    found = find_weights(small_config(weights="a3_in1k", backbone="timm/resnet50"))
    assert isinstance(found, WeightSet)
    assert found.place == "timm/resnet50.a3_in1k"


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("network", ["deeplab", "fcn"])
def test_whole_networks_have_a_name_at_every_output_stride(
    network: str, output_stride: int
) -> None:
    settings = COCO | {"network": network, "output_stride": output_stride, "weights": "coco_voc"}
    found = find_weights(small_config(**settings))
    assert isinstance(found, WeightSet)
    assert f"/{network}" in found.place


def test_no_weights_are_no_source() -> None:
    assert find_weights(small_config()) is None


def test_a_file_is_its_path(tmp_path: Path) -> None:
    file = saved({}, tmp_path / "weights")
    assert find_weights(small_config(weights=str(file))) == file


def test_describe_says_metric_source_and_normalisation() -> None:
    first, second = describe(small_config())
    assert first == (
        "imagenet: top-1 71.878; torchvision, "
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth; "
        "mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    )
    assert second.startswith("imagenet_v2: ")
    (whole,) = (one for one in describe(small_config(**COCO)) if one.startswith("coco_voc"))
    assert "needs model.network=deeplab, model.aspp=v3" in whole
    assert "resolve/main/model.safetensors" in describe(small_config(backbone="xception41"))[0]
