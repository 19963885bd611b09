"""Put `params.yaml` (values) and `conf/` (structure) together, by Hydra, into a checked Config."""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import Config, EvaluateConfig, check
from pipeline.config.schema import NETWORK_RUN
from pipeline.errors import UserError, nearest
from pipeline.files import write_whole
from pipeline.paths import CONF, PROJECT

#: What each resolved file holds. No stage depends on the trainer's: nothing in it changes a result.
SECTIONS = {
    "train": ("dataset", "seed", "variant", "model", "train"),
    "infer": ("dataset", "variant", *(f"evaluate.{key}" for key in NETWORK_RUN)),
    "tune": ("dataset", "variant", "evaluate.split", "crf", "search"),
    "evaluate": (
        *("dataset", "variant"),
        *(
            f"evaluate.{entry.name}"
            for entry in dataclasses.fields(EvaluateConfig)
            if entry.name not in NETWORK_RUN
        ),
    ),
    "trainer": ("trainer", "overrides"),
}
#: The files that a stage reads besides its own. What is evaluated depends on the network's run by
#: the logits, which are made again if that changes.
READS = {"evaluate": ("trainer", "infer")}
#: What the pictures of the random augmentation show.
AUGMENTATION = (
    "crop_size",
    "flip",
    "photometric",
    "scale_max",
    "scale_min",
    "scale_step",
    "split",
)


def register() -> None:
    """Make the schema and the project's root known to Hydra, before it composes."""
    ConfigStore.instance().store(name="base", node=Config)
    OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT), replace=True)


def load_config(overrides: list[str]) -> Config:
    """Compose conf/ and params.yaml as the command line does, and check the result.

    Args:
        overrides: Hydra overrides, such as `model=deeplab_v3plus` or `seed=1`.

    Raises:
        UserError: unknown keys, wrong types, impossible combinations.
    """
    register()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            composed = compose("config", overrides=plain_experiment(overrides))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise explain(error) from error
    except ValueError as error:  # Hydra's, of a preset that is set to nothing
        nothing = [word for word in overrides if word.endswith("=null")]
        raise UserError(f"{', '.join(nothing)}: name a preset, or leave this out") from error
    return to_config(composed)


def plain_experiment(overrides: list[str]) -> list[str]:
    """`+experiment=x` as `experiment=x`: both are understood, and a debug preset still wins."""
    optional = ("+experiment=", "+scale=")
    return [word[1:] if word.startswith(optional) else word for word in overrides]


def to_config(composed: DictConfig) -> Config:
    """A composed configuration as the typed, checked Config."""
    try:
        # Plain values first: Hydra's own result lets `+new.key=...` through the schema.
        plain = OmegaConf.create(OmegaConf.to_container(composed, resolve=True))
        merged = OmegaConf.merge(OmegaConf.structured(Config), plain)
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise explain(error) from error
    check(config)
    return config


def load_resolved(configs: Path, stage: str, variant: str) -> Config:
    """A configuration that `compose` wrote: the sections of a stage, and where it runs.

    Args:
        configs: the folder that `compose_variants` wrote.
        stage: `train`, `infer`, `tune` or `evaluate`.
        variant: the variant's name.

    Raises:
        UserError: there is no such variant, or nothing is composed yet.
    """
    path = configs / stage / f"{variant}.yaml"
    if not path.is_file():
        known = [found.stem for found in path.parent.glob("*.yaml")]
        hint = nearest(variant, known) if known else "run `dvc repro compose`"
        raise UserError(f"{path}: no such configuration; {hint}")
    before = (configs / name / path.name for name in READS.get(stage, ("trainer",)))
    files = [OmegaConf.load(file) for file in (*before, path)]
    values = cast(DictConfig, OmegaConf.merge(*files))
    for key in ("defaults", "hydra"):
        values.pop(key, None)
    return to_config(values)


def compose_variants(out: Path) -> list[str]:
    """Write every variant's resolved configuration; all are checked before one is written.

    Args:
        out: folder that gets <stage>/<variant>.yaml for each of SECTIONS, and augment.yaml.

    Returns:
        The variants' names, in the order of params.yaml.
    """
    base = load_config([])
    if not base.variants:
        raise UserError("params.yaml: variants is empty; name at least one, e.g. first: []")
    resolved = {name: _resolve(name, overrides) for name, overrides in base.variants.items()}
    for name, config in resolved.items():
        if config.dataset != base.dataset:
            raise UserError(
                f"params.yaml: variants.{name}: dataset={config.dataset}, but the stages prepare "
                f"{base.dataset}; set dataset: {config.dataset}, or add scale=small"
            )
    shown = {key: getattr(base.train, key) for key in AUGMENTATION}
    augment = {"dataset": base.dataset, "seed": base.seed, "train": shown}
    texts = {out / "augment.yaml": _yaml(augment)}
    for name, config in resolved.items():
        values = dataclasses.asdict(config)
        for stage, keys in SECTIONS.items():
            head = _hydra_head(name) if stage == "train" else ""
            texts[out / stage / f"{name}.yaml"] = head + _yaml(_chosen(values, keys))
    for path, text in texts.items():
        write_whole(path, text)
    for stale in set(out.glob("*/*.yaml")) - set(texts):
        stale.unlink()
    return list(resolved)


def _chosen(values: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The values of some keys, `a` or `a.b`, in the order of the keys."""
    chosen: dict[str, Any] = {}
    for key in keys:
        section, _, name = key.partition(".")
        if name:
            chosen.setdefault(section, {})[name] = values[section][name]
        else:
            chosen[section] = values[section]
    return chosen


def _hydra_head(name: str) -> str:
    """What makes a resolved file one that `pipeline.train` takes as its configuration.

    The run's folder is relative: an absolute one would make another checkout retrain.
    """
    head = {
        "defaults": [
            f"/trainer/{name}@_global_",
            "_self_",
            {"override /hydra/job_logging": "stdout"},
        ],
        "hydra": {"run": {"dir": f"runs/{name}"}, "output_subdir": None},
    }
    return "# @package _global_\n" + _yaml(head)


def _resolve(name: str, overrides: list[str]) -> Config:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
        raise UserError(
            f"params.yaml: variants.{name}: a variant's name is a folder's name: letters, digits, "
            "'_', '.', '+' and '-'"
        )
    if name == "dvc":
        raise UserError(
            "params.yaml: variants.dvc: DVC keeps this name for itself; take another name"
        )
    try:
        config = load_config(overrides)
    except UserError as error:
        raise UserError(f"params.yaml: variants.{name}: {error}") from error
    config.variant = name
    config.overrides = list(overrides)
    return config


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def explain(error: BaseException) -> UserError:
    """Hydra's and OmegaConf's errors in one line, with the nearest valid key."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, MissingConfigException):
            return _missing_preset(cause)
    text = " ".join(str(cause) for cause in chain)
    found_keys = (getattr(cause, "full_key", None) for cause in chain)
    key = next((str(found) for found in found_keys if found), None)
    if key is None and (found := re.search(r"full_key: (\S+)", text)):
        key = found.group(1)
    if key is not None and "not in" in text:
        parent, _, last = key.rpartition(".")
        known = _known_keys(parent)
        if known and last not in known:
            return UserError(f"{key}: no such key; {nearest(last, known)}")
    if key is not None:
        detail = str(chain[-1]).splitlines()[0]
        return UserError(f"{key}: {detail}")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ConfigCompositionException) and "Could not override" in lines[0]:
        group = re.search(r"Could not override '([^'@]+)", lines[0])
        if group:
            return UserError(f"{group.group(1)}: no such key; {nearest(group.group(1), _groups())}")
    return UserError(" ".join(lines[:3]))


def _missing_preset(error: MissingConfigException) -> UserError:
    missing = error.missing_cfg_file or "?"
    group, _, name = missing.rpartition("/")
    if missing == "params":
        return UserError(
            f"{PROJECT / 'params.yaml'}: missing; restore it (git checkout params.yaml)"
        )
    options = error.options or [path.stem for path in (CONF / group).glob("*.yaml")]
    return UserError(f"{group}={name}: no such preset in conf/{group}; {nearest(name, options)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _groups() -> list[str]:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    return sorted(groups | {entry.name for entry in dataclasses.fields(Config)})


def _known_keys(parent: str) -> list[str]:
    """The keys of a section of the schema, `` for the top; empty where it takes any."""
    node: Any = Config
    for part in filter(None, parent.split(".")):
        hint = get_type_hints(node).get(part) if dataclasses.is_dataclass(node) else None
        classes = [kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)]
        if not classes:
            return []
        node = classes[0]
    return [entry.name for entry in dataclasses.fields(node)]
