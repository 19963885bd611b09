from pathlib import Path

import pytest
import timm
import torch
import torchvision
from small_networks import State, changed, copied, load, saved, small

from pipeline.errors import UserError
from pipeline.models.network import IMAGENET_MEAN
from pipeline.paths import PROJECT

TRAINED = PROJECT.parent / "shared" / "data" / "weights" / "mobilenet_v2_imagenet.pth"

VGG = {"backbone": "vgg16", "aspp": "fc6", "fc6_channels": 64, "output_stride": 8}


def vgg16_features() -> State:
    """torchvision's, without building its 120 million fully connected weights."""
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None, init_weights=False).features
    return {f"features.{key}": torch.zeros(v.shape) for key, v in theirs.state_dict().items()}


def test_no_weights_leave_the_network_random() -> None:
    model = small()
    before = copied(model)
    report = load(model, None)
    assert not changed(model, before)
    assert set(report.random) == set(before)
    assert report.sha256 is None
    assert report.summary() == "random"


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18", "resnet50"])
def test_a_classifiers_features_load_and_the_head_stays_random(
    backbone: str, tmp_path: Path
) -> None:
    theirs = torchvision.models.get_model(backbone, weights=None)
    model = small(backbone=backbone, auxiliary=True)
    before = copied(model)
    model.input_mean.fill_(0.5)
    report = load(model, saved(theirs.state_dict(), tmp_path / "b.pth"), backbone=backbone)

    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key])
    assert {k for k in changed(model, before) if not k.startswith("backbone.")} == set()
    assert model.input_mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert set(report.random) == {k for k in before if k.startswith(("head.", "auxiliary."))}
    assert set(report.loaded) == set(before) - set(report.random)
    assert all(k.startswith(("features.18.", "classifier.", "fc.")) for k in report.left_out)
    assert "random (auxiliary, head.aspp, head.classifier)" in report.summary()
    assert "\n" not in report.summary()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("xception41", {"backbone": "xception41"}),
        ("mobilenetv2_050", {"backbone": "mobilenet_v2", "width": 0.5}),
        ("resnet50s", {"backbone": "resnet50", "stem": "3x3"}),
        ("regnetx_002", {"backbone": "timm/regnetx_002"}),
    ],
)
def test_timms_classifiers_load_with_their_own_normalisation(
    name: str, settings: dict[str, object], tmp_path: Path
) -> None:
    theirs = timm.create_model(name, num_classes=7)
    expected = timm.get_pretrained_cfg(name)
    assert expected is not None
    model = small(**settings)
    before = copied(model)
    model.input_mean.zero_()
    report = load(model, saved(theirs.state_dict(), tmp_path / f"{name}.pth"), **settings)
    features = {k for k in before if k.startswith("backbone.")}
    assert {k for k in changed(model, before) if k.endswith("weight") and "bn" not in k}
    assert set(report.loaded) == {*features, "input_mean", "input_std"}
    assert len(report.left_out) + len(features) == len(theirs.state_dict())
    assert model.input_mean.flatten().tolist() == pytest.approx(expected.mean)
    assert model.input_std.flatten().tolist() == pytest.approx(expected.std)


def test_copies_of_block_4_stay_random_above_imagenets_resnet(tmp_path: Path) -> None:
    file = saved(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r.pth")
    settings = {"backbone": "resnet18", "blocks": 7}
    model = small(**settings)
    before = copied(model)
    report = load(model, file, **settings)
    random = ("head.", "backbone.layer5.", "backbone.layer6.", "backbone.layer7.")
    assert set(report.random) == {k for k in before if k.startswith(random)}
    assert "backbone.layer5, backbone.layer6, backbone.layer7" in report.summary()


@pytest.mark.parametrize("multi_scale", [False, True])
def test_fc8_and_multi_scale_features_stay_random_above_imagenets_vgg16(
    multi_scale: bool, tmp_path: Path
) -> None:
    state = vgg16_features()
    # The real ones have 4096 filters: 400 MB.
    for layer, inputs, filters in ((0, 512 * 7 * 7, 64), (3, 64, 64), (6, 64, 10)):
        state[f"classifier.{layer}.weight"] = torch.zeros(filters, inputs)
        state[f"classifier.{layer}.bias"] = torch.zeros(filters)
    settings = VGG | {"multi_scale_features": multi_scale}
    model = small(**settings)
    report = load(model, saved(state, tmp_path / "vgg16.pth"), **settings)
    assert set(report.left_out) == {"classifier.6.weight", "classifier.6.bias"}
    random = ("head.branches.0.fc8.", "head.multi_scale.")
    assert set(report.random) == {k for k in model.state_dict() if k.startswith(random)}
    assert len(report.random) == (22 if multi_scale else 2)


def test_vgg16_without_its_classifier_brings_the_original_normalisation(tmp_path: Path) -> None:
    state = vgg16_features()
    model = small(**VGG)
    report = load(model, saved(state, tmp_path / "features.pth"), **VGG)
    assert all(k.startswith("head.") for k in report.random)
    assert model.input_std.flatten().tolist() == pytest.approx([1 / 255] * 3)


@pytest.mark.parametrize("lightning", [False, True])
def test_our_own_weights_load_whole(lightning: bool, tmp_path: Path) -> None:
    trained = small()
    trained.input_mean.fill_(0.25)
    content: dict[str, object] = dict(trained.state_dict())
    if lightning:
        task = {f"network.{key}": value for key, value in trained.state_dict().items()}
        content = {"epoch": 3, "state_dict": {"loss.weight": torch.ones(5)} | task}
    model = small()
    report = load(model, saved(content, tmp_path / "model.ckpt"))
    assert not changed(model, trained.state_dict())
    assert set(report.loaded) == set(trained.state_dict())
    assert report.random == report.left_out == ()


def test_our_own_weights_without_their_normalisation_are_refused(tmp_path: Path) -> None:
    state = {k: v for k, v in small().state_dict().items() if not k.startswith("input_")}
    with pytest.raises(UserError, match="2 missing: input_mean, input_std"):
        load(small(), saved(state, tmp_path / "model.pth"))


@pytest.mark.parametrize("aspp", ["no_atrous", "summed"])
def test_class_layer_of_other_classes_stays_random(aspp: str, tmp_path: Path) -> None:
    trained, model = small(21, aspp=aspp), small(5, aspp=aspp)
    before = copied(model)
    report = load(model, saved(trained.state_dict(), tmp_path / "voc.pth"), aspp=aspp)
    layer = "head.aspp.branches." if aspp == "summed" else "head.classifier."
    assert all(key.startswith(layer) for key in report.random)
    assert len(report.random) == (8 if aspp == "summed" else 2)
    assert not changed(model, before) & set(report.random)
    assert len(report.loaded) + len(report.random) == len(before)


def test_an_auxiliary_head_that_only_the_weights_have_is_left_out_by_name(tmp_path: Path) -> None:
    trained, model = small(auxiliary=True), small()
    report = load(model, saved(trained.state_dict(), tmp_path / "model.pth"))
    assert set(report.left_out) == {k for k in trained.state_dict() if k.startswith("auxiliary.")}
    assert "left out (auxiliary)" in report.summary()
    assert not changed(model, trained.state_dict())


def test_an_auxiliary_head_that_only_the_network_has_stays_random(tmp_path: Path) -> None:
    trained, model = small(), small(auxiliary=True)
    report = load(model, saved(trained.state_dict(), tmp_path / "model.pth"), auxiliary=True)
    assert set(report.random) == {k for k in model.state_dict() if k.startswith("auxiliary.")}


def test_old_files_without_batch_counters_load(tmp_path: Path) -> None:
    trained = small()
    state = {k: v for k, v in trained.state_dict().items() if "num_batches_tracked" not in k}
    model = small()
    report = load(model, saved(state, tmp_path / "old.pth"))
    assert set(report.loaded) == set(state)
    assert not changed(model, trained.state_dict())


@pytest.mark.parametrize(
    ("trouble", "named"),
    [
        ("missing", "1 missing: backbone.features.3.conv.2.weight"),
        ("half a head", "4 missing: head.aspp.projection.1.weight"),
        ("unexpected", "1 unexpected: backbone.features.99.weight"),
        ("shape", "1 of another shape: head.aspp.projection.0.weight"),
        ("outputs", "1 of another shape: head.aspp.projection.1.weight"),
    ],
)
def test_every_difference_is_listed_and_nothing_is_loaded(
    trouble: str, named: str, tmp_path: Path
) -> None:
    state: State = dict(small().state_dict())
    match trouble:
        case "missing":
            del state["backbone.features.3.conv.2.weight"]
        case "half a head":
            state = {k: v for k, v in state.items() if not k.startswith("head.aspp.projection.1.")}
        case "unexpected":
            state["backbone.features.99.weight"] = torch.ones(1)
        case "shape":
            state["head.aspp.projection.0.weight"] = torch.ones(8, 16, 3, 3)
        case "outputs":  # as a class layer of other classes has, but this is none
            state["head.aspp.projection.1.weight"] = torch.ones(9)
    model = small()
    before = copied(model)
    with pytest.raises(UserError) as error:
        load(model, saved(state, tmp_path / "other.pth"))
    assert named in str(error.value)
    assert "other.pth" in str(error.value)
    assert "\n" not in str(error.value)
    assert not changed(model, before)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    file = saved(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match=r"does not fit .*model\.backbone=resnet34 .*missing"):
        load(small(backbone="resnet34"), file, backbone="resnet34")
    with pytest.raises(UserError, match=r"does not fit .*model\.backbone=mobilenet_v2"):
        load(small(), file)


def test_a_checkpoint_of_other_settings_is_refused_with_the_settings(tmp_path: Path) -> None:
    trained = small(width=0.5)
    task = {f"network.{key}": value for key, value in trained.state_dict().items()}
    content = {"state_dict": task, "model": {"backbone": "mobilenet_v2", "width": 0.5}}
    with pytest.raises(UserError, match=r"of these weights: model\.width=0\.5$"):
        load(small(), saved(content, tmp_path / "model.ckpt"))


def test_names_of_no_known_network_are_listed(tmp_path: Path) -> None:
    file = saved({"encoder.weight": torch.ones(1)}, tmp_path / "strange.pth")
    with pytest.raises(UserError, match=r"strange\.pth: unknown names \(encoder\.weight\)"):
        load(small(), file)


@pytest.mark.real_data
@pytest.mark.skipif(not TRAINED.is_file(), reason=f"{TRAINED} is not here")
def test_imagenets_real_mobilenet_v2_loads() -> None:
    model = small()
    report = load(model, TRAINED)
    assert set(report.random) == {k for k in model.state_dict() if k.startswith("head.")}
    assert len(report.loaded) + len(report.random) == len(model.state_dict())
    assert report.sha256 is not None and report.sha256.startswith("a878240a680f")
