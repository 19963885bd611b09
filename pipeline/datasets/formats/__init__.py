"""How masks are delivered: one file a format, each turns them into class numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.datasets.formats.base import Classes, IndexedFormat, LabelFormat
from pipeline.datasets.formats.coco import Coco
from pipeline.datasets.formats.colours import Colours
from pipeline.datasets.formats.context import Context
from pipeline.datasets.formats.numbers import Numbers
from pipeline.datasets.formats.person_part import PersonPart
from pipeline.datasets.formats.sbd import Sbd
from pipeline.datasets.section import Section

FORMATS: Mapping[str, Callable[[Section, Classes], LabelFormat | IndexedFormat]] = {
    "numbers": Numbers.parse,
    "colours": Colours.parse,
    "sbd": Sbd.parse,
    "person_part": PersonPart.parse,
    "context": Context.parse,
    "coco": Coco.parse,
}


@dataclass(frozen=True)
class LabelSource:
    """Where masks lie below the raw folder, and how they are delivered."""

    #: A template with `{id}`; for an IndexedFormat the one file of all masks.
    path: str
    format: LabelFormat | IndexedFormat


def read_sources(
    section: Section, key: str, split: str, classes: Classes
) -> tuple[LabelSource, ...]:
    """The label sources that a manifest names, in their order.

    Each is a template of class-number images, or a mapping of `path`, `format` and what the
    format takes.

    Raises:
        UserError: an unknown format or key, or a wrong value.
    """
    value = section.content[key]
    if not isinstance(value, list):
        return (_source(section, key, value, split, classes),)
    return tuple(
        _source(section, f"{key}[{number}]", entry, split, classes)
        for number, entry in enumerate(section.items(key))
    )


def _source(section: Section, key: str, entry: Any, split: str, classes: Classes) -> LabelSource:
    if isinstance(entry, str):
        template = section.template(key, entry)
        return LabelSource(template.replace("{split}", split), Numbers(classes))
    below = Section(section.path, f"{section.where}.{key}" if section.where else key, entry)
    below.content = {
        name: value.replace("{split}", split) if isinstance(value, str) else value
        for name, value in below.content.items()
    }
    if "path" not in below or "format" not in below:
        below.keys(("path", "format"), tuple(below.content))
    name = below.choice("format", tuple(FORMATS))
    source = FORMATS[name](below, classes)
    path = below.text("path")
    path = (
        below.below("path", path)
        if isinstance(source, IndexedFormat)
        else below.template("path", path)
    )
    return LabelSource(path, source)
