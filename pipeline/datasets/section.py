"""Read a YAML mapping key by key; every complaint names the file and the key."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError, nearest


class Section:
    """A mapping of a manifest, and where it stands."""

    def __init__(self, path: Path, where: str, content: Any) -> None:
        self.path, self.where = path, where
        if not isinstance(content, dict):
            raise self.wrong("", f"must be a mapping of keys to values, is {content!r}")
        self.content = content

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def wrong(self, key: str, complaint: str) -> UserError:
        """The error of a key."""
        place = ".".join(part for part in (self.where, key) if part)
        return UserError(f"{self.path}: {place + ': ' if place else ''}{complaint}")

    def keys(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        """Refuse unknown keys, then missing ones."""
        for key in self.content:
            if key not in required + optional:
                raise self.wrong(str(key), f"unknown key; {nearest(str(key), required + optional)}")
        for key in required:
            if key not in self.content:
                raise self.wrong(key, "this key is missing; add it")

    def section(self, key: str) -> "Section":
        """A mapping below."""
        return Section(self.path, self._below(key), self.content[key])

    def sections(self, key: str) -> list["Section"]:
        """A list of mappings below."""
        where = self._below(key)
        return [
            Section(self.path, f"{where}[{number}]", item)
            for number, item in enumerate(self.items(key))
        ]

    def items(self, key: str) -> list[Any]:
        """A list with something in it."""
        value = self.content[key]
        if not isinstance(value, list) or not value:
            raise self.wrong(key, f"must be a list with at least one entry, is {value!r}")
        return value

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.content[key]
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, f"must be text, is {value!r}")
        return value.strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        for value in self.items(key):
            if not isinstance(value, str) or not value.strip():
                raise self.wrong(key, f"must be a list of text, holds {value!r}")
        return tuple(self.content[key])

    def optional_text(self, key: str) -> str | None:
        """A text, or None where the key is absent or null."""
        return self.text(key) if key in self else None

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of a few words."""
        word = self.text(key)
        if word not in choices:
            raise self.wrong(key, f"{word}: {nearest(word, choices)}")
        return word

    def flag(self, key: str, default: bool) -> bool:
        """True or false; `default` where the key is absent."""
        value = self.content.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false, is {value!r}")
        return value

    def number(self, key: str, least: int, most: int | None = None) -> int:
        """A whole number in a range."""
        value = self.content[key]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < least or (most is not None and value > most):
            allowed = f"of at least {least}" if most is None else f"in {least}..{most}"
            raise self.wrong(key, f"must be a whole number {allowed}, is {value!r}")
        return int(value)

    def share(self, key: str) -> float:
        """A number above 0 and below 1."""
        value = self.content[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < 1:
            raise self.wrong(key, f"must be a number between 0 and 1, is {value!r}")
        return float(value)

    def colour(self, key: str, value: Any) -> tuple[int, int, int]:
        """Red, green and blue of 0..255."""
        is_rgb = isinstance(value, list) and len(value) == 3
        if not is_rgb or not all(type(part) is int and 0 <= part <= 255 for part in value):
            raise self.wrong(key, f"must be [red, green, blue] of 0..255, is {value!r}")
        red, green, blue = value
        return red, green, blue

    def below(self, key: str, path: str) -> str:
        """A path that stays below the raw folder."""
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise self.wrong(key, f"{path}: must be a path below the unpacked data, without ..")
        return path

    def with_id(self, key: str, template: str) -> str:
        """A template with `{id}` in it, and no other field than `{split}`."""
        fields = re.findall(r"{[^}]*}", template)
        if "{id}" not in fields or set(fields) - {"{id}", "{split}"}:
            raise self.wrong(key, f"{template}: must hold {{id}}, the image's name")
        return template

    def template(self, key: str, template: str) -> str:
        """A template of files below the raw folder."""
        self.below(key, self.with_id(key, template))
        if "*" in template.removesuffix(".*").rsplit("/", 1)[-1]:
            raise self.wrong(key, f"{template}: * may stand in a folder's name, .* at the end")
        return template

    def _below(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key
