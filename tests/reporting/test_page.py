import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from runs_tree import CLASSES, NAMES, PLANS, Tree, plant_seeds, write_search

from pipeline.errors import UserError
from pipeline.reporting import page
from pipeline.reporting.page import git_commit, write_report
from pipeline.reporting.words import DASH, markdown


class Page(HTMLParser):
    """The page's tables as text, and every attribute and tag of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.values: dict[str, list[list[str | None]]] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self._name = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in found.items()]
        if tag == "table":
            # The last of its names that is its own; all can be sorted but the confusions.
            self._name = [n for n in found["class"].split() if n != "sortable"][-1]
            self.tables[self._name], self.values[self._name] = [], []
        elif tag == "tr":
            self.tables[self._name].append([])
            self.values[self._name].append([])
        elif tag in ("td", "th"):
            self.tables[self._name][-1].append("")
            self.values[self._name][-1].append(found.get("data-value"))
        if tag not in ("meta", "link", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[self._name][-1][-1] += data


@pytest.fixture(scope="module")
def report(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report, with the runs gone by the time it is read."""
    root = tmp_path_factory.mktemp("report")
    runs = Path(shutil.copytree(tree.runs, root / "runs"))
    write_report(NAMES, runs, root / "report", tree.prepared, commit="abc1234")
    shutil.rmtree(runs)
    return root / "report"


@pytest.fixture(scope="module")
def html(report: Path) -> Page:
    parsed = Page((report / "index.html").read_text(encoding="utf-8"))
    parsed.close()
    assert parsed.open == []
    return parsed


def figures(tree: Tree, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        (tree.runs / name / "evaluation" / "figures.json").read_text()
    )
    return loaded


def test_the_figures_on_the_page_are_those_of_the_files(html: Page, tree: Tree) -> None:
    head, *rows = html.values["variants"]
    names = [re.sub(r"\s+", " ", name).strip() for name in html.tables["variants"][0]]
    assert len(rows) == len(NAMES) and len(head) == len(names)
    modes = {"mIoU": "single", "CRF": "single_crf", "MS + flip": "ms_flip",
             "MS + flip + CRF": "ms_flip_crf"}  # fmt: skip
    for plan, row, shown in zip(PLANS, rows, html.tables["variants"][1:], strict=False):
        written = figures(tree, plan.name)
        for column, mode in modes.items():
            place = names.index(column)
            assert float(row[place] or "nan") == written["modes"][mode]["miou"]
            bounds = written["modes"][mode]["miou_ci"]
            assert shown[place].split() == [
                f"{written['modes'][mode]['miou']:.2f}",
                f"{bounds['low']:.1f}{DASH}{bounds['high']:.1f}",
            ]
        assert float(row[names.index("GMACs")] or "nan") == plan.gmacs


def test_the_classes_on_the_page_are_those_of_the_files(html: Page, tree: Tree) -> None:
    rows = {row[0].strip(): row[1:] for row in html.tables["classes"][1:]}
    gains = {row[0].strip(): row[1:] for row in html.tables["gains"][1:]}
    for column, plan in enumerate(PLANS):
        modes = figures(tree, plan.name)["modes"]
        before, after = modes["single"]["iou"], modes["single_crf"]["iou"]
        assert rows["ring"][column].strip() == f"{before['ring']:.2f}"
        gain, _ = gains["ring"][column].split()
        difference = after["ring"] - before["ring"]
        assert float(gain.replace("\N{MINUS SIGN}", "-")) == pytest.approx(difference, abs=0.006)


def test_an_absent_class_is_shown_with_a_dash(html: Page) -> None:
    row = next(row for row in html.tables["classes"] if row[0].strip() == "ghost")
    assert [cell.strip() for cell in row[1:]] == [DASH] * len(PLANS)


def test_a_missing_variant_is_shown_as_not_run(html: Page, report: Path) -> None:
    row = html.tables["variants"][-1]
    assert row[0].split() == ["missing", "not", "run"]
    assert {cell.strip() for cell in row[1:]} == {DASH}
    assert "| missing (not run) |" in (report / "report.md").read_text()


def test_a_class_name_is_text_and_never_markup(html: Page, report: Path) -> None:
    assert CLASSES[1] in html.text
    assert "<b>" not in (report / "index.html").read_text()
    assert "<b>" not in (report / "report.md").read_text()
    assert not any(tag == "b" for tag, _, _ in html.attributes)


def test_the_page_fetches_nothing(html: Page, report: Path) -> None:
    addresses = [(t, v) for t, name, v in html.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith(("data:", "#")) for _, value in addresses)
    pictures = [value for tag, value in addresses if tag == "img"]
    assert len(pictures) == 4 * 2 * (1 + len(PLANS))
    assert len({value for _, value in addresses if value.startswith("#")}) > 6
    assert re.findall(r"url\((?!#)|@import", (report / "index.html").read_text()) == []


def test_links_inside_the_page_lead_somewhere(html: Page) -> None:
    ids = [value for _, name, value in html.attributes if name == "id"]
    links = {value[1:] for tag, name, value in html.attributes if (tag, name) == ("a", "href")}
    assert links <= set(ids)
    assert len(ids) == len(set(ids))


def test_every_picture_says_what_it_is(html: Page) -> None:
    images = [name for tag, name, _ in html.attributes if tag == "img"]
    assert images.count("alt") == images.count("src") > 0
    assert len([1 for _, name, value in html.attributes if (name, value) == ("role", "img")]) == 7


def test_markdown_has_the_same_table(html: Page, report: Path) -> None:
    lines = (report / "report.md").read_text().splitlines()
    for row in html.tables["variants"][1:]:
        words = [re.sub(r"\s+", " ", cell).strip() for cell in row]
        line = next(line for line in lines if line.startswith(f"| {words[0].split()[0]} "))
        plain = re.sub(r"\*\*|\((?=[rsn+\N{MINUS SIGN}\d])|(?<=[nex\d])\)(?= \|)", "", line)
        assert [cell.strip() for cell in plain.strip("|").split(" | ")] == [
            markdown(word) for word in words
        ]


def test_markdown_finds_its_figures(report: Path) -> None:
    targets = re.findall(r"\]\((figures/[^)]+)\)", (report / "report.md").read_text())
    assert {f"figures/{path.name}" for path in (report / "figures").iterdir()} == set(targets)
    names = {"effects", "cost", "curves", "class_iou", "borders", "confusion"}
    assert {f"figures/{name}.png" for name in names} <= set(targets)


def test_curves_hold_every_validation(report: Path, tree: Tree) -> None:
    with open(report / "curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["iteration", "val_miou", "train_loss", "variant"]
    for plan in PLANS:
        with open(tree.runs / plan.name / "history.csv", newline="") as file:
            written = [(r["iteration"], float(r["val_miou"])) for r in csv.DictReader(file)]
        read = [(r["iteration"], float(r["val_miou"])) for r in rows if r["variant"] == plan.name]
        assert read == written


def test_what_it_was_made_with_is_on_the_page(html: Page) -> None:
    for text in ("abc1234", "d1" * 32, "train 2, val 1, test 4", "sig-v3-os8", "dvc repro"):
        assert text in html.text


def test_the_list_of_variants_decides_not_the_folders(tree: Tree, tmp_path: Path) -> None:
    write_report(["v3-os8"], tree.runs, tmp_path / "report", tree.prepared)
    text = (tmp_path / "report" / "index.html").read_text()
    assert "v3-os8" in text and "resnet50" not in text


def test_a_report_is_the_same_each_time(tree: Tree, tmp_path: Path) -> None:
    one, other = (write_report(["v3-os8"], tree.runs, tmp_path / n, tree.prepared) for n in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_nothing_run_yet_is_a_page_too(tree: Tree, tmp_path: Path) -> None:
    written = write_report(["a", "b"], tmp_path / "runs", tmp_path / "report", tree.prepared)
    assert "No variant has been evaluated yet." in written.read_text()
    assert (tmp_path / "report" / "report.md").is_file()


def test_no_variant_leaves_the_old_report(tree: Tree, tmp_path: Path) -> None:
    old = tmp_path / "report" / "index.html"
    old.parent.mkdir()
    old.write_text("old")
    with pytest.raises(UserError, match="variants is empty"):
        write_report([], tree.runs, tmp_path / "report", tree.prepared)
    assert old.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.fixture(scope="module")
def searched(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one variant whose CRF was searched, with more classes than fit a table."""
    root = tmp_path_factory.mktemp("searched")
    folder = Path(shutil.copytree(tree.runs / "v3-os8", root / "runs" / "v3-os8"))
    path = folder / "evaluation" / "figures.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"held_apart": 25}))
    write_search(folder / "crf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "CONFUSIONS_AS_TABLE", len(CLASSES) - 1)
        write_report(["v3-os8"], root / "runs", root / "report", tree.prepared)
    return root / "report"


def test_images_held_apart_are_owned_up_to(searched: Path) -> None:
    said = "; 25 more, on which the CRF's settings were searched, are left out"
    assert said in (searched / "index.html").read_text()
    assert said in (searched / "report.md").read_text()


def test_many_classes_get_a_picture_of_their_confusions(searched: Path) -> None:
    text = (searched / "index.html").read_text()
    assert 'class="matrix" src="data:image/png;base64,' in text
    assert 'class="confusion"' not in text


def test_a_search_of_the_crf_is_on_the_page(searched: Path) -> None:
    text = (searched / "index.html").read_text()
    assert Page(text).tables["searches"][1][1].split() == ["2", "given", "4"]
    assert text.count('class="surface" src="data:image/png;base64,') == 1
    assert "](figures/search_1.png)" in (searched / "report.md").read_text()
    assert (searched / "figures" / "search_1.png").is_file()


def test_a_single_variant_is_shown_where_it_is_wrong(searched: Path) -> None:
    assert "Where v3-os8 is wrong most" in (searched / "index.html").read_text()


def test_every_table_but_the_confusions_can_be_sorted(html: Page) -> None:
    classes = [
        value.split() for tag, name, value in html.attributes if (tag, name) == ("table", "class")
    ]
    assert {names[0] for names in classes if "sortable" not in names} == {"confusion"}
    assert len(classes) > 6


def test_seeds_are_grouped_on_the_page(tmp_path: Path) -> None:
    names = plant_seeds(tmp_path / "runs")
    written = write_report(names, tmp_path / "runs", tmp_path / "report", tmp_path / "prepared")
    html = Page(written.read_text(encoding="utf-8"))
    rows = [row[0].split()[0] for row in html.tables["variants"][1:]]
    assert rows == ["v3-os16", "v3-os8", "decoder"]
    assert {row[0].strip() for row in html.tables["measures"][1:]} == set(names)
    assert "v3-os8: v3-os8-s0, v3-os8-s1, v3-os8-s2" in html.text
    assert "±" in (tmp_path / "report" / "report.md").read_text()


def test_outside_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
