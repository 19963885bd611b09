"""What a result depends on, as one short hash, and the parts of it."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from pipeline.config import Config
from pipeline.files import code_digest
from pipeline.models.weights import find_weights
from pipeline.models.weights.files import sha256_of

#: The code that decides what training computes.
CODE = (
    "pipeline/models",
    "pipeline/training",
    "pipeline/datasets/datamodule.py",
    "pipeline/datasets/decoded.py",
    "pipeline/datasets/transforms.py",
)

#: The settings that training reads. Left out is what cannot change the result: devices, workers,
#: logging, names, and everything that only evaluation reads.
RELEVANT = ("dataset", "seed", "model", "train")


class Identity(NamedTuple):
    """What a training is of.

    Attributes:
        signature: 12 hexadecimal digits over everything that follows, and the settings.
        data_digest: of the training-ready set.
        code_digest: of the code that matters.
        weights_digest: of the initial weights, where they are a file.
    """

    signature: str
    data_digest: str
    code_digest: str
    weights_digest: str | None


def identify(config: Config, data_digest: str) -> Identity:
    """The identity of the training that a configuration asks for."""
    values = dataclasses.asdict(config)
    kept = {key: values[key] for key in RELEVANT}
    if config.trainer.fast_dev_run:  # a try-out is taken for nothing else
        kept["fast_dev_run"] = config.trainer.fast_dev_run
    code, weights = code_digest(CODE), _weights_digest(config)
    text = json.dumps([kept, weights, data_digest, code], sort_keys=True)
    short = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Identity(short, data_digest, code, weights)


def signature(config: Config, data_digest: str) -> str:
    """The signature alone: the same for the same result."""
    return identify(config, data_digest).signature


def _weights_digest(config: Config) -> str | None:
    """The initial weights' content, where they are a file; published ones are what they are."""
    found = find_weights(config.model)
    return sha256_of(found) if isinstance(found, Path) else None
