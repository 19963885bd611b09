"""Weight files: fetched by their publisher's own library, read without running what is in them."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.models.weights.sources import HUB_FILE, WeightSet

State = dict[str, Tensor]

#: Lightning saves the task; this is the network's attribute in it.
NETWORK_PREFIX = "network."


class WeightFile(NamedTuple):
    """What a file holds.

    Attributes:
        state: names with tensors, on the CPU.
        sha256: of the whole file.
        settings: those of `model` that it was trained with; empty where it does not say.
    """

    state: State
    sha256: str
    settings: Mapping[str, Any]


def sha256_of(path: Path) -> str:
    """64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path, asked: str) -> WeightFile:
    """The tensors of a state_dict (.pth, .safetensors) or of a Lightning checkpoint's network.

    Args:
        path: of the file.
        asked: what `model.weights` says, for messages.

    Raises:
        UserError: if the file is damaged or holds something else.
    """
    try:
        content = _content(path)
    except Exception as error:  # whatever a damaged file makes the unpickler do
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.weights={asked}: {path} cannot be read as weights, it is damaged or holds "
            f"more than tensors ({reason}); fetch it again, or save its state_dict() alone"
        ) from error
    settings: Mapping[str, Any] = {}
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        if isinstance(content.get("model"), Mapping):
            settings = content["model"]
        content = _network_of(content["state_dict"])
    if not _is_state_dict(content):
        raise UserError(
            f"model.weights={asked}: {path} holds no state_dict (names with tensors); save the "
            "network's state_dict()"
        )
    return WeightFile(dict(content), sha256_of(path), settings)


def fetch(weights: WeightSet) -> Path:
    """A published set's file, fetched once into its library's own cache, and its digest checked.

    torchvision's lie in torch.hub's folder (TORCH_HOME), timm's in the Hugging Face hub's
    (HF_HOME); what lies there is not asked for again, and HF_HUB_OFFLINE is respected.

    Raises:
        UserError: if it is not there and cannot be fetched, or is damaged.
    """
    try:
        path, digest = _by_url(weights.url) if "://" in weights.place else _by_hub(weights.place)
    except Exception as error:  # no network, no space: torch.hub's and the hub's dozen kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.weights={weights.name}: {weights.url} could not be fetched ({reason}); fetch "
            "it elsewhere and set model.weights=PATH, or model.weights=null for random weights"
        ) from error
    if not sha256_of(path).startswith(digest):
        raise UserError(
            f"model.weights={weights.name}: {path} is damaged, its sha256 does not start with "
            f"{digest}; delete it, and it is fetched again"
        )
    return path


def _by_url(url: str) -> tuple[Path, str]:
    """The file, and the first digits of its sha256 as its name has them ("-0676ba61.pth")."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    match = re.search(r"-([0-9a-f]{8,})\.", path.name)
    digest = match[1] if match else ""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digest or None)
    return path, digest


def _by_hub(repository: str) -> tuple[Path, str]:
    """The file, and its sha256: the hub's cache links to it under this name."""
    # Imported here: it takes a second, and few runs come here.
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )

    found = try_to_load_from_cache(repository, HUB_FILE)
    if not isinstance(found, str):
        # Asked first because it fails at once; the download itself tries again for half a minute.
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILE), timeout=10)
        found = hf_hub_download(repository, HUB_FILE)
    path = Path(found)
    name = path.resolve().name
    return path, name if re.fullmatch("[0-9a-f]{64}", name) else ""


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _network_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """The network's part of a Lightning task: the rest belongs to the loss and the metrics."""
    network = {
        key.removeprefix(NETWORK_PREFIX): value
        for key, value in task.items()
        if key.startswith(NETWORK_PREFIX)
    }
    return network or dict(task)


def _is_state_dict(content: object) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) for key in content)
        and all(isinstance(value, Tensor) for value in content.values())
    )
