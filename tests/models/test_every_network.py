"""What every network must do, whatever it is made of."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from pipeline.config import ModelConfig, check_model
from pipeline.config.model import output_strides
from pipeline.errors import UserError
from pipeline.models.checkpoint import load_network, save_network
from pipeline.models.for_inference import BATCH_NORMS, for_inference
from pipeline.models.network import SegmentationNetwork, build_model

CLASSES = 5
#: Every backbone, every head and every option, with few channels where the papers have many.
NETWORKS: dict[str, dict[str, Any]] = {
    "v1 7x7": {"backbone": "vgg16", "aspp": "fc6", "rates": [4], "fc6_kernel": 7},
    "v1 4x4": {"backbone": "vgg16", "aspp": "fc6", "rates": [8], "fc6_kernel": 4},
    "v1 MSc-LargeFOV": {"backbone": "vgg16", "aspp": "fc6", "multi_scale_features": True},
    "v2 VGG-16 ASPP-L": {"backbone": "vgg16", "aspp": "fc6", "rates": [6, 12, 18, 24]},
    "v2 ResNet LargeFOV": {"backbone": "resnet18", "aspp": "summed", "rates": [12]},
    "v2 ResNet ASPP, MSC": {"backbone": "resnet18", "aspp": "summed", "scales": [0.5, 0.75, 1.0]},
    "v3 cascade": {"backbone": "resnet18", "aspp": "none", "blocks": 7, "multi_grid": [1, 2]},
    "v3 ResNet-50": {"backbone": "resnet50", "multi_grid": [1, 2, 4], "stem": "3x3"},
    "v3 ResNet-101, auxiliary": {"backbone": "resnet101", "auxiliary": True},
    "v3 no pooling": {
        "backbone": "resnet34",
        "aspp": "no_pooling",
        "head_conv": True,
        "align_corners": False,
    },
    "v3 MobileNetV2": {"backbone": "mobilenet_v2", "aspp": "no_atrous", "width": 0.5},
    "v3+ MobileNetV2": {"backbone": "mobilenet_v2", "decoder": True},
    "v3+ Conv2 + Conv3": {
        "backbone": "resnet18",
        "decoder": True,
        "decoder_features": ["conv3", "conv2"],
        "decoder_layers": 1,
    },
    "v3+ Xception-41": {"backbone": "xception41", "decoder": True, "separable": True},
    "v3+ Xception-65": {"backbone": "xception65", "decoder": True, "separable": True},
    "v3+ Xception-71": {"backbone": "xception71", "decoder": True, "separable": True},
    "v3 timm": {"backbone": "timm/mobilenetv3_small_050"},
    "FCN": {"network": "fcn", "backbone": "resnet18"},
    "U-Net": {"network": "unet", "backbone": "resnet18"},
    "LinkNet": {"network": "linknet", "backbone": "resnet18", "output_stride": 32},
    "FPN": {"network": "fpn", "backbone": "resnet18"},
    "PSPNet": {"network": "pspnet", "backbone": "resnet18"},
}
every_network = pytest.mark.parametrize("name", NETWORKS)
#: In evaluation, more of the blocks that another one has.
DEEPER = ("v3 ResNet-101, auxiliary", "v3+ Xception-65", "v3+ Xception-71")
every_graph = pytest.mark.parametrize("name", [name for name in NETWORKS if name not in DEEPER])


def configured(name: str, output_stride: int | None = None) -> ModelConfig:
    asked = {} if output_stride is None else {"output_stride": output_stride}
    narrow = {"aspp_channels": 16, "fc6_channels": 16, "decoder_channels": 16, "dropout": 0.0}
    config = ModelConfig(**(narrow | NETWORKS[name] | asked))
    check_model(config)
    return config


def built(name: str, output_stride: int | None = None) -> SegmentationNetwork:
    torch.manual_seed(0)
    network = build_model(configured(name, output_stride), CLASSES)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def alive(network: SegmentationNetwork) -> SegmentationNetwork:
    """In evaluation mode, with the batch norm statistics of a real pass and scores of size 1.

    Statistics of 0 and 1 let the signal vanish in deep networks: everything would look equal.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.inference_mode():
        network.train()(torch.rand(2, 3, 65, 65))
        for parameter in classifiers(network):
            parameter.mul_(1 / network.eval()(torch.rand(1, 3, 65, 65)).std())
    return network


def classifiers(network: SegmentationNetwork) -> list[nn.Parameter]:
    from pipeline.models.layers import ClassLayer

    layers = [module for module in network.head.modules() if isinstance(module, ClassLayer)]
    return [parameter for layer in layers for parameter in layer.parameters()]


def loss_of(network: SegmentationNetwork, images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(network(images), labels)


@every_network
def test_scores_have_the_images_size_at_every_output_stride(name: str) -> None:
    for output_stride in output_strides(configured(name)):
        try:
            with torch.device("meta"):  # shapes only, nothing is computed
                network = built(name, output_stride).eval()
        except UserError as error:
            assert name in ("v3 timm", "LinkNet"), error
            assert f"model.output_stride={output_stride}" in str(error)
            continue
        for height, width in ((128, 66), (33, 101)):
            scores = network(torch.empty(2, 3, height, width, device="meta"))
            assert scores.shape == (2, CLASSES, height, width)


@every_network
def test_for_inference_the_scores_stay_and_no_batch_norm_follows_a_convolution(name: str) -> None:
    network = alive(built(name))
    images = torch.rand(1, 3, 97, 81)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    quick = for_inference(network)
    with torch.inference_mode():
        # In float64: networks of random weights blow up what float32 rounds.
        exact = copy.deepcopy(network).double()(images.double())
        assert (quick(images) - exact).std() <= 2e-4 * exact.std()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    # timm's do the activation as well, and stay; so do LinkNet's after transposed convolutions
    # and that of the auxiliary head, which is for training.
    left = [module for module in quick.modules() if type(module) in BATCH_NORMS]
    there = [module for module in network.modules() if type(module) in BATCH_NORMS]
    staying = {"LinkNet": 5, "v3 ResNet-101, auxiliary": 1}
    assert len(left) == staying.get(name, 0)
    assert there or "v1" in name or "VGG" in name


@every_network
def test_a_training_step_lowers_the_loss(name: str) -> None:
    network = built(name).train()
    # Two classes, so that there is something to learn: the loss of five at random is the least.
    images, labels = torch.rand(2, 3, 65, 65), torch.randint(2, (2, 65, 65))
    before = loss_of(network, images, labels)
    before.backward()
    for key, parameter in network.named_parameters():
        if not key.startswith("auxiliary."):  # not part of this loss
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    steepness = sum(gradient.square().sum() for gradient in gradients)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                # So long a step that the loss would fall by 1% if it fell in a straight line.
                parameter.sub_(0.01 * before / steepness * parameter.grad)
    assert loss_of(network, images, labels).item() < before.item()


@every_network
def test_a_batch_of_one_in_training_works_or_says_what_to_do(name: str) -> None:
    network = built(name).train()
    images, labels = torch.rand(1, 3, 65, 65), torch.randint(CLASSES, (1, 65, 65))
    try:
        loss = loss_of(network, images, labels)
    except UserError as error:
        assert "train.batch_size" in str(error)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # train.freeze_batch_norm, which the message names
        loss = loss_of(network, images, labels)
    assert loss.isfinite()


@every_network
@torch.inference_mode()
def test_a_saved_network_comes_back_whole(name: str, tmp_path: Path) -> None:
    network = alive(built(name))
    about = {"classes": [str(number) for number in range(CLASSES)]}
    save_network(tmp_path / "model.ckpt", network, configured(name), about)
    again = load_network(tmp_path / "model.ckpt")  # reads with weights_only=True
    images = torch.rand(1, 3, 65, 66)
    assert torch.equal(again(images), network(images))


@every_network
@torch.inference_mode()
def test_channels_last_gives_the_same_scores(name: str) -> None:
    # In float64: networks of random weights blow up what float32 rounds.
    network = alive(built(name)).double()
    images = torch.rand(2, 3, 65, 66, dtype=torch.float64)
    wanted = network(images)
    network.to(memory_format=torch.channels_last)
    got = network(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, wanted)


@every_graph
def test_exported_and_in_onnx_it_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    network = alive(built(name))
    images = torch.rand(1, 3, 65, 66)
    with torch.no_grad():
        wanted = network(images)
        exported = torch.export.export(network, (images,))
        torch.testing.assert_close(exported.module()(images), wanted, rtol=1e-4, atol=1e-4)
        program = torch.onnx.export(exported, (images,), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(tmp_path / "network.onnx"))
    session = onnxruntime.InferenceSession(
        tmp_path / "network.onnx", providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-2, atol=1e-3)


@every_graph
@torch.inference_mode()
def test_it_compiles_into_one_graph(name: str) -> None:
    network = alive(built(name))
    images = torch.rand(1, 3, 65, 65)
    torch.compiler.reset()
    # The graph is the network's matter; what the compiler makes of it is PyTorch's.
    compiled: Callable[[Tensor], Tensor] = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images))


@torch.inference_mode()
def test_compiled_to_machine_code_it_gives_the_same_scores() -> None:
    network = alive(built("v3+ Conv2 + Conv3"))
    images = torch.rand(1, 3, 65, 65)
    torch.compiler.reset()
    compiled: Callable[[Tensor], Tensor] = torch.compile(network)
    torch.testing.assert_close(compiled(images), network(images), rtol=1e-3, atol=1e-3)
