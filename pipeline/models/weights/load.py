"""Trained weights into a network: found, recognised, converted, loaded without remainder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.layers import ClassLayer
from pipeline.models.network import SegmentationNetwork, channel_values
from pipeline.models.weights.files import State, fetch, read_weights
from pipeline.models.weights.layouts import recognise
from pipeline.models.weights.report import WeightReport, some
from pipeline.models.weights.sources import Normalisation, WeightSet, find_weights, said

#: The settings of `model` that its weights' names and shapes depend on.
SHAPING = tuple(
    "network backbone width stem blocks aspp rates fc6_kernel fc6_channels multi_scale_features "
    "aspp_channels separable head_conv decoder low_level_channels decoder_features decoder_layers "
    "decoder_kernel decoder_channels".split()
)


def load_weights(model: SegmentationNetwork, config: ModelConfig) -> WeightReport:
    """Load trained weights and the input normalisation they were trained with.

    What weights of a layout have none of by design stays random, such as the head above
    ImageNet's; so does a class layer of another number of classes. An auxiliary head that only the
    weights have is left out. Every other difference is an error.

    Args:
        model: the network, changed in place; unchanged if an error is raised.
        config: what it was built with. Its `weights` is None (stay random), the name of a
            published set (`describe`), or a file: a state_dict in one of the `LAYOUTS`, or one of
            our checkpoints. A relative path starts at the project's root.

    Raises:
        UserError: if the name is unknown, or the file is missing, damaged or does not fit; if the
            download fails.
    """
    found = find_weights(config)
    if found is None:
        return WeightReport("random", None, (), (), tuple(model.state_dict()))
    asked = str(config.weights)
    file = read_weights(fetch(found) if isinstance(found, WeightSet) else found, asked)
    layout = recognise(file.state, model, asked)
    converted = layout.convert(file.state, model)
    given = dict(converted.state)
    # A published set says it itself; a file's is known by its layout, or is among its tensors.
    source = found if isinstance(found, WeightSet) else layout
    if source.normalisation:
        given |= _buffers(source.normalisation)
    spare = [key for key in given if key.startswith("auxiliary.") and model.auxiliary is None]
    for key in spare:
        del given[key]

    fit = _compare(model, given, layout.random)
    if fit.troubles:
        hint = _hint(file.settings, config) or said(layout.settings)
        raise UserError(
            f"model.weights={asked} ({layout.name}): does not fit the network with model.backbone="
            f"{config.backbone} ({'; '.join(fit.troubles)}); build it with the model.* settings of "
            f"these weights" + (f": {hint}" if hint else "")
        )
    model.load_state_dict(model.state_dict() | {key: given[key] for key in fit.loaded})
    return WeightReport(
        f"{asked} ({layout.name})",
        file.sha256,
        tuple(fit.loaded),
        (*converted.left_out, *spare),
        tuple(fit.random),
    )


@dataclass
class _Fit:
    loaded: list[str]
    random: list[str]
    troubles: list[str]


def _compare(model: SegmentationNetwork, given: State, random: Iterable[str]) -> _Fit:
    """Which of the network's tensors are loaded, which stay random, and what does not fit.

    Args:
        model: that is to take them.
        given: its keys.
        random: patterns of keys that may stay random, where nothing of a pattern is given.
    """
    own: State = model.state_dict()
    class_layers = _class_layers(model)
    absent = [pattern for pattern in random if not any(fnmatchcase(key, pattern) for key in given)]
    fit = _Fit([], [], [])
    missing: list[str] = []
    differing: list[str] = []
    for key, tensor in own.items():
        if key not in given:
            if any(fnmatchcase(key, pattern) for pattern in absent):
                fit.random.append(key)
            elif not key.endswith("num_batches_tracked"):  # old files lack this counter; unused
                missing.append(key)
        elif given[key].shape == tensor.shape:
            fit.loaded.append(key)
        elif key in class_layers and given[key].shape[1:] == tensor.shape[1:]:
            fit.random.append(key)
        else:
            differing.append(key)
    unexpected = [key for key in given if key not in own]
    for keys, trouble in (
        (missing, "missing"),
        (unexpected, "unexpected"),
        (differing, "of another shape"),
    ):
        if keys:
            fit.troubles.append(f"{len(keys)} {trouble}: {some(keys)}")
    return fit


def _class_layers(model: nn.Module) -> set[str]:
    return {
        f"{name}.{tensor}"
        for name, module in model.named_modules()
        if isinstance(module, ClassLayer)
        for tensor in ("weight", "bias")
    }


def _buffers(normalisation: Normalisation) -> State:
    return {
        "input_mean": channel_values(normalisation.mean),
        "input_std": channel_values(normalisation.std),
    }


def _hint(trained: Mapping[str, Any], config: ModelConfig) -> str:
    """The settings that a checkpoint was trained with, where they differ and shape the weights."""
    own = vars(config)
    return said({key: trained[key] for key in SHAPING if trained.get(key, own[key]) != own[key]})
