import re

import pytest

from pipeline.inference.seconds import Seconds


def test_parts_add_up_in_the_order_in_which_they_came() -> None:
    seconds = Seconds()
    with seconds.part("network"):
        pass
    before = seconds.parts["network"]
    seconds.add({"CRF": 2.0, "network": 1.0})
    seconds.add({"CRF": 0.5})
    assert seconds.parts == {"network": before + 1.0, "CRF": 2.5}
    line = seconds.line()
    assert re.fullmatch(r"seconds: \d+\.\d; by part: network 1\.\d, CRF 2\.5", line)


def test_what_fails_is_counted_too() -> None:
    seconds = Seconds()
    with pytest.raises(KeyError), seconds.part("reading"):
        raise KeyError("image")
    assert seconds.parts["reading"] >= 0
