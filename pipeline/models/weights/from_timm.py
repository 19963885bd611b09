"""timm's weights of any of its models, by timm's own loader, into the features that we take."""

from dataclasses import replace

import timm
from timm.models import PretrainedCfg

from pipeline.config.model import TIMM
from pipeline.errors import UserError
from pipeline.models.weights.converters import Converted
from pipeline.models.weights.files import State


def from_timm_model(state: State, name: str, body: State) -> Converted:
    """The part of a timm classifier's weights that its feature extractor has.

    timm loads the whole classifier strictly, which settles the layouts that it knows for a model;
    then each tensor of the feature extractor is looked up in it.

    Args:
        state: as it was saved, with any number of classes.
        name: of the backbone, `timm/NAME`.
        body: the feature extractor's own state_dict, whose keys are looked up.

    Raises:
        UserError: if they are not the model's.
    """
    model = name.removeprefix(TIMM)
    weights = timm.get_pretrained_cfg(model) or PretrainedCfg()
    classes = state.get(f"{weights.classifier}.weight")
    weights = replace(
        weights,
        state_dict=dict(state),
        custom_load=False,
        num_classes=weights.num_classes if classes is None else len(classes),
    )
    try:
        whole = timm.create_model(model, pretrained=True, pretrained_cfg=weights).state_dict()
    except Exception as error:  # whatever a model does with weights that are not its own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"model.backbone={name}: timm does not take the weights for it ({reason}); name those "
            "of this model"
        ) from error
    originals = _originals(whole)
    found = {key: originals[key] for key in body if key in originals}
    used = set(found.values())
    return Converted(
        {f"backbone.body.{key}": whole[original] for key, original in found.items()},
        tuple(key for key in whole if key not in used),
    )


def _originals(whole: State) -> dict[str, str]:
    """The classifier's keys, by the names that timm's feature extractors give them.

    Those that take stages apart join the first two parts of a name; those that run the classifier
    and catch its features hold it whole.
    """
    names: dict[str, str] = {}
    for key in whole:
        names |= {key: key, key.replace(".", "_", 1): key}
        names |= {f"{holder}.{key}": key for holder in ("model", "body")}
    return names
