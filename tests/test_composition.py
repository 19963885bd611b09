from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from pipeline.composition import compose_variants, load_config, load_resolved
from pipeline.config import EvaluateConfig
from pipeline.errors import UserError
from pipeline.paths import CONF, PROJECT

STUDIES = [PROJECT / "params.yaml", *sorted((CONF / "study").glob("*.yaml"))]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.bakbone=resnet18", "model.bakbone: no such key; did you mean 'backbone'?"),
        ("trian.iterations=1", "trian: no such key; did you mean 'train'?"),
        ("+train.iteratons=1", "train.iteratons: no such key; did you mean 'iterations'?"),
        ("+nothing.like.it=1", "nothing: no such key;"),
        ("model.backbone=resnt18", "model.backbone=resnt18: did you mean 'resnet18'?"),
        ("model.aspp=atrous", "model.aspp=atrous: did you mean 'no_atrous'?"),
        ("model=deeplab_v33", "model=deeplab_v33: no such preset in conf/model; did you mean"),
        ("+experiment=none", "experiment=none: no such preset in conf/experiment;"),
        ("debug=over_fit", "debug=over_fit: no such preset in conf/debug; did you mean 'overfit'?"),
        ("model.output_stride=12", "model.output_stride=12: mobilenet_v2 can be built at output"),
        ("model.output_stride=wide", "model.output_stride: invalid literal"),
        (
            "train.crop_size=17",
            "train.crop_size=17: too small for model.output_stride=16; at least",
        ),
        ("train.crop_size=100", "the nearest are 97 and 113"),
        ("train.learning_rate=0", "train.learning_rate=0.0: must be above 0"),
        ("train.scale_min=3", "must be 0 < scale_min <= scale_max"),
        ("evaluate.scales=[]", "evaluate.scales=[]: a list of scales above 0"),
        ("evaluate.fusion=mean", "evaluate.fusion=mean: valid: average, maximum"),
        ("evaluate.precision=bf61", "evaluate.precision=bf61: did you mean 'bf16'?"),
        ("evaluate.window=9", "evaluate.window=9: must be at least 33"),
        ("evaluate.overlap=1", "evaluate.overlap=1.0: a share of a side, 0 to below 1"),
        ("evaluate.batch_size=0", "evaluate.batch_size=0: must be at least 1"),
        ("crf.w1=-1", "crf.w1=-1.0: must be 0 or more, and finite"),
        ("crf.backend=exacd", "crf.backend=exacd: did you mean 'exact'?"),
        ("crf=null", "crf=null: name a preset, or leave this out"),
        ("crf.sigma_beta=0", "crf.sigma_beta=0.0: must be above 0"),
        ("trainer.devices=0", "trainer.devices=0: must be at least 1"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_with_what_is_allowed(override: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config([override])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_decoder_behind_summed_class_scores_is_refused() -> None:
    with pytest.raises(UserError, match="a decoder needs features"):
        load_config(["model=deeplab_v2", "model.decoder=true"])


def test_rates_without_atrous_branches_are_refused_not_ignored() -> None:
    with pytest.raises(UserError, match="no atrous branches"):
        load_config(["model.aspp=no_atrous", "model.rates=[6]"])


def test_a_debug_preset_wins_over_an_experiment_and_the_command_line_over_both() -> None:
    both = load_config(["+experiment=v3_table5/mg_124_image_pooling", "debug=overfit"])
    assert (both.model.backbone, both.train.iterations) == ("resnet101", 200)
    row = "experiment=v3_table5/mg_124_image_pooling"
    last = load_config([row, "debug=overfit", "train.iterations=7"])
    assert last.train.iterations == 7


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_every_study_composes(study: Path, tests_params: Path, tmp_path: Path) -> None:
    (tests_params / "params.yaml").write_text(study.read_text())
    names = compose_variants(tmp_path / "configs")
    assert names == list(yaml.safe_load(study.read_text())["variants"])


def test_variants_are_resolved_each_into_files_of_its_own(tmp_path: Path) -> None:
    names = compose_variants(tmp_path)
    assert names == ["v3-resnet18-os16", "v2-resnet18-os8"]
    for name in names:
        trained = load_resolved(tmp_path, "train", name)
        assert trained.variant == name
        assert trained.overrides
        # The CRF is not in what a training depends on.
        assert "crf" not in yaml.safe_load((tmp_path / "train" / f"{name}.yaml").read_text())


def test_each_stage_depends_on_its_own_part_of_the_evaluation(tmp_path: Path) -> None:
    (name, _) = compose_variants(tmp_path)
    parts = {
        stage: yaml.safe_load((tmp_path / stage / f"{name}.yaml").read_text())
        for stage in ("infer", "tune", "evaluate")
    }
    assert {"crf", "search"} & set(parts["infer"]) == set()
    assert {"crf", "search"} <= set(parts["tune"])
    network, rest = set(parts["infer"]["evaluate"]), set(parts["evaluate"]["evaluate"])
    assert {"split", "scales", "flip", "output_stride", "window"} <= network
    assert {"fusion", "pictures"} <= rest
    assert not network & rest
    assert network | rest == {entry.name for entry in fields(EvaluateConfig)}
    evaluated = load_resolved(tmp_path, "evaluate", name)
    assert evaluated.evaluate == load_config([]).evaluate
    assert load_resolved(tmp_path, "infer", name).evaluate.scales == [0.75, 1.0, 1.25]


def test_a_removed_variant_leaves_no_configuration_behind(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "gone.yaml").write_text("seed: 0\n")
    compose_variants(tmp_path)
    assert not (tmp_path / "train" / "gone.yaml").exists()


def test_nothing_is_written_when_one_variant_is_wrong(tests_params: Path, tmp_path: Path) -> None:
    with open(tests_params / "params.yaml", "a") as file:
        file.write("  wrong: [model.output_stride=7]\n")
    with pytest.raises(UserError, match=r"variants\.wrong: model\.output_stride=7"):
        compose_variants(tmp_path / "configs")
    assert not (tmp_path / "configs").exists()


def test_an_unknown_key_in_params_yaml_is_named(tests_params: Path) -> None:
    path = tests_params / "params.yaml"
    path.write_text(path.read_text().replace("  iterations:", "  iteratons:", 1))
    with pytest.raises(UserError, match=r"train\.iteratons: no such key; did you mean"):
        load_config([])


def test_an_unknown_variant_is_answered_with_the_nearest(tmp_path: Path) -> None:
    compose_variants(tmp_path)
    with pytest.raises(UserError, match="did you mean 'v3-resnet18-os16'"):
        load_resolved(tmp_path, "evaluate", "v3-resnet18-os61")
