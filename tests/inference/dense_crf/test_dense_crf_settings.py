import dataclasses
from typing import Any

import numpy as np
import pytest

from pipeline.config import CrfConfig
from pipeline.errors import UserError
from pipeline.inference.dense_crf import DenseCrfSettings


def test_the_configuration_has_the_same_names_and_values() -> None:
    values = dataclasses.asdict(CrfConfig())
    mode = values.pop("backend")
    assert DenseCrfSettings(**values, mode=mode) == DenseCrfSettings()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("w1", -1.0),
        ("w2", float("nan")),
        ("sigma_alpha", 0.0),
        ("sigma_beta", -3.0),
        ("sigma_gamma", float("inf")),
        ("iterations", -1),
        ("iterations", 2.5),
        ("normalisation", "before"),
        ("mode", "slow"),
        ("leave_out", -0.1),
    ],
)
def test_a_value_outside_its_range_is_named(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"crf\.{key}={value}"):
        dataclasses.replace(DenseCrfSettings(), **{key: value})


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"w1": 9.0, "w2": 0.0, "iterations": 3, "leave_out": 0.0}, True),
        ({"sigma_alpha": 9.0}, False),
        ({"sigma_beta": 9.0}, False),
        ({"sigma_gamma": 9.0}, False),
        ({"normalisation": "after"}, False),
        ({"mode": "fast"}, False),
    ],
)
def test_filters_are_shared_by_settings_that_differ_in_weights_only(
    changes: dict[str, Any], shared: bool
) -> None:
    settings = DenseCrfSettings()
    assert settings.shares_filters(dataclasses.replace(settings, **changes)) is shared


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = {"w1": np.float32(4.0), "iterations": np.int64(10)}
    assert DenseCrfSettings(**numbers) == DenseCrfSettings()
