"""Atrous spatial pyramid pooling: one feature map seen at several rates at once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.layers import ClassLayer, conv_bn_relu, separable_conv_bn_relu
from pipeline.models.remade import BatchNorm2d


class SummedASPP(nn.Module):
    """The ASPP of DeepLab v2: a 3x3 per rate, straight to class scores, summed.

    Input: N x in_channels x H x W, output: N x num_classes x H x W.
    Source: v2, section 3.2 and Figure 7(b); for ResNet-101 the released settings.

    Args:
        in_channels: of the backbone's map.
        num_classes: with the background.
        rates: at this output stride, e.g. (6, 12, 18, 24) at 8.
    """

    def __init__(self, in_channels: int, num_classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            ClassLayer(in_channels, num_classes, 3, rate=rate) for rate in rates
        )

    def forward(self, high: Tensor) -> Tensor:
        """Class scores at the output stride."""
        return torch.stack([branch(high) for branch in self.branches]).sum(dim=0)


class ImagePooling(nn.Sequential):
    """The mean over the whole map, 1x1 convolution, batch norm, ReLU, spread over the map again.

    Input: N x in_channels x H x W, output: N x channels x H x W.
    Source: v3, section 3.3 ("image-level features").
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(in_channels, channels, 1))

    def forward(self, high: Tensor) -> Tensor:
        """Image-level features at every position.

        Raises:
            UserError: for a batch of one image in training: its batch norm has one value a channel.
        """
        batch_norm = self[2]
        if len(high) == 1 and batch_norm.training and type(batch_norm) is BatchNorm2d:
            raise UserError(
                "a part of the batch has one image: the batch norm after image pooling needs at "
                "least 2; raise train.batch_size, lower train.accumulate, or set "
                "train.freeze_batch_norm=true or model.aspp=no_pooling"
            )
        # Bilinear upsampling of a 1x1 map, as the paper has it, is this.
        return super().forward(high).expand(-1, -1, *high.shape[-2:])


class ASPP(nn.Module):
    """The ASPP of DeepLab v3: 1x1, atrous 3x3s and image pooling, concatenated and projected.

    Input: N x in_channels x H x W, output: N x channels x H x W.
    Source: v3, section 3.3 and Figure 5. Dropout after the projection: the released code.
    Separable 3x3s: v3+, section 3.1.

    Args:
        in_channels: of the backbone's map.
        rates: of the 3x3s at this output stride, e.g. (6, 12, 18) at 16. None of them leaves the
            1x1 and image pooling: MobileNetV2, section 6.3.
        pooling: whether there is image pooling.
        channels: of every branch and of the output.
        dropout: chance of a zero in training.
        separable: whether the 3x3s are depthwise separable.
    """

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int],
        *,
        pooling: bool = True,
        channels: int = 256,
        dropout: float = 0.1,
        separable: bool = False,
    ) -> None:
        super().__init__()
        # The order (1x1, rates, pooling) is torchvision's; weights of another order are permuted.
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, channels, 1)])
        atrous = separable_conv_bn_relu if separable else conv_bn_relu
        self.branches.extend(atrous(in_channels, channels, 3, rate=rate) for rate in rates)
        if pooling:
            self.branches.append(ImagePooling(in_channels, channels))
        self.projection = nn.Sequential(
            *conv_bn_relu(len(self.branches) * channels, channels, 1), nn.Dropout(dropout)
        )

    def forward(self, high: Tensor) -> Tensor:
        """Encoder features at the output stride.

        Raises:
            UserError: with image pooling, for a batch of one image in training.
        """
        return self.projection(torch.cat([branch(high) for branch in self.branches], dim=1))
