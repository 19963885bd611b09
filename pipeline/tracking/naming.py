"""What a row of MLflow is called: its params, tags and metrics."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from pipeline.config import Config, architecture

#: The settings that every row shows, swept or not: the axes of the comparison.
AXES = ("model.backbone", "model.output_stride", "model.aspp", "model.decoder")

#: The tag that the trainings of one setting share, whatever their seeds.
GROUP = "group"
#: Overrides that say nothing about the setting.
NO_SETTING = ("seed=", "trainer.", "hydra.")

#: metrics.json -> MLflow. `test/` is the split that `evaluate.split` names.
EVALUATION_METRICS = {
    "miou": "test/miou",
    "miou_ms_flip": "test/miou_ms_flip",
    "miou_crf": "test/miou_crf",
    "miou_ms_flip_crf": "test/miou_ms_flip_crf",
    "pixel_accuracy": "test/pixel_accuracy",
    "fw_iou": "test/fw_iou",
    "mean_accuracy": "test/mean_accuracy",
    "crf_gain": "crf/gain",
    "params_m": "cost/params_m",
    "gmacs": "cost/gmacs",
    "peak_mib": "cost/peak_mib",
    "ms_per_image": "cost/ms_per_image",
}


def swept_params(config: Config) -> dict[str, Any]:
    """The axes and the keys that the run's overrides set, with their values."""
    values = flatten(dataclasses.asdict(config))
    keys = [word.lstrip("+~").partition("=")[0] for word in config.overrides]
    return {key: values[key] for key in (*AXES, *keys) if key in values}


def tags(config: Config, signature: str, digest: str) -> dict[str, str]:
    """The row's tags."""
    return {
        "architecture": architecture(config.model),
        "variant": config.variant or "",
        GROUP: group(config),
        "signature": signature,
        "data.digest": digest,
    }


def group(config: Config) -> str:
    """What the trainings of one setting are called together: the variant's name without its seed.

    `v3-os8-seed1` and `v3-os8-s1` belong to `v3-os8` if `seed=1` is among their overrides; a name
    that does not tell the seed gives way to the other overrides.
    """
    name = config.variant or "default"
    words = [word.lstrip("+~") for word in config.overrides]
    if not any(word.startswith("seed=") for word in words):
        return name
    seed = rf"(^|[-_,. ])(seed[-_=]?|s){config.seed}(?=$|[-_,. ])"
    rest, found = re.subn(seed, "", name)
    others = [word for word in words if not word.startswith(NO_SETTING)]
    return (rest if found else ",".join(others)).strip("-_,. ") or "default"


def sweep(folder: Path) -> dict[str, str]:
    """The tag of the sweep that a run belongs to; none if it belongs to none.

    Args:
        folder: the run's; Hydra's multirun has one of its own, multirun/<date>/<time>/<number>.
    """
    if name := os.environ.get("DVC_EXP_NAME"):
        return {"sweep": name}
    of_sweep = folder.resolve().parents
    if len(of_sweep) > 2 and of_sweep[2].name == "multirun":
        return {"sweep": f"{of_sweep[1].name} {of_sweep[0].name}"}
    return {}


def evaluation_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """metrics.json under MLflow's names, with test/iou/<class>; absent classes are left out."""
    named = {EVALUATION_METRICS[key]: metrics[key] for key in EVALUATION_METRICS if key in metrics}
    for key, name in (("miou_ci", "test/miou"), ("crf_gain_ci", "crf/gain")):
        for end, value in (metrics.get(key) or {}).items():
            named[f"{name}_{end}"] = value
    per_class = {f"test/iou/{name}": value for name, value in metrics["iou"].items()}
    return {key: value for key, value in (named | per_class).items() if value is not None}


def search_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """crf/search.json under MLflow's names: mIoU on the images held apart, and what was found."""
    return {
        "crf_search/miou_without": summary["miou_without_crf"],
        "crf_search/miou_given": summary["miou_given"],
        "crf_search/miou": summary["miou_found"],
        "crf_search/gain": summary["gain"],
        **{f"crf_search/{key}": value for key, value in summary["found"].items()},
    }


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, its keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
