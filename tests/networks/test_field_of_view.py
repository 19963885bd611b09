import pytest

from pipeline.config import ModelConfig
from pipeline.networks.field_of_view import Field, field_of_view


@pytest.mark.parametrize(
    ("kernel", "rate", "pixels"), [(7, 4, 224), (4, 4, 128), (4, 8, 224), (3, 12, 224)]
)
def test_fc6_sees_what_v2s_first_table_says(kernel: int, rate: int, pixels: int) -> None:
    config = ModelConfig("deeplab", "vgg16", 8, aspp="fc6", fc6_kernel=kernel, rates=[rate])
    assert field_of_view(config) == Field(pixels, image=False)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_field_of_view_is_the_same_at_every_output_stride(output_stride: int) -> None:
    config = ModelConfig(backbone="resnet50", output_stride=output_stride)
    assert field_of_view(config) == Field(18 * 16 * 2 + 32, image=True)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (ModelConfig(aspp="no_pooling"), Field(608, image=False)),
        (ModelConfig(aspp="no_pooling", rates=[6, 12, 18, 24]), Field(800, image=False)),
        (ModelConfig(aspp="no_atrous"), Field(32, image=True)),
        (ModelConfig(aspp="none"), Field(32, image=False)),
        (ModelConfig(backbone="resnet50", aspp="none", blocks=7), Field(256, image=False)),
        (ModelConfig(backbone="resnet101", output_stride=8, aspp="summed"), Field(416, False)),
    ],
)
def test_the_widest_branch_counts_and_a_1x1_sees_one_cell(
    config: ModelConfig, field: Field
) -> None:
    assert field_of_view(config) == field


def test_it_means_nothing_for_networks_that_are_not_deeplab() -> None:
    assert field_of_view(ModelConfig(network="unet", backbone="resnet50", output_stride=32)) is None


def test_a_field_is_said_in_pixels() -> None:
    assert [str(Field(608, True)), str(Field(224, False))] == ["608, image", "224"]
