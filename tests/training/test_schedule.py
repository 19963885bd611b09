import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import TrainConfig
from pipeline.training.schedule import cosine, poly, schedule, step, warmed_up


def test_poly_falls_from_one_to_zero_as_in_the_paper() -> None:
    factor = poly(1000, 0.9)
    assert factor(0) == 1.0
    assert factor(500) == pytest.approx(0.5**0.9)
    assert factor(1000) == factor(1200) == 0.0


def test_step_falls_to_a_tenth_every_2000_iterations() -> None:
    factor = step(2000, 0.1)
    assert [factor(i) for i in (0, 1999, 2000, 3999, 4000)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_is_half_way_in_the_middle() -> None:
    factor = cosine(100)
    assert [factor(i) for i in (0, 50, 100, 150)] == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_warm_up_grows_linearly_and_then_follows_the_policy() -> None:
    factor = warmed_up(lambda _: 2.0, 3)
    assert [factor(i) for i in range(5)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert warmed_up(lambda _: 2.0, 0)(0) == 2.0


@given(
    name=st.sampled_from(["poly", "step", "cosine"]),
    iterations=st.integers(0, 100_000),
    warmup=st.integers(0, 1000),
    at=st.floats(0, 1),
)
def test_every_policy_stays_between_zero_and_one(
    name: str, iterations: int, warmup: int, at: float
) -> None:
    config = TrainConfig(schedule=name, iterations=iterations, warmup_iterations=warmup)
    assert 0.0 <= schedule(config)(int(at * iterations)) <= 1.0
