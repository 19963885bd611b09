from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import Strided, picture

from pipeline.config import EvaluateConfig
from pipeline.errors import UserError
from pipeline.evaluation.figures import Cost
from pipeline.inference.logits import (
    Index,
    StoredLogits,
    keep_what_fits,
    read_cost,
    read_index,
    run_settings,
    write_cost,
    write_logits,
)
from pipeline.inference.passes import fuse, passes_of
from pipeline.inference.whole_image import geometry_of, probabilities, run_passes

EVALUATE = EvaluateConfig(scales=[0.5, 1.0], flip=True, pad_to=40)
SIZES = {"one.with.points": (30, 50), "two": (41, 20)}
INDEX = Index(
    checkpoint="a" * 64,
    data="b" * 64,
    code="c" * 64,
    settings=run_settings(EVALUATE),
    geometry=geometry_of(Strided(), EVALUATE),
    classes=4,
    ids=list(SIZES),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, stored as `infer` does."""
    folder = tmp_path / "runs" / "small" / "logits"
    keep_what_fits(folder, INDEX)
    for id, size in SIZES.items():
        passes = run_passes(Strided().eval(), [picture(size)], EVALUATE, passes_of(EVALUATE))
        write_logits(folder, id, size, {w: maps[0].half().numpy() for w, maps in passes})
    return folder


@pytest.mark.parametrize("fusion", ["average", "maximum"])
def test_probabilities_are_those_of_whole_images_but_for_sixteen_bits(
    folder: Path, fusion: str
) -> None:
    stored, network = StoredLogits(folder, fusion), Strided().eval()
    evaluate = replace(EVALUATE, fusion=fusion)
    assert stored.ids == list(SIZES)
    for id, size in SIZES.items():
        maps = stored.probabilities(id)
        single = probabilities(network, picture(size), replace(evaluate, scales=[1.0], flip=False))
        multi = probabilities(network, picture(size), evaluate)
        for mode, wanted in (("single", single), ("ms_flip", multi)):
            assert maps[mode].dtype == np.float32
            np.testing.assert_allclose(maps[mode], wanted.numpy(), atol=1e-3)
        rounded = {
            which: scores[0].half().float().numpy()
            for which, scores in run_passes(network, [picture(size)], evaluate, passes_of(evaluate))
        }
        exact = fuse(
            lambda w, rounded=rounded, size=size: INDEX.geometry.upsample(  # type: ignore[misc]
                rounded[w], size, w.scale
            ),
            evaluate,
        )
        for mode in maps:
            np.testing.assert_allclose(maps[mode], exact[mode], atol=1e-6)
            assert np.array_equal(stored.probabilities(id, [mode])[mode], maps[mode])


def test_modes_that_are_one_pass_are_one_map(folder: Path) -> None:
    stored = StoredLogits(folder)
    stored.evaluate = replace(EVALUATE, scales=[1.0], flip=False)
    maps = stored.probabilities("two")
    assert maps["single"] is maps["ms_flip"]
    assert np.array_equal(maps["single"], StoredLogits(folder).probabilities("two")["single"])


def test_a_position_takes_two_bytes_a_class(folder: Path) -> None:
    # 41 pixels are 6 positions, 21 are 4, at two passes each; the rest is names and sizes.
    content = 2 * 2 * 4 * (6 * 6 + 4 * 4)
    assert (folder / "two.npz").stat().st_size == pytest.approx(content, abs=2500)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def overwritten(path: Path) -> None:
    with np.load(path) as arrays:
        scores = arrays["1.0"].tobytes()
    path.write_bytes(path.read_bytes().replace(scores, bytes(len(scores))))


@pytest.mark.parametrize("damage", [empty, truncated, overwritten])
def test_a_damaged_file_is_named(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / "two.npz")
    with pytest.raises(UserError, match=r"two\.npz: missing or damaged; delete it and run `dvc"):
        StoredLogits(folder).probabilities("two")


def test_missing_images_are_counted(folder: Path) -> None:
    (folder / "two.npz").unlink()
    with pytest.raises(UserError, match=r"1 of 2 images are not there, two the first; run `dvc re"):
        StoredLogits(folder)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"geometry": {}}', '{"of": "another"}'])
def test_an_index_that_is_missing_or_of_another_version_is_named(
    folder: Path, content: str | None
) -> None:
    (folder / "index.json").unlink()
    if content is not None:
        (folder / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"index\.json: .*; run `dvc repro -f infer@small`"):
        StoredLogits(folder)


def test_what_is_of_the_same_run_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_index(folder) == INDEX
    (folder / "two.npz.partial").write_bytes(b"half a file")
    assert keep_what_fits(folder, INDEX) == 2
    assert capsys.readouterr().out == ""
    assert {path.name for path in folder.iterdir()} == {
        "index.json",
        *(f"{id}.npz" for id in SIZES),
    }


@pytest.mark.parametrize("key", ["checkpoint", "data", "code", "settings", "ids"])
def test_what_is_of_another_run_is_deleted_and_said(
    folder: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"settings": run_settings(replace(EVALUATE, flip=False)), "ids": ["two"]}
    other = replace(INDEX, **{key: changes.get(key, "d" * 64)})  # type: ignore[arg-type]
    assert keep_what_fits(folder, other) == 0
    assert "2 images are of another network, data or setting; made anew" in capsys.readouterr().out
    assert read_index(folder) == other
    assert not list(folder.glob("*.npz"))


def test_the_cost_and_its_seconds_are_read_as_written(tmp_path: Path) -> None:
    cost = Cost(2.1, 3.4, 50.0, 12.5, 513, "cpu, 2 threads")
    write_cost(tmp_path, cost, {"network": 1.5})
    assert read_cost(tmp_path) == (cost, {"network": 1.5})
    (tmp_path / "cost.json").write_text("[]")
    with pytest.raises(UserError, match=r"cost\.json: not the cost of a network"):
        read_cost(tmp_path)
    (tmp_path / "cost.json").unlink()
    with pytest.raises(UserError, match=r"cost\.json: not there; run `dvc repro"):
        read_cost(tmp_path)
