"""Every row of the papers' tables: it composes, in small too, and is the paper's alone."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from pipeline import table as command
from pipeline.composition import load_config
from pipeline.config import Config, ModelConfig
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.experiments import PRETRAINING, params_of, replace_params, rows, said, tables
from pipeline.models.network import build_model
from pipeline.networks.catalogue import catalogue
from pipeline.reporting.papers import MEASURES, load_papers
from pipeline.training.run import train_run

#: What decides a result; the rest of a configuration is where and how it runs.
DECISIVE = ("dataset", "model", "train", "evaluate", "crf", "search")
#: What a row takes from params.yaml all the same: it costs time and memory, or shows more.
FREE = {
    "train.precision",
    "evaluate.precision",
    "evaluate.batch_size",
    "evaluate.overlap",
    "evaluate.pictures",
    "crf.backend",
}
#: A row of each base.
ROWS_OF_BASES = (
    "v1/large_fov",
    "v2_table3/aspp_l",
    "v2_table4/msc_coco_aug_aspp",
    "v3_table1/os_256",
    "v3_table4/os_8",
    "v3_table5/mg_124_rate_24",
    "v3plus_table5/separable_eval_8",
    "mobilenet_v2_table7/no_atrous_half_width",
)
#: Tables whose networks pipeline/networks/catalogue.py lists: (paper, table) there.
CATALOGUED = {
    "v1": ("v1", "val"),
    "v2_table1": ("v2", "Table 1"),
    "v2_table4": ("v2", "Table 4"),
    "v3_table1": ("v3", "Table 1"),
    "v3_table3": ("v3", "Table 3"),
    "v3_table5": ("v3", "Table 5"),
    "v3plus_table1": ("v3+", "Table 1"),
}


class Key(NamedTuple):
    table: str
    row: str
    small: bool = False


class Composed(dict[Key, Config]):
    """Rows by key, each composed when it is first asked for."""

    def __missing__(self, key: Key) -> Config:
        self[key] = _composed(f"{key.table}/{key.row}", key.small)
        return self[key]


@pytest.fixture(scope="module")
def configs() -> Composed:
    return Composed()


def _composed(row: str, small: bool = False, *more: str) -> Config:
    return load_config([f"experiment={row}", *(["scale=small"] if small else []), *more])


def _keys() -> list[Key]:
    return [
        Key(table, row, small)
        for table in tables()
        for row in rows(table)
        for small in (False, True)
    ]


def _decisive(config: Config) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(config).items() if key in DECISIVE}


@pytest.mark.parametrize("table", tables())
def test_the_rows_of_a_table_are_of_one_data_set_and_each_is_another(
    configs: Composed, table: str
) -> None:
    for small in (False, True):
        found = [configs[Key(table, row, small)] for row in rows(table)]
        assert len({config.dataset for config in found}) == 1
        # Scaled down, the rows differ as before.
        assert len({str(_decisive(config)) for config in found}) == len(found)


def test_in_small_all_is_of_the_embedded_data_set_and_starts_without_downloads(
    configs: Composed,
) -> None:
    for key in _keys():
        config = configs[key]
        if key.small:
            assert (config.dataset, config.train.split, config.evaluate.split) == (
                *("shapes", "train", "test"),
            )
            assert config.train.iterations <= 30, key
            assert config.model.weights is None or config.model.weights.startswith("runs/"), key


def test_the_command_line_wins_over_scale_and_row() -> None:
    config = _composed("v3_table9/batch_4", True, "train.batch_size=3", "model.backbone=resnet50")
    assert (config.train.batch_size, config.model.backbone) == (3, "resnet50")


def test_rows_that_differ_in_the_test_only_have_one_training(configs: Composed) -> None:
    for small in (False, True):
        for table, names in {
            "v3_table4": ["os_16", "os_8", "os_8_ms"],
            "v3_table6": ["os_16", "os_8", "os_8_ms"],
            "v3_table10": ["train_16_eval_8", "train_16_eval_16"],
            "v3plus_table5": ["decoder_eval_16", "decoder_eval_8_ms"],
        }.items():
            found = [configs[Key(table, name, small)] for name in names]
            assert len({str((one.dataset, one.model, one.train)) for one in found}) == 1
            assert len({str(one.evaluate) for one in found}) == len(names)


def test_a_row_with_coco_starts_from_the_same_network_in_the_table_coco(
    configs: Composed,
) -> None:
    started = 0
    for key in _keys():
        config = configs[key]
        start = config.model.weights or ""
        if start.startswith("runs/"):
            source = start.removeprefix(f"runs/{PRETRAINING}-")
            before = configs[Key(PRETRAINING, source, key.small)].model
            one, other = (
                dataclasses.replace(model, weights=None, scales=[1.0], output_stride=16)
                for model in (before, config.model)
            )
            assert one == other, key
            started += 1
    assert started


@pytest.mark.parametrize(("table", "listed"), CATALOGUED.items())
def test_the_networks_are_those_of_the_catalogue(
    configs: Composed, table: str, listed: tuple[str, str]
) -> None:
    ours = {_network(configs[Key(table, row)].model) for row in rows(table)}
    assert ours >= {_network(row.config) for row in catalogue() if (row.paper, row.table) == listed}


def _network(model: ModelConfig) -> str:
    """A network in words; what is not said is as its paper has it."""
    rates = model.rates
    if model.aspp in ("summed", "v3", "no_pooling") and rates is not None and len(rates) > 1:
        rates = None if list(rates) in ([6, 12, 18, 24], [6, 12, 18]) else rates
    return str(dataclasses.replace(model, weights=None, rates=rates))


@pytest.mark.parametrize("name", ROWS_OF_BASES)
def test_nothing_of_params_yaml_gets_into_a_row(
    configs: Composed, tests_params: Path, name: str
) -> None:
    table, _, row = name.partition("/")
    expected = configs[Key(table, row)]
    (tests_params / "params.yaml").write_text(yaml.safe_dump(_hostile()))
    found = _composed(name)
    assert not _leaked(_decisive(expected), _decisive(found))


def _hostile() -> dict[str, Any]:
    """A params.yaml in which every key but the free ones has another value than usual."""
    usual = dataclasses.asdict(Config())
    values = {key: _other(usual[key]) for key in DECISIVE if key != "dataset"}
    values["model"] |= {"multi_grid": [1, 2, 4], "rates": [9]}
    values["search"] = {"images": 3}
    for key in FREE:
        section, _, name = key.partition(".")
        del values[section][name]
    return {"dataset": "camvid", **values}


def _other(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _other(inner) for key, inner in value.items()}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 3
    if isinstance(value, list):
        return [*value, *value]
    return 33 if value is None else f"{value}x"


def _leaked(one: Any, other: Any, prefix: str = "") -> set[str]:
    if isinstance(one, dict):
        return set().union(*(_leaked(one[k], other[k], f"{prefix}{k}.") for k in one))
    return set() if one == other else {prefix.rstrip(".")}


@pytest.mark.parametrize("small", [False, True], ids=["paper", "small"])
@pytest.mark.parametrize("name", ROWS_OF_BASES)
def test_the_network_of_a_row_can_be_built(configs: Composed, name: str, small: bool) -> None:
    table, _, row = name.partition("/")
    with torch.device("meta"):
        network = build_model(configs[Key(table, row, small)].model, 21)
    assert all(weight.is_meta for weight in network.parameters())


def test_each_row_has_its_figures_and_each_figure_its_row() -> None:
    papers = load_papers()
    assert {name: sorted(table.rows) for name, table in papers.items()} == {
        table: sorted(rows(table)) for table in tables()
    }
    silent = {PRETRAINING: set(rows(PRETRAINING)), "v3plus_trimap": {"resnet101", "xception65"}}
    for name, table in papers.items():
        for row, figures in table.rows.items():
            assert set(figures) <= set(MEASURES)
            assert bool(figures) is (row not in silent.get(name, ())), (name, row)
        assert all(why for _, _, why in table.elsewhere)


def test_figures_are_of_the_data_set_and_split_that_the_row_is_scored_on(
    configs: Composed,
) -> None:
    for name, table in load_papers().items():
        for row, figures in table.rows.items():
            config = configs[Key(name, row)]
            assert (config.dataset, config.evaluate.split) == (table.dataset, table.split)
            # A figure of several scales needs them; of mirrored images, the mirror.
            if "miou_ms" in figures or "miou_ms_crf" in figures:
                assert config.evaluate.scales != [1.0], (name, row)
                assert not config.evaluate.flip, (name, row)
            if "miou_ms_flip" in figures:
                assert len(config.evaluate.scales) > 1, (name, row)
                assert config.evaluate.flip, (name, row)


@pytest.mark.parametrize("name", ["v2_table4/msc", "v3plus_table2/conv3_one_3x3_256"])
def test_a_row_in_small_trains_a_step(
    shapes: Prepared, tmp_path: Path, mlflow_store: str, name: str
) -> None:
    config = _composed(
        *(name, True, "trainer.fast_dev_run=1", "trainer.accelerator=cpu", "trainer.workers=0"),
        *("train.batch_size=2", "train.crop_size=65"),
    )
    config.variant = name.replace("/", "-")
    train_run(config, tmp_path / "run", shapes.folder)
    assert (tmp_path / "run" / "history.csv").read_text().count("\n") == 2


def test_a_table_becomes_a_params_yaml_that_keeps_seed_and_devices() -> None:
    text = params_of(["v3_table9"], ["scale=small"], "seed: 7\ntrainer: {devices: 2}\ncrf: {}\n")
    assert text.startswith(f"# {said('v3_table9')}\n# Written by: python -m pipeline.table")
    values = yaml.safe_load(text)
    assert next(iter(values.pop("variants").items())) == (
        *("v3_table9-batch_4", ["experiment=v3_table9/batch_4", "scale=small"]),
    )
    assert values == {"dataset": "shapes", "seed": 7, "trainer": {"devices": 2}}


def test_overrides_with_commas_and_brackets_stay_one_word() -> None:
    text = params_of(["v3_table9"], ["scale=small", "model.rates=[1,2]"], "")
    assert yaml.safe_load(text)["variants"]["v3_table9-batch_4"][-1] == "model.rates=[1,2]"


def test_tables_of_several_data_sets_do_not_fit_one_params_yaml() -> None:
    with pytest.raises(UserError, match=r"v3_table9: pascal_voc_2012_sbd, v3_table12: cityscapes"):
        params_of(["v3_table9", "v3_table12"], [], "")


def test_an_unknown_table_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"v3_tabel9: no such table .* did you mean 'v3_table9'"):
        params_of(["v3_tabel9"], [], "")


def test_what_a_user_wrote_is_kept_and_what_was_written_here_is_not(tmp_path: Path) -> None:
    params, written = tmp_path / "params.yaml", tmp_path / "build" / "params.yaml"
    params.write_text("mine")
    assert replace_params(params, "a table", written) == tmp_path / "params.yaml.1"
    assert replace_params(params, "another", written) is None
    params.write_text("another, edited")
    assert replace_params(params, "a third", written) == tmp_path / "params.yaml.2"
    kept = [(tmp_path / f"params.yaml.{number}").read_text() for number in (1, 2)]
    assert kept == ["mine", "another, edited"]
    assert params.read_text() == "a third"


# The sweep says that it was told to stop, or the signal comes before it listens.
@pytest.mark.parametrize(("mine", "stopped_by"), [(None, 130), ("mine", -signal.SIGTERM)])
def test_tables_are_run_with_a_lock_of_their_own_and_leave_all_as_it_was(
    mine: str | None, stopped_by: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, lock, kept = tmp_path / "params.yaml", tmp_path / "dvc.lock", tmp_path / "build"
    for name, value in {"PARAMS": params, "LOCK": lock, "KEPT": kept}.items():
        monkeypatch.setattr(command, name, value)
    monkeypatch.setattr(command, "REPORT", tmp_path / "report")
    (tmp_path / "report").mkdir()
    params.write_text("variants: {}")
    if mine:
        lock.write_text(mine)
    seen: list[tuple[str, str]] = []
    codes = [0, stopped_by, 0, 0]

    def sweep(_: list[str]) -> subprocess.CompletedProcess[str]:
        (name,) = {key.split("-")[0] for key in yaml.safe_load(params.read_text())["variants"]}
        seen.append((name, lock.read_text() if lock.exists() else ""))
        lock.write_text(f"{seen[-1][1]}+{name}")
        return subprocess.CompletedProcess([], codes[len(seen) - 1])

    monkeypatch.setattr(subprocess, "run", sweep)
    monkeypatch.setattr(sys, "argv", ["table", "v3_table9", "v3_table5", "scale=small", "--run"])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 130
    command.main()
    mine = mine or ""
    assert seen == [
        *(("v3_table9", mine), ("v3_table5", mine)),
        *(("v3_table9", f"{mine}+v3_table9"), ("v3_table5", f"{mine}+v3_table5")),
    ]
    assert params.read_text() == "variants: {}"
    assert (lock.read_text() if lock.exists() else "") == mine
    assert not (kept / "dvc.lock").exists()


def test_a_lock_from_before_a_killed_run_is_kept_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, kept = tmp_path / "dvc.lock", tmp_path / "build"
    for name, value in {"LOCK": lock, "KEPT": kept}.items():
        monkeypatch.setattr(command, name, value)
    kept.mkdir()
    (kept / "dvc.lock").write_text("before")
    lock.write_text("since")
    with command._own_lock("v3_table9"):
        assert lock.read_text() == "since"
    assert (lock.read_text(), (tmp_path / "dvc.lock.1").read_text()) == ("since", "before")
    assert "dvc.lock.1: dvc.lock from before a run that was killed" in capsys.readouterr().out
