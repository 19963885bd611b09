"""What a result depends on, as one short hash."""

import dataclasses
import hashlib
import json
from pathlib import Path

from pipeline.config import Config
from pipeline.models.weights import find_weights
from pipeline.models.weights.files import sha256_of
from pipeline.paths import PROJECT

#: The code that decides what training computes.
CODE = (
    "pipeline/models",
    "pipeline/training",
    "pipeline/datasets/datamodule.py",
    "pipeline/datasets/decoded.py",
    "pipeline/datasets/transforms.py",
)


def signature(config: Config, data_digest: str) -> str:
    """12 hexadecimal digits over the configuration, the data and the code that matter.

    Left out is what cannot change the result: devices, workers, logging, names, and everything
    that only evaluation reads.
    """
    values = dataclasses.asdict(config)
    kept = {key: values[key] for key in ("dataset", "seed", "model", "train")}
    text = json.dumps([kept, _weights_digest(config), data_digest, code_digest()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code_digest(root: Path = PROJECT) -> str:
    """sha256 over the names and contents of the code that matters."""
    total = hashlib.sha256()
    for entry in CODE:
        place = root / entry
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _weights_digest(config: Config) -> str | None:
    """The initial weights' content, where they are a file; published ones are what they are."""
    found = find_weights(config.model)
    return sha256_of(found) if isinstance(found, Path) else None
