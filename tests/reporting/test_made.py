from pipeline.reporting.load import Variant
from pipeline.reporting.made import commands, runs_table, settings_table


def test_settings_that_agree_stand_once_and_others_name_their_variants(
    variants: list[Variant],
) -> None:
    values = {row[0].text: row[1].text for row in settings_table(variants).rows}
    assert values["train.iterations"] == "600"
    assert values["evaluate.scales"] == "[0.5, 1.0, 1.5]"
    assert values["crf.w1"] == "4.0"
    assert values["version of torch"] == "2.9.0"
    assert values["model.decoder"].startswith("false (v3-os16, ")
    assert values["model.decoder"].endswith("; true (v3plus-os16)")
    first = variants[0]
    assert first.config is not None
    first.config.seed = 3
    values = {row[0].text: row[1].text for row in settings_table(variants[:2]).rows}
    assert values["seed"] == "3 (v3-os16); 0 (v3-os8)"
    first.config.seed = 0


def test_runs_can_be_found_again(variants: list[Variant]) -> None:
    first = variants[0]
    assert first.config is not None
    first.config.overrides = ["model=deeplab_v3", "seed=0"]
    row = runs_table(variants).rows[0]
    first.config.overrides = []
    assert [cell.text for cell in row] == [
        "v3-os16", "0", "evaluated", "6 min 12 s", "cpu", "sig-v3-os16", "v3-os16-0123",
        "d1d1d1d1d1d1", "1 min 33 s", "model=deeplab_v3 seed=0",
    ]  # fmt: skip
    assert row[8].note == "crf 1 min 21 s, network 12 s"


def test_commands_make_the_best_variant_again(variants: list[Variant]) -> None:
    lines = commands(variants, "v3-os8", "abc1234")
    assert lines[:2] == ["git checkout abc1234", "dvc repro"]
    assert "python -m pipeline.evaluate v3-os8" in lines
    assert commands(variants, None, "abc1234-dirty")[0] == "dvc repro"
