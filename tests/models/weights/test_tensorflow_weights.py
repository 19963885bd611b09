import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from norms import with_statistics
from PIL import Image
from small_networks import State, load, saved, small
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.network import build_model
from pipeline.models.weights import load_weights
from pipeline.models.weights.converters import from_tensorflow_deeplab_mobilenet_v2
from pipeline.models.weights.files import read_weights
from pipeline.paths import PROJECT

SHARED = PROJECT.parent / "shared" / "data"
TRAINED = SHARED / "weights" / "deeplab_v3_mobilenet_v2_voc21.pth"
PHOTOGRAPHS = SHARED / "voc2012-subset.tar"


def tensorflow_layout(num_classes: int, channels: int) -> State:
    """A random network in the published layout, its features as torchvision's."""
    torch.manual_seed(0)
    theirs = with_statistics(
        torchvision.models.mobilenet_v2(weights=None), torch.randn(2, 3, 65, 65)
    )
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
    report = load(model, saved(state, tmp_path / "tensorflow.pth"))
    assert report.random == report.left_out == ()
    images = torch.rand(2, 3, 97, 65)
    high = model.backbone(images * 255 / 127.5 - 1).high
    # x / 127.5 - 1 and (x / 255 - 0.5) / 0.5 round differently, and the network amplifies it.
    wanted = tensorflow_head(state, high)
    torch.testing.assert_close(model.scores(images), wanted, rtol=1e-3, atol=1e-3)


def test_tensorflow_network_with_a_strange_layer_is_refused(tmp_path: Path) -> None:
    state = tensorflow_layout(num_classes=5, channels=8) | {"aspp1.0.weight": torch.ones(1)}
    with pytest.raises(UserError, match=r"1 unexpected: aspp1\.0\.weight"):
        load(small(), saved(state, tmp_path / "tensorflow.pth"))


needs_trained = pytest.mark.skipif(not TRAINED.is_file(), reason=f"{TRAINED} is not here")


@pytest.mark.real_data
@needs_trained
def test_trained_networks_batch_norms_are_rebuilt_for_our_epsilon() -> None:
    converted = from_tensorflow_deeplab_mobilenet_v2(read_weights(TRAINED, "").state).state
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
    config = ModelConfig(aspp="no_atrous", weights=str(TRAINED))
    model = build_model(config, num_classes=21).eval()
    report = load_weights(model, config)
    assert report.random == report.left_out == ()
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
