import torch
from torch import nn

from pipeline.config import ModelConfig
from pipeline.models.aspp import ASPP
from pipeline.models.decoder import DecoderStage
from pipeline.models.heads import DeepLabV3PlusHead
from pipeline.models.network import build_model


def head_shapes(config: ModelConfig) -> list[tuple[int, ...]]:
    with torch.device("meta"):
        head = build_model(config, 21).head
    return [tuple(p.shape) for p in head.parameters() if p.dim() == 4]


def test_every_setting_of_the_decoder_arrives() -> None:
    config = ModelConfig(
        backbone="resnet101",
        aspp="no_pooling",
        rates=[3],
        aspp_channels=96,
        decoder=True,
        low_level_channels=32,
        decoder_features=["conv3", "conv2"],
        decoder_layers=3,
        decoder_kernel=1,
        decoder_channels=128,
    )
    assert head_shapes(config) == [
        *[(96, 2048, 1, 1), (96, 2048, 3, 3), (96, 192, 1, 1)],
        *[(32, 512, 1, 1), (128, 128, 1, 1), (128, 128, 1, 1), (128, 128, 1, 1)],
        *[(32, 256, 1, 1), (128, 160, 1, 1), (128, 128, 1, 1), (128, 128, 1, 1)],
        (21, 128, 1, 1),
    ]


def test_separable_reaches_the_aspp_and_the_decoder() -> None:
    config = ModelConfig(backbone="resnet101", decoder=True, separable=True)
    branch = [(2048, 1, 3, 3), (256, 2048, 1, 1)]
    assert head_shapes(config) == [
        *[(256, 2048, 1, 1), *branch, *branch, *branch, (256, 2048, 1, 1), (256, 1280, 1, 1)],
        *[(48, 256, 1, 1), (304, 1, 3, 3), (256, 304, 1, 1), (256, 1, 3, 3), (256, 256, 1, 1)],
        (21, 256, 1, 1),
    ]


def test_dropout_and_alignment_arrive() -> None:
    config = ModelConfig(
        decoder=True, decoder_features=["conv3", "conv2"], dropout=0.25, align_corners=False
    )
    head = build_model(config, 3).head
    assert isinstance(head, DeepLabV3PlusHead)
    assert isinstance(head.aspp, ASPP)
    assert [m.p for m in head.aspp.modules() if isinstance(m, nn.Dropout)] == [0.25]
    stages = [m for m in head.decoder.modules() if isinstance(m, DecoderStage)]
    assert [stage.align_corners for stage in stages] == [False, False]


def test_aspp_none_is_a_class_layer_alone() -> None:
    assert head_shapes(ModelConfig(backbone="resnet18", aspp="none")) == [(21, 512, 1, 1)]


def test_auxiliary_classifier_speaks_in_training_alone() -> None:
    network = build_model(ModelConfig(aspp="none", auxiliary=True), 3)
    images = torch.rand(2, 3, 33, 33)
    auxiliary = network.train().outputs(images).auxiliary
    assert auxiliary is not None
    assert auxiliary.shape == (2, 3, 3, 3)
    assert network.eval().outputs(images).auxiliary is None


def test_auxiliary_classifier_is_torchvisions() -> None:
    # 1024 channels of block 3: 3x3 to a quarter of them, and the classes.
    with torch.device("meta"):
        auxiliary = build_model(ModelConfig(backbone="resnet50", auxiliary=True), 21).auxiliary
    assert auxiliary is not None
    assert sum(p.numel() for p in auxiliary.parameters()) == 42_004_074 - 39_638_869
