"""PASCAL-Context's masks: `trainval_merged.json` of the PASCAL-in-Detail release.

`images` have `image_id`, `file_name`, `phase` (train or val), `height` and `width`;
`annos_segmentation` have `image_id`, `category_id` and `segmentation` (run lengths). A mask is
painted in the file's order, later regions over earlier ones, and what no region covers is
background (the release's Python interface, `Detail.getMask`). The 59 classes are those of Mottaghi
et al., CVPR 2014; a region of any other category is left as background.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.datasets.formats.base import Classes, IndexedFormat, Masks, class_map, read_json
from pipeline.datasets.formats.regions import decode
from pipeline.datasets.section import Section
from pipeline.errors import UserError


@dataclass(frozen=True)
class Context(IndexedFormat):
    """Regions of categories, one JSON for all images."""

    #: Category -> class number.
    map: dict[int, int]
    #: Only images of this phase; None: all.
    phase: str | None

    @classmethod
    def parse(cls, section: Section, classes: Classes) -> "Context":
        """From the manifest: `map: {2: aeroplane, ...}`, and perhaps `phase: train`."""
        section.keys(("path", "format", "map"), ("phase",))
        return cls(class_map(section, "map", classes, int), section.optional_text("phase"))

    def open(self, path: Path, root: Path) -> Masks:
        """See IndexedFormat.open."""
        content = read_json(path)
        try:
            return _ContextMasks(path, self, content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a PASCAL-in-Detail JSON, {error} is missing") from error


class _ContextMasks(Masks):
    def __init__(self, path: Path, form: Context, content: Mapping[str, Any]) -> None:
        self.path, self.map = path, form.map
        self.images = {
            PurePosixPath(image["file_name"]).stem: image
            for image in content["images"]
            if form.phase in (None, image["phase"])
        }
        self.ids = tuple(sorted(self.images))
        self.regions = defaultdict(list)
        for region in content["annos_segmentation"]:
            if region["category_id"] in form.map:
                self.regions[region["image_id"]].append(region)

    def read(self, id: str) -> np.ndarray:
        """See Masks.read."""
        try:
            image = self.images[id]
            height, width = image["height"], image["width"]
            label = np.zeros((height, width), dtype=np.uint8)
            for region in self.regions.get(image["image_id"], ()):
                mask = decode(region["segmentation"], height, width)
                label[mask] = self.map[region["category_id"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: image {id}: {error}; get the file again") from error
        return label
