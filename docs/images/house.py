"""Draw docs/images/house.svg from dvc.yaml: the stages, the rooms each hangs on, what it writes.

python docs/images/house.py
"""

from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent

WIDTH = 760
#: Of a stage's row, and of a line of text in it.
ROW, LINE = 66, 18
#: Above the stages that have a row for each variant, for the words that say so; and below.
GAP, FOOT = 26, 26
#: Left edges of the columns: stages, rooms, files.
STAGES, ROOMS, FILES = 34, 212, 430
STAGE_WIDTH, CHIP_HEIGHT = 122, 24
#: Of a row, from its top; and from a line of rooms to the next.
MIDDLE, CHIP = 33, 28
#: Rooms on which no stage hangs: who uses them, and what for.
BESIDE = (
    ("sweeping", "plan, sweep, search", "what is pending, and all of it side by side"),
    ("tracking", "MLflow", "a row a variant, filled by train, tune and evaluate"),
    ("prediction", "predict, export, register", "a trained network on your own images"),
)
STYLE = """
  text { font: 14px -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif;
         fill: #1f2933; }
  .head { font-size: 13px; fill: #52606d; }
  .stage { font-weight: 600; text-anchor: middle; }
  .file { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
          font-size: 13px; }
  .room { text-anchor: middle; font-size: 13px; }
"""


class Drawing:
    """Shapes of an SVG, in the order in which they are drawn."""

    def __init__(self) -> None:
        self.shapes: list[str] = []

    def box(self, x: float, y: float, wide: float, high: float, fill: str, line: str) -> None:
        """A rectangle with round corners; x, y: its top left."""
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="6" '
            f'fill="{fill}" stroke="{line}"/>'
        )

    def text(self, x: float, y: float, said: str, kind: str) -> None:
        """A line of text; x, y: its base line's start, or its middle where `kind` centres it."""
        self.shapes.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(said)}</text>')

    def chip(self, x: float, y: float, room: str) -> float:
        """A room's name in a small box; where the next one may start."""
        wide = 8 * len(room) + 16
        self.box(x, y, wide, CHIP_HEIGHT, "#e3f0ea", "#9cc4b0")
        self.text(x + wide / 2, y + 17, room, "room")
        return x + wide + 6

    def arrow(self, x: float, top: float, bottom: float) -> None:
        """Straight down."""
        self.shapes.append(
            f'<path d="M{x:g} {top:g} V{bottom - 6:g}" stroke="#52606d" stroke-width="1.5"/>'
            f'<path d="M{x - 4:g} {bottom - 7:g} h8 l-4 7 z" fill="#52606d"/>'
        )

    def svg(self, height: float, said: str) -> str:
        """The whole picture."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            f'role="img" aria-label="{escape(said)}">\n<style>{STYLE}</style>\n'
            f'<rect width="{WIDTH}" height="{height:g}" rx="8" fill="#ffffff"/>\n'
            + "\n".join(self.shapes)
            + "\n</svg>\n"
        )


def house(pipeline: dict[str, Any]) -> str:
    """The picture of a dvc.yaml."""
    stages = _in_order(pipeline["stages"])
    drawing = Drawing()
    heads = ((STAGES, "stage"), (ROOMS, "rooms of pipeline/ it hangs on"), (FILES, "writes"))
    for x, said in heads:
        drawing.text(x, 30, said, "head")
    bottom = _rows(drawing, stages)
    y = bottom + 36
    drawing.text(STAGES, y, "beside the stages", "head")
    for number, (room, who, what) in enumerate(BESIDE):
        line = y + 14 + 34 * number
        drawing.chip(STAGES, line, room)
        drawing.text(ROOMS - 60, line + 17, who, "")
        drawing.text(ROOMS + 126, line + 17, what, "head")
    return drawing.svg(y + 14 + 34 * len(BESIDE) + 6, "The stages: " + ", ".join(stages))


def _rows(drawing: Drawing, stages: dict[str, Any]) -> float:
    """A row a stage, those of each variant in a frame; where the last one ends."""
    many = [name for name, stage in stages.items() if "foreach" in stage]
    rows, y = {}, 44
    for name in stages:
        y += GAP if name == many[0] else 0
        rows[name] = y
        y += ROW + (FOOT if name == many[-1] else 0)
    top = rows[many[0]] - GAP + 6
    drawing.box(14, top, WIDTH - 28, ROW * len(many) + GAP, "#f5f7fa", "#cbd2d9")
    drawing.text(ROOMS, top + 20, "for each variant of params.yaml", "head")
    middle = STAGES + STAGE_WIDTH / 2
    for before, after in pairwise(rows.values()):
        drawing.arrow(middle, before + MIDDLE + 18, after + MIDDLE - 18)
    for name, top in rows.items():
        _row(drawing, name, stages[name].get("do", stages[name]), top)
    return y


def _in_order(stages: dict[str, Any]) -> dict[str, Any]:
    """The stages as they need each other, as far as possible in the order of the file."""
    placed: dict[str, Any] = {}
    written = {name: _outs(stage.get("do", stage)) for name, stage in stages.items()}
    while left := [name for name in stages if name not in placed]:
        ready = next(
            name
            for name in left
            if not any(
                dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")
                for other in left
                if other != name
                for dep in stages[name].get("do", stages[name])["deps"]
                for out in written[other]
            )
        )
        placed[ready] = stages[ready]
    return placed


def _row(drawing: Drawing, name: str, stage: dict[str, Any], top: float) -> None:
    middle = top + MIDDLE
    drawing.box(STAGES, middle - 18, STAGE_WIDTH, 36, "#dceafc", "#7fa7d8")
    drawing.text(STAGES + STAGE_WIDTH / 2, middle + 5, name, "stage")
    rooms = sorted({part[1] for dep in stage["deps"] if (part := _room(dep))})
    lines = [rooms[start : start + 2] for start in range(0, len(rooms), 2)]
    for number, line in enumerate(lines):
        x = float(ROOMS)
        for room in line:
            x = drawing.chip(x, middle - CHIP * len(lines) / 2 + CHIP * number + 2, room)
    said = _wrapped([_named(out) for out in _outs(stage)])
    first = middle + 5 - LINE * (len(said) - 1) / 2
    for number, words in enumerate(said):
        drawing.text(FILES, first + LINE * number, words, "file")


def _room(dep: str) -> list[str] | None:
    """The parts of a path in a room of pipeline/."""
    parts = dep.split("/")
    inside = parts[0] == "pipeline" and (PROJECT / "pipeline" / parts[1]).is_dir()
    return parts if inside else None


def _outs(stage: dict[str, Any]) -> list[str]:
    entries = [one for key in ("outs", "metrics", "plots") for one in stage.get(key, [])]
    return [one if isinstance(one, str) else next(iter(one)) for one in entries]


def _named(out: str) -> str:
    return out.replace("${dataset}", "DATA").replace("${key}", "VARIANT")


def _wrapped(outs: list[str]) -> list[str]:
    """Files of one folder: the folder, then their names on as few lines as hold them."""
    folder = outs[0].rsplit("/", 1)[0] + "/"
    if len(outs) == 1 or not all(out.startswith(folder) for out in outs):
        return outs
    names = ", ".join(out.removeprefix(folder) for out in outs)
    return [folder, *wrap(names, 36)]


if __name__ == "__main__":
    content = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))
    (HERE / "house.svg").write_text(house(content), encoding="utf-8")
