"""The documentation, followed as a reader would in a copy of the project.

Every command is in tests/docs_commands.py, which says how it is run. Python in the copy starts warm
(tests/warm_python.py), so that a page costs seconds.
"""

import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import yaml
from docs_commands import RULES, rule_for, to_run
from docs_pages import Block, Page, page_path, pages
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from project_copy import PARAMS, Copy
from small_run import picture

from pipeline.composition import load_config
from pipeline.datasets.manifest import load_manifest
from pipeline.paths import PROJECT

ALL = pages()
#: One of the default study, which the pages speak of.
VARIANTS = {"v3plus-resnet18-os16": ["model=deeplab_v3plus", "model.backbone=resnet18"]}
MODEL = {"aspp_channels": 8, "rates": [1, 2, 3]}
#: Before a page's commands. The functions are the rules'.
PRELUDE = """
set -euo pipefail
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
answers() {
  for _ in $(seq 600); do curl -so /dev/null "$1" && return; sleep 0.2; done
  cat served.log; return 1
}
"""
#: What a stage or a command makes; all other names of files have to be there.
MADE = (
    "params.yaml.",
    "runs/",
    "build/",
    "report",
    "data/own/",
    "data/raw/",
    "data/prepared/",
    "data/previews/",
)
MADE_TOO = ("data/downloads/", "data/decoded/", "outputs/", "multirun/", "predictions/", ".venv/")
PLACES = (
    "pipeline/",
    "conf/",
    "docs/",
    "tests/",
    "benchmarks/",
    "data/",
    "params.yaml",
    "dvc.yaml",
)
ids = pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
#: A minute and more each; what their commands do, other tests show in small.
LONG = [f"docs/{name}.md" for name in ("predict", "sweeps", "tables", "variants")]
followed = pytest.mark.parametrize(
    "page",
    [pytest.param(one, marks=[pytest.mark.slow] * (one.name in LONG), id=one.name) for one in ALL],
)


@dataclass
class Reader:
    """Somebody who follows a page: a folder, and a path on which Python starts warm."""

    root: Path
    programs: Path

    def run(self, script: str) -> None:
        """Run a page's script in the copy."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC"))}
        path = f"{self.programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        steady = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PORT": str(port)}
        done = subprocess.run(
            ["bash", "-c", PRELUDE + script],
            cwd=self.root,
            env=kept | steady | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"the last command of these failed:\n{done.stdout[-6000:]}"


@pytest.fixture(scope="module")
def trained(project: Copy, programs: Path) -> Reader:
    """A copy in which the default study, made tiny, has run, with what the pages speak of."""
    project.set_params(model=MODEL, variants=VARIANTS, evaluate=PARAMS["evaluate"])
    root = project.root
    for name in ("photos/one.jpg", "photos/more/two.png", "photo.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(root / name)
    for split, number in (("train", 1), ("train", 2), ("val", 3)):
        for kind, image in (("images", picture()), ("masks", Image.new("L", picture().size, 1))):
            path = root / f"data/own/mydata/{split}/{kind}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    (root / ".venv").mkdir()
    (root / ".venv" / "bin").symlink_to(programs)
    (programs / "activate").touch()
    (root / ".venv" / ".installed").touch()
    for native in (PROJECT / "pipeline/inference/dense_crf").glob("*.so"):
        shutil.copy2(native, root / "pipeline/inference/dense_crf")
    reader = Reader(root, programs)
    reader.run(
        "dvc repro; printf '/photo*\\n/*.log\\n' >> .git/info/exclude; git add -A; "
        "git commit -qm results; git init -q --bare ../origin.git; "
        "git remote add origin $PWD/../origin.git; git push -qu origin HEAD"
    )
    return reader


def steps(page: Page, folder: Path) -> Iterator[str]:
    """What is done for each block of a page, in shell."""
    for number, block in enumerate(page.blocks()):
        kept = folder / f"block_{number}.py"
        kept.write_text(block.text, encoding="utf-8")
        if (named := block.file()) is not None:
            yield f"mkdir -p {Path(named).parent}; cp {kept} {named}"
        elif block.language == "diff":
            yield f"git apply {kept}"
        elif block.language == "python":
            yield f"echo 'python: line {block.line}'; PYTHONPATH={folder} python -m {kept.stem}"
        for command in block.commands():
            rule = rule_for(page.name, command)
            run = to_run(rule, command) if rule is not None else None
            if run is not None:
                yield f"echo {shlex.quote(f'{page.name}:{block.line}: {run}')}; {run}"


@pytest.mark.dvc
@followed
def test_a_page_can_be_followed(page: Page, trained: Reader, tmp_path: Path) -> None:
    script = "\n".join(steps(page, tmp_path))
    if not script:
        return
    try:
        trained.run(script)
    finally:
        subprocess.run(
            "git checkout -q . && git clean -fdq && rm -f params.yaml.*",
            shell=True,
            cwd=trained.root,
            check=True,
        )


def commands() -> list[tuple[Page, Block, str]]:
    return [
        (page, block, one) for page in ALL for block in page.blocks() for one in block.commands()
    ]


def test_every_command_is_known_and_every_rule_is_needed() -> None:
    found = [(page.name, one, rule_for(page.name, one)) for page, _, one in commands()]
    unknown = [f"{name}: {one}" for name, one, rule in found if rule is None]
    assert not unknown, "say in tests/docs_commands.py how these are run"
    used = [rule for _, _, rule in found]
    assert not [rule.pattern for rule in RULES if rule not in used]


def typed(page: Page, *, not_run: bool = False) -> list[list[str]]:
    """A page's commands in words, those in backticks too, but for what is left open there."""
    programs = ("python -m ", "make ", "dvc ", "mlflow ")
    lines = [
        one
        for block in page.blocks()
        for one in block.commands()
        if not not_run or ((rule := rule_for(page.name, one)) and rule.run is None)
    ]
    lines += [name for name in page.named() if name.startswith(programs) and "..." not in name]
    return [shlex.split(part) for line in lines for part in line.split(" && ")]


@ids
def test_modules_options_and_targets_are_there(page: Page) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    for words in typed(page):
        if words[0] == "make":
            given, named = ([w for w in words[1:] if ("=" in w) is it] for it in (True, False))
            assert set(named) <= set(targets), words
            assert all(f"$({word.partition('=')[0]})" in makefile for word in given), words
        # Its overrides are composed by the next test.
        if words[:2] == ["python", "-m"] and words[2] not in ("pytest", "pipeline.train"):
            source = source_of(words[2])
            for option in (word for word in words if word.startswith("--")):
                # benchmarks.loss takes the names of its options from a table.
                assert f'"{option}"' in source or 'f"--{' in source, f"{words[2]}: {option}"


def source_of(module: str) -> str:
    """The text of a module, or of a package's __main__."""
    found = importlib.util.find_spec(module)
    assert found is not None, module
    if found.submodule_search_locations:
        return source_of(f"{module}.__main__")
    text = Path(str(found.origin)).read_text(encoding="utf-8")
    shared = "benchmarks.race"  # it gives its options to who imports it
    return text + source_of(shared) if f"from {shared} import" in text else text


@ids
def test_trainings_that_are_not_run_can_be_composed(page: Page) -> None:
    for words in typed(page, not_run=True):
        if "pipeline.train" in words:
            given = words[words.index("pipeline.train") + 1 :]
            for job in jobs([word for word in given if "=" in word]):
                load_config(job)


def jobs(overrides: list[str]) -> Iterator[list[str]]:
    """The overrides of each job of a grid, without what is Hydra's own."""
    parsed = OverridesParser.create().parse_overrides(
        [word for word in overrides if not word.startswith("hydra")]
    )
    choices = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [str(one.input_line)]
        for one in parsed
    ]
    return (list(job) for job in product(*choices))


@ids
def test_variants_can_be_composed(page: Page) -> None:
    for block in page.blocks():
        if block.language != "yaml" or "variants:" not in block.text:
            continue
        for name, overrides in yaml.safe_load(block.text)["variants"].items():
            assert load_config(overrides), name


def test_parts_of_a_manifest_are_read(tmp_path: Path) -> None:
    page = Page("docs/data.md")
    whole, *parts = (
        yaml.safe_load(block.text)
        for block in page.blocks()
        if block.language == "yaml" and "variants" not in block.text
    )
    assert len(parts) == 2
    for part in parts:
        kept = {key: value for key, value in whole.items() if key != "splits"}
        (tmp_path / "part.yaml").write_text(yaml.safe_dump(kept | part))
        assert load_manifest("part", tmp_path).splits


@ids
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links():
        if link.startswith("http"):
            continue
        path = page_path(page, link)
        assert path.is_file(), f"{page.name}: {link}"
        if anchor := link.partition("#")[2]:
            assert anchor in Page(str(path.resolve().relative_to(PROJECT))).anchors(), link


@ids
def test_files_that_are_named_are_there(page: Page) -> None:
    for name in page.named():
        if name.startswith((*MADE, *MADE_TOO)) or not name.startswith(PLACES):
            continue
        if " " in name or re.search(r"[A-Z]{2}|[<*{]", Path(name).name):
            continue
        assert (PROJECT / name).exists(), f"{page.name}: {name}"


@ids
def test_settings_that_are_named_are_in_the_schema(page: Page) -> None:
    """Keys such as train.batch_size; with a value, they are set to it."""
    keys = re.compile(
        r"\+?(model|train|evaluate|crf|search|trainer|debug|experiment|scale)(\.\w+)?=\S+"
    )
    plain = re.compile(r"(model|train|evaluate|crf|search|trainer)\.(\w+(\.\w+)?)")
    config = load_config([])
    for name in page.named():
        if plain.fullmatch(name) and not re.search(r"\.(ckpt|csv|py|onnx|json|pt2)\b", name):
            value: object = config
            for part in name.split("."):
                value = getattr(value, part)
        elif keys.fullmatch(name) and not re.search(r"[A-Z]{3}|<|\.\.\.", name):
            OverridesParser.create().parse_override(name)
            head = name.removeprefix("+").partition("=")[0]
            if "." in head:
                section, _, key = head.partition(".")
                getattr(getattr(config, section), key.split(".")[0])


def test_the_picture_of_the_house_is_that_of_dvc_yaml() -> None:
    spec = importlib.util.spec_from_file_location("house", PROJECT / "docs/images/house.py")
    assert spec is not None
    assert spec.loader is not None
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    pipeline = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))
    drawn = (PROJECT / "docs/images/house.svg").read_text(encoding="utf-8")
    assert drawn == house.house(pipeline), "draw it again: python docs/images/house.py"
    assert set(re.findall(r'class="stage">(\w+)<', drawn)) == set(pipeline["stages"])
    rooms = {path.parent.name for path in (PROJECT / "pipeline").glob("*/__init__.py")}
    assert set(re.findall(r'class="room">(\w+)<', drawn)) == rooms


def test_the_readme_is_a_screen_and_names_every_page() -> None:
    readme = Page("README.md")
    assert len(readme.text.splitlines()) <= 75
    assert {page.name for page in ALL[1:]} <= set(readme.links())
