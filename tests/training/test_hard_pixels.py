import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.hard_pixels import hardest


@given(
    losses=st.lists(st.floats(0, 2.0**99, width=32), min_size=1, max_size=60),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 9),
)
def test_exactly_the_share_of_the_largest_losses_is_taken(
    losses: list[float], share: float, seed: int
) -> None:
    values = torch.tensor(losses)
    counts = torch.rand(len(losses), generator=torch.Generator().manual_seed(seed)) < 0.8
    chosen = hardest(values, counts, share)
    wanted = share * int(counts.sum())
    assert abs(chosen.sum().item() - wanted) < 1e-3
    assert not chosen[~counts].any()
    if wanted:
        least = values[counts & (chosen > 0)].min()
        assert (chosen[counts & (values > least)] == 1).all()
        assert not chosen[counts & (values < least)].any()


def test_equal_losses_count_in_part() -> None:
    losses = torch.tensor([[0.5, 2.0, 0.5], [0.5, 0.5, 9.0]])
    void = torch.tensor([[True, True, True], [True, True, False]])
    chosen = hardest(losses, void, 0.4)
    torch.testing.assert_close(chosen, torch.tensor([[0.25, 1.0, 0.25], [0.25, 0.25, 0.0]]))


def test_a_negative_zero_is_a_zero_and_all_is_all() -> None:
    losses = torch.tensor([-0.0, 0.0, 3.0])
    assert hardest(losses, torch.ones(3, dtype=torch.bool), 1.0).tolist() == [1.0, 1.0, 1.0]
    assert hardest(losses, torch.ones(3, dtype=torch.bool), 1 / 3).tolist() == [0.0, 0.0, 1.0]
    assert not hardest(losses, torch.zeros(3, dtype=torch.bool), 0.5).any()
