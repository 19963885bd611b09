from pathlib import Path

from pipeline.tracking.journal import Journal


def test_what_was_said_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = Journal(tmp_path / "tracking.jsonl")
    first.opened("row")
    first.add({"do": "tags", "values": {"a": "b"}})
    first.add({"do": "points", "values": {"loss": 1.0}, "step": 3, "time": 0})
    first.arrived(1)
    second = Journal(tmp_path / "tracking.jsonl")
    assert (second.row, second.token) == ("row", first.token)
    assert not first.continued
    assert second.continued
    assert second.waiting() == [{"do": "points", "values": {"loss": 1.0}, "step": 3, "time": 0}]
    assert second.has_point("loss", 3)
    assert not second.has_point("loss", 4)


def test_a_line_that_a_power_cut_left_half_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    first = Journal(path)
    first.add({"do": "tags", "values": {"a": "b"}})
    with open(path, "ab") as file:
        file.write(b'{"do": "tags", "val')
    second = Journal(path)
    second.add({"do": "tags", "values": {"c": "d"}})
    said = [entry["values"] for entry in Journal(path).waiting()]
    assert said == [{"a": "b"}, {"c": "d"}]


def test_everything_is_for_the_new_row_where_the_old_one_is_gone(tmp_path: Path) -> None:
    first = Journal(tmp_path / "tracking.jsonl")
    first.opened("row")
    first.add({"do": "tags", "values": {"a": "b"}})
    first.arrived(1)
    first.start_over()
    for journal in (first, Journal(tmp_path / "tracking.jsonl")):
        assert journal.row is None
        assert len(journal.waiting()) == 1


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    journal = Journal(None)
    journal.add({"do": "tags", "values": {}})
    assert len(journal.waiting()) == 1
    assert list(tmp_path.iterdir()) == []
