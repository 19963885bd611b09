import torch
from torch import nn

from pipeline.config import ModelConfig, TrainConfig
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.training.parameters import parameter_groups


def network() -> SegmentationNetwork:
    with torch.device("meta"):
        return build_model(ModelConfig(backbone="resnet18", aspp="summed", auxiliary=True), 5)


def test_every_parameter_is_in_one_group() -> None:
    model = network()
    for multiplier in (1.0, 2.0):
        groups = parameter_groups(model, TrainConfig(bias_multiplier=multiplier))
        listed = [id(p) for group in groups for p in group["params"]]
        assert sorted(listed) == sorted(id(p) for p in model.parameters())


def test_all_that_is_not_the_backbone_learns_at_the_heads_rate() -> None:
    model = network()
    config = TrainConfig(learning_rate=0.5, head_multiplier=10, weight_decay=0.1)
    slow, fast = parameter_groups(model, config)
    assert [id(p) for p in slow["params"]] == [id(p) for p in model.backbone.parameters()]
    assert (slow["lr"], fast["lr"]) == (0.5, 5.0)
    assert slow["weight_decay"] == fast["weight_decay"] == 0.1
    assert model.auxiliary is not None
    inside = {id(p) for p in fast["params"]}
    assert all(id(p) in inside for p in [*model.head.parameters(), *model.auxiliary.parameters()])


def test_biases_learn_twice_as_fast_and_do_not_decay_as_in_v2s_release() -> None:
    model = network()
    config = TrainConfig(
        learning_rate=2.5e-4, head_multiplier=10, bias_multiplier=2, weight_decay=5e-4
    )
    groups = parameter_groups(model, config)
    # The ResNet has no biases: its convolutions' are batch norm's.
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (2.5e-4, 5e-4),
        (2.5e-3, 5e-4),
        (5e-3, 0.0),
    ]
    biases = [m.bias for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert [id(p) for p in groups[2]["params"]] == [id(bias) for bias in biases]
    assert len(biases) == 5  # four branches and the auxiliary classifier
