import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.network import IMAGENET_MEAN, SegmentationNetwork, build_model
from pipeline.models.weights import (
    State,
    from_tensorflow_deeplab_mobilenet_v2,
    load_weights,
    read_state_dict,
)
from pipeline.paths import PROJECT

SHARED = PROJECT.parent / "shared" / "data"
TRAINED = SHARED / "weights" / "deeplab_v3_mobilenet_v2_voc21.pth"
PHOTOGRAPHS = SHARED / "voc2012-subset.tar"


def small(
    num_classes: int = 5, backbone: str = "mobilenet_v2", aspp: str = "no_atrous"
) -> SegmentationNetwork:
    config = ModelConfig(backbone=backbone, aspp=aspp, aspp_channels=8, output_stride=32)
    return build_model(config, num_classes)


def saved(content: object, file: Path) -> str:
    torch.save(content, file)
    return str(file)


def changed(model: SegmentationNetwork, before: State) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def copied(model: SegmentationNetwork) -> State:
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_no_weights_leave_the_network_random() -> None:
    model = small()
    before = copied(model)
    report = load_weights(model, None)
    assert not changed(model, before)
    assert set(report.fresh) == set(before)
    assert "random" in report.summary()


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18", "resnet50"])
def test_torchvision_backbone_loads_and_the_head_stays_random(
    backbone: str, tmp_path: Path
) -> None:
    theirs = torchvision.models.get_model(backbone, weights=None)
    model = small(backbone=backbone)
    before = copied(model)
    model.input_mean.fill_(0.5)
    report = load_weights(model, saved(theirs.state_dict(), tmp_path / "backbone.pth"))

    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key])
    assert {k for k in changed(model, before) if k.startswith("head.")} == set()
    assert model.input_mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert set(report.fresh) == {k for k in before if k.startswith("head.")}
    assert len(report.loaded) + len(report.fresh) == len(before)
    assert all(k.startswith(("features.18.", "classifier.", "fc.")) for k in report.left_out)
    assert "random (head.aspp, head.classifier)" in report.summary()
    assert "\n" not in report.summary()


@pytest.mark.parametrize("lightning", [False, True])
def test_our_own_weights_load_whole(lightning: bool, tmp_path: Path) -> None:
    trained = small()
    trained.input_mean.fill_(0.25)
    content: dict[str, object] = dict(trained.state_dict())
    if lightning:
        task = {f"network.{key}": value for key, value in trained.state_dict().items()}
        content = {"epoch": 3, "state_dict": {"loss.weight": torch.ones(5)} | task}
    model = small()
    report = load_weights(model, saved(content, tmp_path / "model.ckpt"))
    assert not changed(model, trained.state_dict())
    assert set(report.loaded) == set(trained.state_dict())
    assert report.fresh == report.left_out == ()


@pytest.mark.parametrize("aspp", ["no_atrous", "summed"])
def test_class_layer_of_other_classes_stays_random(aspp: str, tmp_path: Path) -> None:
    trained, model = small(21, aspp=aspp), small(5, aspp=aspp)
    before = copied(model)
    report = load_weights(model, saved(trained.state_dict(), tmp_path / "voc.pth"))
    layer = "head.aspp.branches." if aspp == "summed" else "head.classifier."
    assert all(key.startswith(layer) for key in report.fresh)
    assert len(report.fresh) == (8 if aspp == "summed" else 2)
    assert not changed(model, before) & set(report.fresh)
    assert len(report.loaded) + len(report.fresh) == len(before)


def test_old_files_without_batch_counters_load(tmp_path: Path) -> None:
    trained = small()
    state = {k: v for k, v in trained.state_dict().items() if "num_batches_tracked" not in k}
    model = small()
    report = load_weights(model, saved(state, tmp_path / "old.pth"))
    assert set(report.loaded) == set(state)
    assert not changed(model, trained.state_dict())


@pytest.mark.parametrize(
    ("trouble", "named"),
    [
        ("missing", "1 missing: backbone.features.3.conv.2.weight"),
        ("unexpected", "1 unexpected: backbone.features.99.weight"),
        ("shape", "1 of another shape: head.aspp.projection.0.weight"),
    ],
)
def test_every_difference_is_listed_and_nothing_is_loaded(
    trouble: str, named: str, tmp_path: Path
) -> None:
    state = dict(small().state_dict())
    match trouble:
        case "missing":
            del state["backbone.features.3.conv.2.weight"]
        case "unexpected":
            state["backbone.features.99.weight"] = torch.ones(1)
        case "shape":
            state["head.aspp.projection.0.weight"] = torch.ones(8, 16, 3, 3)
    model = small()
    before = copied(model)
    with pytest.raises(UserError) as error:
        load_weights(model, saved(state, tmp_path / "other.pth"))
    assert named in str(error.value)
    assert "other.pth" in str(error.value)
    assert "\n" not in str(error.value)
    assert not changed(model, before)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    file = saved(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match=r"does not fit .*model\.backbone=resnet34 .*missing"):
        load_weights(small(backbone="resnet34"), file)
    with pytest.raises(UserError, match=r"does not fit .*model\.backbone=mobilenet_v2"):
        load_weights(small(), file)


def test_missing_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file.*model\.weights=imagenet"):
        load_weights(small(), str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b"<html>404 Not Found</html>", "damaged"),
        (None, "damaged"),  # half of a real file
        ([1, 2], "no state_dict"),
        ({"state_dict": {}}, "no state_dict"),
        ({"epoch": 1}, "no state_dict"),
        ({"encoder.weight": torch.ones(1)}, "unknown names"),
        ({"path": Path("x")}, "damaged or holds more than tensors"),
    ],
)
def test_unusable_file_is_named_in_one_line(content: object, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    if content is None:
        torch.save(small().state_dict(), file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=reason) as error:
        load_weights(small(), str(file))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_imagenet_is_torchvisions_own_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    theirs = torchvision.models.resnet18(weights=None)
    downloads = tmp_path / "hub" / "checkpoints"
    downloads.mkdir(parents=True)
    torch.save(theirs.state_dict(), downloads / url.rsplit("/", 1)[1])  # as if fetched before
    model = small(backbone="resnet18")
    report = load_weights(model, "imagenet")
    assert torch.equal(model.backbone.state_dict()["conv1.weight"], theirs.conv1.weight)
    assert report.left_out == ("fc.weight", "fc.bias")


def test_imagenet_without_internet_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for proxy in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    for proxy in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(UserError, match=r"could not be fetched .*model\.weights=PATH") as error:
        load_weights(small(), "imagenet")
    assert "\n" not in str(error.value)


def tensorflow_layout(num_classes: int, channels: int) -> State:
    """A random network in the published layout, its features as torchvision's."""
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(weights=None)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of these images, so that signals keep their size
    theirs(torch.randn(2, 3, 65, 65))
    state = {
        key: value
        for key, value in theirs.state_dict().items()
        if key.startswith("features.") and not key.startswith("features.18.")
    }
    inputs = {"aspp0": 320, "image_pooling": 320, "concat_projection": 2 * channels}
    for name, in_channels in inputs.items():
        state[f"{name}.0.weight"] = torch.randn(channels, in_channels, 1, 1) / in_channels**0.5
        state[f"{name}.1.weight"] = torch.rand(channels) + 0.5
        state[f"{name}.1.bias"] = torch.randn(channels)
        state[f"{name}.1.running_mean"] = torch.randn(channels)
        state[f"{name}.1.running_var"] = torch.rand(channels) + 0.5
    state["logits.weight"] = torch.randn(num_classes, channels, 1, 1)
    state["logits.bias"] = torch.randn(num_classes)
    return state


def tensorflow_head(state: State, high: Tensor) -> Tensor:
    def block(name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.1.{tensor}"]
            for tensor in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(F.conv2d(x, state[f"{name}.0.weight"]), mean, var, weight, bias).relu()

    pooled = block("image_pooling", high.mean(dim=(2, 3), keepdim=True)).expand(
        -1, -1, *high.shape[-2:]
    )
    x = block("concat_projection", torch.cat([pooled, block("aspp0", high)], dim=1))
    return F.conv2d(x, state["logits.weight"], state["logits.bias"])


@torch.inference_mode()
def test_tensorflow_network_computes_the_same_after_conversion(tmp_path: Path) -> None:
    state = tensorflow_layout(num_classes=5, channels=8)
    model = small().eval()
    report = load_weights(model, saved(state, tmp_path / "tensorflow.pth"))
    assert report.fresh == report.left_out == ()
    images = torch.rand(2, 3, 97, 65)
    high = model.backbone(images * 255 / 127.5 - 1).high
    # x / 127.5 - 1 and (x / 255 - 0.5) / 0.5 round differently, and the network amplifies it.
    wanted = tensorflow_head(state, high)
    torch.testing.assert_close(model.scores(images), wanted, rtol=1e-3, atol=1e-3)


def test_tensorflow_network_with_a_strange_layer_is_refused(tmp_path: Path) -> None:
    state = tensorflow_layout(num_classes=5, channels=8) | {"aspp1.0.weight": torch.ones(1)}
    with pytest.raises(UserError, match=r"1 unexpected: aspp1\.0\.weight"):
        load_weights(small(), saved(state, tmp_path / "tensorflow.pth"))


needs_trained = pytest.mark.skipif(not TRAINED.is_file(), reason=f"{TRAINED} is not here")


@pytest.mark.real_data
@needs_trained
def test_trained_networks_batch_norms_are_rebuilt_for_our_epsilon() -> None:
    converted = from_tensorflow_deeplab_mobilenet_v2(read_state_dict(TRAINED)).state
    rebuilt = [k.removesuffix("running_var") for k in converted if k.endswith("running_var")]
    assert len(rebuilt) == 51 + 3  # backbone and head
    for name in rebuilt:
        variance = converted[f"{name}running_var"]
        torch.testing.assert_close(converted[f"{name}weight"] ** 2, variance + 1e-5)


@pytest.mark.real_data
@needs_trained
@pytest.mark.skipif(not PHOTOGRAPHS.is_file(), reason=f"{PHOTOGRAPHS} is not here")
@torch.inference_mode()
def test_trained_network_segments_photographs() -> None:
    model = build_model(ModelConfig(aspp="no_atrous"), num_classes=21).eval()
    report = load_weights(model, str(TRAINED))
    assert report.fresh == report.left_out == ()
    assert len(report.loaded) == len(model.state_dict())

    root = "VOCdevkit/VOC2012"
    with tarfile.open(PHOTOGRAPHS) as archive:

        def read(name: str) -> io.BytesIO:
            member = archive.extractfile(f"{root}/{name}")
            assert member is not None
            return io.BytesIO(member.read())

        ids = read("ImageSets/Segmentation/val.txt").read().decode().split()[:3]
        for name in ids:
            image = np.array(Image.open(read(f"JPEGImages/{name}.jpg")))
            truth = np.array(Image.open(read(f"SegmentationClass/{name}.png")))
            height, width = truth.shape
            padded = torch.full((1, 3, 513, 513), 0.5)  # 0 after normalisation
            padded[0, :, :height, :width] = torch.from_numpy(image).permute(2, 0, 1) / 255
            predicted = model(padded)[0, :, :height, :width].argmax(0).numpy()
            valid = truth != 255
            assert (predicted == truth)[valid].mean() > 0.8, name
            assert (predicted == truth)[valid & (truth > 0)].mean() > 0.5, name
