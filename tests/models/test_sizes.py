from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.sizes import aligned_side, scaled_side


@given(st.integers(1, 3000), st.sampled_from([4, 8, 16, 32, 256]))
def test_an_aligned_side_is_the_next_one_on_the_grid(side: int, output_stride: int) -> None:
    aligned = aligned_side(side, output_stride)
    assert (aligned - 1) % output_stride == 0
    assert side <= aligned < side + output_stride


def test_scaled_sides_keep_the_grid() -> None:
    scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert [scaled_side(513, scale) for scale in scales] == [257, 385, 513, 641, 769, 897]
    assert scaled_side(1, 0.5) == 1
