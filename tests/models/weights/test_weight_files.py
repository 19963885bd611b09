import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_networks import changed, load, saved, small

from pipeline.errors import UserError
from pipeline.models.weights.files import fetch, read_weights, sha256_of
from pipeline.models.weights.sources import HALF, WeightSet
from pipeline.paths import PROJECT


def published(place: str) -> WeightSet:
    return WeightSet("imagenet", "mobilenet_v2", "somebody", place, HALF, "none")


def test_a_report_names_the_files_sha256(tmp_path: Path) -> None:
    file = saved(small().state_dict(), tmp_path / "model.pth")
    report = load(small(), file)
    assert report.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"sha256 {report.sha256[:12]}:" in report.summary()


def test_safetensors_are_read(tmp_path: Path) -> None:
    trained = small()
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    model = small()
    assert set(load(model, tmp_path / "model.safetensors").loaded) == set(trained.state_dict())
    assert not changed(model, trained.state_dict())


def test_missing_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file.*imagenet.*null"):
        load(small(), tmp_path / "nowhere.pth")


def test_a_relative_path_starts_at_the_projects_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match=r"pyproject\.toml cannot be read as weights"):
        load(small(), "pyproject.toml")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>", None])
def test_damaged_file_is_named_in_one_line(
    content: bytes | None, name: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    if content is None:  # half of a real file
        (save_file if file.suffix == ".safetensors" else torch.save)(small().state_dict(), file)
        content = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(content)
    with pytest.raises(UserError, match="it is damaged") as error:
        read_weights(file, "weights")
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "no state_dict"),
        ({"state_dict": {}}, "no state_dict"),
        ({"epoch": 1}, "no state_dict"),
        ({"path": Path("x")}, "holds more than tensors"),
    ],
)
def test_file_of_something_else_is_named_in_one_line(
    content: object, reason: str, tmp_path: Path
) -> None:
    file = saved(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=reason) as error:
        read_weights(file, "weights")
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def named_by_digest(folder: Path) -> Path:
    """Weights under a name as torchvision's have it."""
    file = saved(small().state_dict(), folder / "weights.pth")
    return file.rename(folder / f"weights-{sha256_of(file)[:8]}.pth")


def test_a_url_is_fetched_once(tmp_path: Path, torch_home: Path) -> None:
    original = named_by_digest(tmp_path)
    path = fetch(published(original.as_uri()))
    assert path == torch_home / original.name
    original.unlink()
    assert fetch(published(original.as_uri())) == path
    assert sha256_of(path)[:8] in path.name


def test_a_download_of_other_content_is_refused_and_not_kept(
    tmp_path: Path, torch_home: Path
) -> None:
    other = named_by_digest(tmp_path).rename(tmp_path / "weights-0123abcd.pth")
    with pytest.raises(UserError, match=r"could not be fetched \(invalid hash value"):
        fetch(published(other.as_uri()))
    assert not list(torch_home.iterdir())


def test_a_damaged_file_in_the_cache_is_refused(tmp_path: Path, torch_home: Path) -> None:
    original = named_by_digest(tmp_path)
    path = fetch(published(original.as_uri()))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is damaged, its sha256 .* delete it") as error:
        fetch(published(original.as_uri()))
    assert str(path) in str(error.value)


def test_a_url_without_internet_names_the_remedy(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    for proxy in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(UserError, match=r"could not be fetched .*model\.weights=PATH") as error:
        load(small(), "imagenet")
    assert "mobilenet_v2-b0353104.pth" in str(error.value)
    assert "\n" not in str(error.value)


class Hub(BaseHTTPRequestHandler):
    """A Hugging Face hub with one file."""

    content = b""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a hub that has weights."""
    save_file(small().state_dict(), tmp_path / "served")
    handler = type("Handler", (Hub,), {"content": (tmp_path / "served").read_bytes()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fetched_from_hub(home: Path, **environment: str) -> str:
    """What `fetch` returns or raises, in a process: the hub's library reads the environment once.

    Its cache is under `home`.
    """
    program = (
        "from pipeline.errors import UserError\n"
        "from pipeline.models.weights.files import fetch\n"
        "from pipeline.models.weights.sources import HALF, WeightSet\n"
        "try: print(fetch(WeightSet('imagenet', 'xception41', 'timm', 'timm/x', HALF, '')))\n"
        "except UserError as error: print('UserError', error)\n"
    )
    outer = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env=outer | {"HF_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Retry" not in done.stderr
    return done.stdout.strip()


def test_the_hubs_files_are_fetched_once_and_checked(hub: str, tmp_path: Path) -> None:
    found = Path(fetched_from_hub(tmp_path / "home", HF_ENDPOINT=hub))
    assert set(read_weights(found, "imagenet").state) == set(small().state_dict())
    assert fetched_from_hub(tmp_path / "home", HF_HUB_OFFLINE="1") == str(found)
    found.resolve().write_bytes(found.read_bytes()[:-1])
    damaged = fetched_from_hub(tmp_path / "home", HF_HUB_OFFLINE="1")
    assert damaged.startswith("UserError") and "is damaged" in damaged


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_the_hub_out_of_reach_names_the_remedy(environment: dict[str, str], tmp_path: Path) -> None:
    said = fetched_from_hub(tmp_path / "home", **environment)
    assert said.startswith("UserError model.weights=imagenet: https://huggingface.co/timm/x/")
    assert "could not be fetched" in said and "model.weights=PATH" in said
    assert "\n" not in said
