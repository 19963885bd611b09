"""The typed configuration and its invariants, nothing else."""

from pipeline.config.model import (
    ASPP_RATES,
    BACKBONES,
    ModelConfig,
    architecture,
    atrous_rates,
    check_model,
)
from pipeline.config.schema import (
    Config,
    CrfConfig,
    EvaluateConfig,
    SearchConfig,
    SecondPhase,
    TrainConfig,
    TrainerConfig,
    check,
)

__all__ = [
    "ASPP_RATES",
    "BACKBONES",
    "Config",
    "CrfConfig",
    "EvaluateConfig",
    "ModelConfig",
    "SearchConfig",
    "SecondPhase",
    "TrainConfig",
    "TrainerConfig",
    "architecture",
    "atrous_rates",
    "check",
    "check_model",
]
