"""The papers' schedules of conf/train, and what of a schedule is refused."""

from typing import Any

import pytest

from pipeline.composition import load_config
from pipeline.errors import UserError
from pipeline.paths import CONF

PRESETS = sorted(path.stem for path in (CONF / "train").glob("*.yaml"))
#: As the papers state them.
STATED: dict[str, dict[str, Any]] = {
    "deeplab_v1": {
        "schedule": "step",
        "step_every": 2000,
        "step_factor": 0.1,
        "iterations": 6000,
        "batch_size": 20,
        "learning_rate": 1e-3,
        "head_multiplier": 10,
        "bias_multiplier": 2,
        "upsample_logits": False,
    },
    "deeplab_v2": {
        "schedule": "poly",
        "power": 0.9,
        "iterations": 20000,
        "batch_size": 10,
        "learning_rate": 2.5e-4,
        "crop_size": 321,
        "head_multiplier": 10,
        "bias_multiplier": 2,
        "freeze_batch_norm": True,
        "scale_max": 1.5,
    },
    "deeplab_v2_vgg16": {"schedule": "poly", "iterations": 20000, "learning_rate": 1e-3},
    "deeplab_v3": {
        "schedule": "poly",
        "power": 0.9,
        "iterations": 30000,
        "batch_size": 16,
        "learning_rate": 0.007,
        "crop_size": 513,
        "batch_norm_momentum": 3e-4,
        "freeze_batch_norm": False,
        "upsample_logits": True,
        "scale_min": 0.5,
        "scale_max": 2.0,
    },
    "deeplab_v3plus": {"learning_rate": 0.007, "crop_size": 513, "batch_norm_momentum": 3e-4},
    "mobilenet_v2": {"learning_rate": 0.007, "crop_size": 513, "batch_norm_momentum": 3e-4},
    "deeplab_v3_cityscapes": {"iterations": 90000, "crop_size": 769, "batch_norm_momentum": 3e-4},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_schedule_can_be_asked_for_by_name(preset: str) -> None:
    train = load_config([f"+train={preset}", "model.output_stride=16"]).train
    stated = STATED.get(preset, {})
    assert {name: getattr(train, name) for name in stated} == stated
    # What training reads does not stay as params.yaml has it.
    assert train.validate_every in (1000, 2000)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("accumulate=0", "accumulate=0: must be at least 1"),
        ("accumulate=3", "accumulate=3: train.batch_size=8 must be a multiple of it"),
        ("ohem=0", "ohem=0.0: must be above 0 and up to 1"),
        ("ohem=1.5", "ohem=1.5: must be above 0 and up to 1"),
        ("batch_norm_momentum=0", "batch_norm_momentum=0.0: must be above 0 and up to 1"),
        ("ema_decay=1", "ema_decay=1.0: must be above 0 and below 1, or null"),
        ("class_weights=inverse", "class_weights=inverse: null, median_frequency or a list"),
        ("class_weights=[1,-1]", "null, median_frequency or a list of one number a class"),
        ("class_weights=[0,0]", "null, median_frequency or a list of one number a class"),
        ("class_weights=[]", "null, median_frequency or a list of one number a class"),
    ],
)
def test_what_cannot_work_is_refused_with_what_is_allowed(setting: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config([f"train.{setting}"])
    assert message in str(refused.value)


@pytest.mark.parametrize("weights", ["null", "median_frequency", "[0.5,1,2]"])
def test_class_weights_are_a_name_or_numbers(weights: str) -> None:
    found = load_config([f"train.class_weights={weights}"]).train.class_weights
    assert found == {"null": None, "median_frequency": weights, "[0.5,1,2]": [0.5, 1, 2]}[weights]
