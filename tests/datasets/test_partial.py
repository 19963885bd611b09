import hashlib
import json
from pathlib import Path

import pytest

from pipeline.datasets.partial import Origin, Partial, part_of
from pipeline.datasets.progress import one_bar

ORIGIN = Origin("http://a/b.tar", 10, '"one"', None)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_has_come_stays_with_its_origin_and_is_checked_anew(tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    with one_bar("b") as bar:
        with pytest.raises(ZeroDivisionError), Partial(target, "sha256", bar) as partial:
            partial.begin(ORIGIN)
            partial.append(b"12345")
            raise ZeroDivisionError
        assert names(tmp_path) == ["b.tar.partial", "b.tar.partial.json"]
        with Partial(target, "sha256", bar) as partial:
            assert (partial.size, partial.origin) == (5, ORIGIN)
            assert partial.checksum() == digest(b"12345")
            partial.append(b"67890")
            assert partial.checksum() == digest(b"1234567890")
            assert not target.exists()
            partial.finish()
    assert names(tmp_path) == ["b.tar"]
    assert target.read_bytes() == b"1234567890"


def test_each_piece_is_on_the_disk_at_once(tmp_path: Path) -> None:
    with one_bar("b") as bar, Partial(tmp_path / "b.tar", "md5", bar) as partial:
        partial.append(b"123")
        assert part_of(tmp_path / "b.tar").read_bytes() == b"123"


@pytest.mark.parametrize("note", ["", "[]", '{"url": "x"}', '{"unknown": 1}'])
def test_origin_that_cannot_be_read_is_unknown(tmp_path: Path, note: str) -> None:
    part_of(tmp_path / "b.tar").write_bytes(b"123")
    (tmp_path / "b.tar.partial.json").write_text(note)
    with one_bar("b") as bar, Partial(tmp_path / "b.tar", "md5", bar) as partial:
        assert (partial.size, partial.origin) == (3, None)


def test_origin_of_a_part_without_a_byte_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "b.tar.partial.json").write_text(json.dumps(vars(ORIGIN)))
    with one_bar("b") as bar, Partial(tmp_path / "b.tar", "md5", bar) as partial:
        assert partial.origin is None
    assert names(tmp_path) == []


def test_cleared_part_begins_at_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with one_bar("b") as bar, Partial(tmp_path / "b.tar", "sha256", bar) as partial:
        partial.begin(ORIGIN)
        partial.append(b"123")
        partial.clear()
        assert (partial.size, partial.origin) == (0, None)
        assert partial.checksum() == digest(b"")
        assert part_of(tmp_path / "b.tar").stat().st_size == 0
    assert names(tmp_path) == []
