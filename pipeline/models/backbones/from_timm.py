"""Any backbone of timm that gives features at the asked output stride; the others are refused.

Source: the library pytorch-image-models, `timm.create_model(..., features_only=True)`.
"""

import difflib
from collections.abc import Sequence
from typing import NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from timm.models import FeatureInfo
from torch import Tensor, nn

from pipeline.config.model import TIMM
from pipeline.errors import UserError, nearest
from pipeline.models.backbones.base import Backbone, Features

#: Of the five levels in the classifier.
STRIDES = (2, 4, 8, 16, 32)
#: A side of k * 32 + 1 pixels, as crops have, and an even one; 5 and 3 of the coarsest pixels,
#: which no transformer's window divides.
PROBE = (4 * 32 + 1, 2 * 32 + 2)
EXAMPLES = "e.g. timm/resnet50, timm/regnetx_016, timm/efficientnet_b0"


class Layout(NamedTuple):
    """How the maps of a timm model become the five levels.

    Attributes:
        indices: which of the model's maps is each level; None where it has none.
        channels: of each level; 0 where the model has none.
        multiple: of pixels that the image's sides are filled up to; 1: any side will do.
        channels_last: whether the maps are N x H x W x C.
    """

    indices: tuple[int | None, ...]
    channels: tuple[int, ...]
    multiple: int
    channels_last: bool


class TimmBackbone(Backbone):
    """A feature extractor of timm in the atrous form that timm gives it, with random weights.

    The levels' maps are exactly ceil(H / stride) x ceil(W / stride). A model that drops what does
    not fill a whole patch (ConvNeXt, VGG) sees the image's last column and row repeated until it
    does, and its maps are cut. A level that the model has not, such as stride 2 of ConvNeXt, has
    no channels; the classifier's strides 4 and 32 must be there.

    Whether features of one output stride, subsampled, equal those of a coarser one is timm's
    matter. They do with plain convolutions: ResNet, ResNeXt, RegNetX, Xception-41 and -65,
    MobileNetV2, EfficientNet-Lite. They do not with squeeze-and-excitation, a mean over another
    grid (RegNetY, MobileNetV3, EfficientNet), nor where a stride sits in an even kernel or in an
    average pool (ConvNeXt, NFNet, ResNet-D). With names in `tf_` they can at k * 32 + 1 pixels
    alone, where TensorFlow's padding is the same on both sides.

    Args:
        name: `timm/NAME` with or without the tag of its weights, e.g. timm/resnet50.a1_in1k.
        output_stride: mostly 8, 16 or 32; for many models 32 alone.

    Attributes:
        body: timm's own model: the pretrained one's state_dict fits key for key.
        mean: of the inputs that timm's weights of this name want, RGB in [0, 1].
        std: likewise.

    Raises:
        UserError: if timm has no such model, or cannot give its features at the output stride.
    """

    def __init__(self, name: str, output_stride: int) -> None:
        super().__init__()
        self.name = name
        self.output_stride = output_stride
        self.layout = _layout(name, output_stride)
        self.channels = self.layout.channels
        self.body = _create(name, output_stride)
        trained = cast(dict[str, tuple[float, ...]], self.body.pretrained_cfg)
        self.mean = trained["mean"]
        self.std = trained["std"]

    def forward(self, images: Tensor) -> Features:
        """Features of normalised images, N x 3 x H x W."""
        maps = _maps(self.body, images, self.layout.multiple, self.layout.channels_last)
        height, width = images.shape[-2:]
        levels = []
        for index, classifier_stride in zip(self.layout.indices, STRIDES, strict=True):
            stride = min(classifier_stride, self.output_stride)
            if index is None:
                levels.append(images[:, :0, ::stride, ::stride])
            elif self.layout.multiple > 1:
                levels.append(maps[index][..., : _ceil(height, stride), : _ceil(width, stride)])
            else:
                levels.append(maps[index])
        return Features(images, tuple(levels))


def _maps(body: nn.Module, images: Tensor, multiple: int, channels_last: bool) -> list[Tensor]:
    """All maps of a model, N x C x h x w, of images filled up to a multiple of pixels."""
    if multiple > 1:
        height, width = images.shape[-2:]
        right = _ceil(width, multiple) * multiple - width
        below = _ceil(height, multiple) * multiple - height
        # Not one colour: a layer norm that sees no variation has gradients without bounds.
        images = F.pad(images, (0, right, 0, below), mode="replicate")
    maps = body(images)
    return [one.permute(0, 3, 1, 2) for one in maps] if channels_last else list(maps)


def _ceil(side: int, by: int) -> int:
    """The quotient rounded up; of positive numbers, for ONNX rounds negative ones towards zero."""
    return (side + by - 1) // by


def _create(name: str, output_stride: int) -> nn.Module:
    return timm.create_model(
        name.removeprefix(TIMM),
        features_only=True,
        # Many models take no output stride at all, and have 32.
        output_stride=None if output_stride == 32 else output_stride,
    )


def _layout(name: str, output_stride: int) -> Layout:
    """Build the model without memory, run it without arithmetic, and see what comes out."""
    _check_name(name)
    with torch.device("meta"), torch.no_grad():
        classifier = _classifier(name)
        indices = _indices(name, cast(FeatureInfo, classifier.feature_info).reduction())
        body = classifier
        if output_stride != 32:
            body = _atrous(name, output_stride)
            _check_same_weights(name, output_stride, classifier, body)
        return _measure(name, output_stride, indices, body.eval())


def _check_name(name: str) -> None:
    model, dot, _ = name.removeprefix(TIMM).partition(".")
    untagged = timm.list_models()
    known = timm.list_models(f"{model}.*", pretrained=True) if dot and model in untagged else []
    known = [f"{TIMM}{one}" for one in known or untagged]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.0)
        raise UserError(
            f"model.backbone={name}: timm {timm.__version__} has no such model; "
            f"{nearest(name, close)} (all of them: timm.list_models())"
        )


def _classifier(name: str) -> nn.Module:
    """The model at its own strides."""
    try:
        return _create(name, 32)
    except Exception as error:  # whatever a model does with arguments it does not know
        raise UserError(
            f"model.backbone={name}: timm cannot make a feature extractor of it "
            f"({_reason(error)}); take another one, {EXAMPLES}"
        ) from error


def _atrous(name: str, output_stride: int) -> nn.Module:
    try:
        return _create(name, output_stride)
    except Exception as error:  # as above
        raise UserError(
            f"model.output_stride={output_stride} with model.backbone={name}: timm cannot build it "
            f"so ({_reason(error)}); take model.output_stride=32, or another backbone, {EXAMPLES}"
        ) from error


def _indices(name: str, strides: Sequence[int]) -> tuple[int | None, ...]:
    """The last map of each level's stride in the classifier."""
    last = {stride: index for index, stride in enumerate(strides)}
    if missing := sorted({4, 32} - last.keys()):
        raise UserError(
            f"model.backbone={name}: its features have the strides "
            f"{', '.join(map(str, strides))}, and segmentation needs those of "
            f"{' and '.join(map(str, missing))}; take another one, {EXAMPLES}"
        )
    return tuple(last.get(stride) for stride in STRIDES)


def _check_same_weights(
    name: str, output_stride: int, classifier: nn.Module, body: nn.Module
) -> None:
    """A shortcut's projection may be gone together with its stride: then it is another network."""
    shapes = [
        {key: tensor.shape for key, tensor in one.state_dict().items()}
        for one in (classifier, body)
    ]
    if differing := sorted({key for key, _ in shapes[0].items() ^ shapes[1].items()}):
        raise UserError(
            f"model.output_stride={output_stride} with model.backbone={name}: there timm builds "
            f"another network than at 32, whose weights do not fit ({differing[0]} and "
            f"{len(differing) - 1} more differ); take a coarser output stride, or another "
            f"backbone, {EXAMPLES}"
        )


def _measure(
    name: str, output_stride: int, indices: tuple[int | None, ...], body: nn.Module
) -> Layout:
    """Try the model on odd sides, then on ones filled up to the output stride."""
    channels_last = str(getattr(body, "output_fmt", "")).endswith("NHWC")
    found = ""
    for multiple in (1, output_stride):
        try:
            maps = _maps(body, torch.empty(1, 3, *PROBE), multiple, channels_last)
        except Exception as error:  # whatever a model does with a size it cannot take
            found = _reason(error)
            continue
        sides = [_ceil(side, multiple) * multiple for side in PROBE]
        levels = [maps[index] if index is not None else None for index in indices]
        if _sizes_are_right(levels, sides, output_stride):
            channels = tuple(0 if level is None else level.shape[1] for level in levels)
            return Layout(indices, channels, multiple, channels_last)
        sizes = ", ".join("x".join(map(str, one.shape[-2:])) for one in maps)
        found = f"a {'x'.join(map(str, sides))} image becomes maps of {sizes}"
    raise UserError(
        f"model.backbone={name} with model.output_stride={output_stride}: its maps are not "
        f"ceil(side / stride) for images of any size ({found}); take another one, {EXAMPLES}"
    )


def _sizes_are_right(
    levels: Sequence[Tensor | None], sides: Sequence[int], output_stride: int
) -> bool:
    return all(
        list(level.shape[-2:]) == [_ceil(side, min(stride, output_stride)) for side in sides]
        for level, stride in zip(levels, STRIDES, strict=True)
        if level is not None
    )


def _reason(error: Exception) -> str:
    """An exception's first line; timm's assertions often have none."""
    return (str(error).splitlines() or ["timm gives no reason"])[0].rstrip(".")
