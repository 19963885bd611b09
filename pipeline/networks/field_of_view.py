"""The field of view of a network's head, as DeepLab v2 states it: arithmetic on its settings."""

from typing import NamedTuple

from pipeline.config import ModelConfig, atrous_rates

#: Pixels that one position of a classifier's last map stands for.
CELL = 32
#: Those of `model.aspp` that pool over the whole image.
POOLING_ASPPS = ("v3", "no_atrous")


class Field(NamedTuple):
    """How much of the image is seen.

    Attributes:
        pixels: a side.
        image: whether the mean of the whole image, or of fixed parts of it, joins besides.
    """

    pixels: int
    image: bool

    def __str__(self) -> str:
        return f"{self.pixels}, image" if self.image else str(self.pixels)


def field_of_view(config: ModelConfig) -> Field | None:
    """What the head's widest branch sees, from the backbone's last map on.

    The outermost taps of a k x k convolution of rate r lie output_stride * r * (k - 1) pixels
    apart, and each stands for a cell of the classifier's last map: 32 pixels, and 64, 128, 256
    after blocks 5, 6 and 7. So 7x7 with rate 4 at output stride 8 sees what ImageNet's fc6 saw,
    7 * 32 = 224. `receptive_field` has what the backbone sees besides.

    Returns:
        None for a network that is not DeepLab.

    Source: v2, Table 1 (224, 128, 224 and 224 pixels); image pooling: v3, section 3.3.
    """
    if config.network != "deeplab":
        return None
    rates = atrous_rates(config)
    kernel = config.fc6_kernel if config.aspp == "fc6" else 3
    span = config.output_stride * max(rates) * (kernel - 1) if rates else 0
    return Field(span + CELL * 2 ** (config.blocks - 4), config.aspp in POOLING_ASPPS)
