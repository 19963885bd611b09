import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.config import ModelConfig, TrainConfig
from pipeline.models.network import Outputs, SegmentationNetwork, build_model
from pipeline.training.losses import GlobalBatch, SegmentationLoss, subsample

FULL, COARSE = TrainConfig(upsample_logits=True), TrainConfig(upsample_logits=False)
VOID = 255


def total_loss(
    network: SegmentationNetwork, outputs: Outputs, labels: Tensor, config: TrainConfig
) -> Tensor:
    loss: Tensor = SegmentationLoss(config)(network, outputs, labels)
    return loss


def small(
    scales: tuple[float, ...] = (1.0,), auxiliary: bool = False, align_corners: bool = True
) -> SegmentationNetwork:
    """Without dropout; in training its batch norm lets the scores differ from zero."""
    torch.manual_seed(0)
    config = ModelConfig(
        width=0.25,
        aspp="summed",
        rates=[1, 2],
        scales=list(scales),
        auxiliary=auxiliary,
        align_corners=align_corners,
    )
    return build_model(config, num_classes=3)


def batch(side: int = 65) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (4, side, side))
    labels[:, :5] = 255
    return torch.rand(4, 3, side, side), labels


# --- cross-entropy


@pytest.mark.parametrize("config", [FULL, COARSE])
def test_void_pixels_neither_count_nor_weigh(config: TrainConfig) -> None:
    scores = torch.randn(2, 3, 4, 5, requires_grad=True)
    labels = torch.randint(3, (2, 4, 5))
    labels[0, 0], labels[1, :, 2] = VOID, VOID
    loss = total_loss(small(), Outputs(scores), labels, config)
    valid = labels != VOID
    plain = -scores.log_softmax(1).permute(0, 2, 3, 1)[valid][
        torch.arange(int(valid.sum())), labels[valid]
    ]
    assert loss.item() == pytest.approx(plain.mean().item())
    loss.backward()
    assert scores.grad is not None
    assert not scores.grad.permute(0, 2, 3, 1)[~valid].any()


@pytest.mark.parametrize("config", [FULL, COARSE])
def test_a_batch_of_void_alone_costs_nothing_and_teaches_nothing(config: TrainConfig) -> None:
    network = small()
    outputs = network.train().outputs(torch.rand(2, 3, 33, 33))
    loss = total_loss(network, outputs, torch.full((2, 33, 33), 255), config)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("config", [FULL, COARSE])
def test_classes_weigh_as_in_torchs_cross_entropy(config: TrainConfig) -> None:
    scores, weights = torch.randn(2, 3, 5, 5), [0.5, 2.0, 0.0]
    labels = torch.randint(3, (2, 5, 5))
    labels[0, 0] = VOID
    loss = SegmentationLoss(config, weights)(small(), Outputs(scores), labels)
    wanted = F.cross_entropy(scores, labels, torch.tensor(weights), ignore_index=VOID)
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize("upsample", [True, False])
def test_only_the_hardest_pixels_teach(upsample: bool) -> None:
    config = TrainConfig(upsample_logits=upsample, ohem=0.25)
    scores, labels = torch.randn(2, 3, 6, 7, requires_grad=True), torch.randint(3, (2, 6, 7))
    labels[1, :3] = VOID
    loss = SegmentationLoss(config)(small(), Outputs(scores), labels)
    losses = F.cross_entropy(scores, labels, ignore_index=VOID, reduction="none")
    count = int((labels != VOID).sum()) // 4
    assert 4 * count != (labels != VOID).sum()  # a quarter that is no whole number of pixels
    largest = losses.flatten().sort(descending=True).values
    part = int((labels != VOID).sum()) / 4
    wanted = (largest[:count].sum() + (part - count) * largest[count]) / part
    torch.testing.assert_close(loss, wanted)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert int(gradient.any(1).sum()) == count + 1


@pytest.mark.parametrize("config", [FULL, COARSE])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_the_parts_of_a_batch_add_up_to_its_mean(
    config: TrainConfig, weights: list[float] | None
) -> None:
    network, (_, labels) = small(), batch()
    labels[:2, 9:] = VOID  # images that have few pixels to say
    scores, coarse = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 3, 3)
    scores[:2] *= 3
    criterion = SegmentationLoss(config, weights)
    whole = criterion(network, Outputs(scores, (coarse,)), labels)
    given = GlobalBatch(labels, criterion)
    halves = [
        (Outputs(scores[half], (coarse[half],)), labels[half]) for half in (slice(2), slice(2, 4))
    ]
    parts = [criterion(network, *half, given) for half in halves]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)
    alone = torch.stack([criterion(network, *half) for half in halves])
    assert alone.mean().item() != pytest.approx(whole.item(), rel=1e-3)


# --- where scores and labels meet


def test_labels_are_subsampled_to_the_pixel_that_each_score_is_centred_on() -> None:
    labels = torch.arange(2 * 33 * 17).reshape(2, 33, 17)
    assert torch.equal(subsample(labels, torch.Size((5, 3))), labels[:, ::8, ::8])
    assert torch.equal(subsample(labels, labels.shape[-2:]), labels)
    assert torch.equal(subsample(labels, torch.Size((1, 1))), labels[:, :1, :1])


@given(side=st.integers(2, 600), count=st.integers(2, 80))
def test_subsampled_labels_are_the_nearest_and_keep_the_corners(side: int, count: int) -> None:
    (row,) = subsample(torch.arange(side).reshape(1, 1, side), torch.Size((1, count)))
    taken = row[0].tolist()
    assert (taken[0], taken[-1]) == (0, side - 1)
    for i, pixel in enumerate(taken):
        assert abs(pixel - i * (side - 1) / (count - 1)) <= 0.5 + 1e-9


def test_a_loss_at_the_scores_size_by_hand() -> None:
    # Two scores for two classes, of labels 1, 0, 0: the middle one is not asked.
    scores = torch.tensor([[[[0.0, 2.0]], [[1.0, 0.0]]]])
    labels = torch.tensor([[[1, 0, 0]]])
    wanted = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    loss = total_loss(small(), Outputs(scores), labels, COARSE)
    assert loss.item() == pytest.approx(wanted)


def test_a_loss_at_the_labels_size_by_hand() -> None:
    # The middle score is the mean of its neighbours: 1 and 0.5.
    scores = torch.tensor([[[[0.0, 2.0]], [[1.0, 0.0]]]])
    labels = torch.tensor([[[1, 0, 255]]])
    wanted = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-0.5))) / 2
    loss = total_loss(small(), Outputs(scores), labels, FULL)
    assert loss.item() == pytest.approx(wanted)


def test_scores_are_upsampled_as_the_network_upsamples() -> None:
    images, labels = batch()
    for align_corners in (True, False):
        network = small(align_corners=align_corners).train()
        loss = total_loss(network, network.outputs(images), labels, FULL)
        wanted = F.cross_entropy(network(images), labels, ignore_index=VOID)
        torch.testing.assert_close(loss, wanted)


# --- several outputs


@torch.inference_mode()
def test_fused_scores_are_the_maximum_over_passes_at_each_scale() -> None:
    network = small(scales=(0.5, 0.75, 1.0)).train()
    images, _ = batch()
    normalised = (images - network.input_mean) / network.input_std
    passes = []
    for side in (33, 49, 65):
        seen = F.interpolate(normalised, size=(side, side), mode="bilinear", align_corners=True)
        passes.append(network.head(network.backbone(seen)))
    outputs = network.outputs(images)
    torch.testing.assert_close(list(outputs.at_scales), passes)
    half, three_quarters, whole = passes
    small_ones = (F.interpolate(p, (5, 5), mode="bilinear", align_corners=True) for p in passes[:2])
    assert half.shape[-2:] == (3, 3)
    assert three_quarters.shape[-2:] == (4, 4)
    torch.testing.assert_close(outputs.scores, torch.maximum(whole, torch.maximum(*small_ones)))


@pytest.mark.parametrize("config", [FULL, COARSE])
def test_several_scales_cost_the_fused_loss_and_each_scales_own(config: TrainConfig) -> None:
    network = small(scales=(0.5, 0.75, 1.0)).train()
    images, labels = batch()
    outputs = network.outputs(images)
    parts = [
        total_loss(network, Outputs(scores), labels, config)
        for scores in (outputs.scores, *outputs.at_scales)
    ]
    assert len(parts) == 4
    torch.testing.assert_close(
        total_loss(network, outputs, labels, config), torch.stack(parts).sum()
    )


def test_each_scale_is_asked_for_the_labels_of_its_own_grid() -> None:
    scores = [torch.randn(1, 3, side, side) for side in (3, 4, 5)]
    labels = torch.randint(3, (1, 65, 65))
    # Of 4 x 4 scores, 64 / 3 pixels apart.
    grids = [labels[:, ::32, ::32], labels[:, [0, 21, 43, 64]][..., [0, 21, 43, 64]]]
    grids.append(labels[:, ::16, ::16])
    wanted = sum(F.cross_entropy(s, g) for s, g in zip(scores, grids, strict=True))
    fused = F.cross_entropy(scores[2], grids[2])
    outputs = Outputs(scores[2], at_scales=tuple(scores))
    torch.testing.assert_close(total_loss(small(), outputs, labels, COARSE), wanted + fused)


@pytest.mark.parametrize("upsample", [True, False])
def test_the_auxiliary_loss_joins_with_its_weight(upsample: bool) -> None:
    network = small()
    main, auxiliary = torch.randn(2, 3, 3, 3), torch.randn(2, 3, 5, 5)
    labels = torch.randint(3, (2, 33, 33))
    config = TrainConfig(upsample_logits=upsample, auxiliary_weight=0.4)
    wanted = total_loss(network, Outputs(main), labels, config)
    wanted = wanted + 0.4 * total_loss(network, Outputs(auxiliary), labels, config)
    loss = total_loss(network, Outputs(main, auxiliary=auxiliary), labels, config)
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize("config", [FULL, COARSE])
@pytest.mark.parametrize(
    ("scales", "auxiliary"), [((1.0,), False), ((0.5, 0.75, 1.0), False), ((1.0,), True)]
)
def test_a_step_of_sgd_reaches_every_parameter_and_lowers_the_total_loss(
    scales: tuple[float, ...], auxiliary: bool, config: TrainConfig
) -> None:
    network = small(scales, auxiliary).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images, labels = batch()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    before = total_loss(network, network.outputs(images), labels, config)
    before.backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    optimiser.step()
    after = total_loss(network, network.outputs(images), labels, config)
    assert after.item() < before.item()
