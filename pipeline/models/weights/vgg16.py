"""torchvision's VGG-16, trained on ImageNet, into the names and shapes of a DeepLab on VGG-16."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.network import channel_values
from pipeline.models.weights.converters import Converted
from pipeline.models.weights.files import State
from pipeline.models.weights.sources import CAFFE, IMAGENET

CLASSIFIER = "classifier."
#: fc6 and fc7 in torchvision's classifier.
FULLY_CONNECTED = {"classifier.0.": "fc6.", "classifier.3.": "fc7."}
#: Pixels a side that fc6 sees of pool5 in the classifier.
FC6_KERNEL = 7


def from_torchvision_vgg16(state: State, own: Mapping[str, Tensor], *, seed: int = 0) -> Converted:
    """The weights in our own layout, and the original keys that have no counterpart by design.

    fc6 becomes a convolution, decimated to the network's kernel: of its 7 x 7 taps every second
    (4 x 4) or third (3 x 3), the corners among them. Of its filters as many as the network has are
    kept, drawn at random; of fc7 the same ones, and their inputs. Every branch starts from the
    same. fc8 and the multi-scale features have no counterpart and are not in the result; nor are
    fc6 and fc7 if the network's head has no such layers.

    Two sets of weights have this layout. IMAGENET1K_V1 wants torchvision's inputs.
    IMAGENET1K_FEATURES wants the original network's and has no classifier: its tensors are missing
    or NaN, so fc6 and fc7 are not in the result.

    Args:
        state: torchvision's `vgg16().state_dict()`, with or without `classifier.*`.
        own: the network's state_dict, which tells fc6's kernel and channels.
        seed: of the choice of filters.

    Raises:
        UserError: if the network's fc6 has more channels than the original.

    Source: v1, section 3.2 (decimation) and section 5, "Field of View" (4096 channels to 1024).
    """
    converted = {f"backbone.{k}": v for k, v in state.items() if not k.startswith(CLASSIFIER)}
    classifies = _has_classifier(state)
    normalisation = IMAGENET if classifies else CAFFE
    converted["input_mean"] = channel_values(normalisation.mean)
    converted["input_std"] = channel_values(normalisation.std)

    branches = [key.removesuffix("fc6.weight") for key in own if key.endswith(".fc6.weight")]
    used: tuple[str, ...] = ()
    if branches and classifies:
        shape = own[f"{branches[0]}fc6.weight"].shape
        layers = _fully_connected(state, channels=shape[0], kernel=shape[-1], seed=seed)
        for branch in branches:
            converted |= {f"{branch}{key}": value for key, value in layers.items()}
        used = tuple(FULLY_CONNECTED)
    left_out = (k for k in state if k.startswith(CLASSIFIER) and not k.startswith(used))
    return Converted(converted, tuple(left_out))


def _has_classifier(state: State) -> bool:
    keys = [f"{layer}{tensor}" for layer in FULLY_CONNECTED for tensor in ("weight", "bias")]
    return all(key in state and not state[key].isnan().any() for key in keys)


def _fully_connected(state: State, *, channels: int, kernel: int, seed: int) -> State:
    """fc6 and fc7 of one branch, as convolutions."""
    layers = {
        name + tensor: state[f"{theirs}{tensor}"]
        for theirs, name in FULLY_CONNECTED.items()
        for tensor in ("weight", "bias")
    }
    filters = len(layers["fc6.bias"])
    if channels > filters:
        raise UserError(
            f"model.fc6_channels={channels}: ImageNet's fc6 has {filters} filters to start from; "
            f"take at most {filters}, or model.weights=null"
        )
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(filters, generator=generator)[:channels].sort().values
    every = (FC6_KERNEL - 1) // (kernel - 1)
    fc6 = layers["fc6.weight"].unflatten(1, (-1, FC6_KERNEL, FC6_KERNEL))
    return {
        "fc6.weight": fc6[:, :, ::every, ::every][kept],
        "fc6.bias": layers["fc6.bias"][kept],
        "fc7.weight": layers["fc7.weight"][kept][:, kept, None, None],
        "fc7.bias": layers["fc7.bias"][kept],
    }
