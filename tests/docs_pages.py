"""The pages of the documentation, taken apart: blocks, commands, names in backticks, links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.paths import PROJECT

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = {"", "sh", "bash"}
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`([^`]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: as the fence has it; commands have none.
        line: of the fence, in the page.
    """

    language: str
    text: str
    line: int

    def commands(self) -> list[str]:
        """One command a line, without comments; none in a block of another language."""
        if self.language not in COMMAND:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        bare = (re.sub(r"(^|\s+)#.*", "", line) for line in lines)
        return [" ".join(line.split()) for line in bare if line.strip()]

    def file(self) -> str | None:
        """The file that the first line names in a comment."""
        found = re.match(r"# (\S+\.(?:yaml|py))\n", self.text)
        return found[1] if found else None


@dataclass(frozen=True)
class Page:
    """README.md or a page of docs/."""

    name: str

    @property
    def text(self) -> str:
        """All of it."""
        return (PROJECT / self.name).read_text(encoding="utf-8")

    def blocks(self) -> Iterator[Block]:
        """The fenced blocks, in order."""
        for found in FENCED.finditer(self.text):
            yield Block(found[1], found[2], self.text.count("\n", 0, found.start()) + 1)

    def prose(self) -> str:
        """The page without its blocks."""
        return FENCED.sub("", self.text)

    def named(self) -> list[str]:
        """What stands in backticks, on one line each."""
        return [" ".join(name.split()) for name in NAMED.findall(self.prose())]

    def links(self) -> list[str]:
        """Where links and pictures go."""
        return LINK.findall(self.prose())

    def anchors(self) -> set[str]:
        """Of the headings, as GitHub makes them."""
        heads = (re.sub(r"[^\w\- ]", "", head.lower()) for head in HEADING.findall(self.prose()))
        return {head.replace(" ", "-") for head in heads}


def pages() -> list[Page]:
    """README.md, then docs/ by name."""
    found = sorted((PROJECT / "docs").glob("*.md"))
    return [Page("README.md"), *(Page(str(path.relative_to(PROJECT))) for path in found)]


def page_path(page: Page, link: str) -> Path:
    """The file that a link of a page goes to."""
    return (PROJECT / page.name).parent / link.partition("#")[0]
