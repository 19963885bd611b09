"""COCO's instances as masks of other classes: `annotations/instances_*.json`.

For DeepLab's pretraining (v3, "Pretrained on COCO"): the categories that PASCAL VOC has too, only
regions above 1000 pixels, the rest is background, and images where nothing is left are not in the
split. The papers do not say how overlapping instances are painted: here the large ones first, so
that what lies on a table stays to be seen. Crowds are no instances but areas with many: they are
void, where no instance covers them.
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
from pipeline.datasets.statistics import VOID
from pipeline.errors import UserError, nearest


@dataclass(frozen=True)
class Coco(IndexedFormat):
    """Instances of categories, one JSON for all images."""

    #: Category's name -> class number.
    map: dict[str, int]
    #: Pixels; a region must have more.
    larger_than: int
    #: A file of COCO's image numbers, one a line, that are left out, below the raw folder.
    exclude: str | None

    @classmethod
    def parse(cls, section: Section, classes: Classes) -> "Coco":
        """From the manifest: `map: {airplane: aeroplane}`, `larger_than: 1000`, `exclude: FILE`."""
        section.keys(("path", "format", "map"), ("larger_than", "exclude"))
        exclude = section.optional_text("exclude")
        return cls(
            class_map(section, "map", classes, str),
            section.number("larger_than", 0) if "larger_than" in section else 0,
            None if exclude is None else section.below("exclude", exclude),
        )

    def open(self, path: Path, root: Path) -> Masks:
        """See IndexedFormat.open."""
        content = read_json(path)
        excluded = set() if self.exclude is None else _image_numbers(root / self.exclude)
        try:
            return _CocoMasks(path, self, content, excluded)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not COCO's instances, {error} is missing") from error


class _CocoMasks(Masks):
    def __init__(
        self, path: Path, form: Coco, content: Mapping[str, Any], excluded: set[int]
    ) -> None:
        self.path = path
        classes = _categories(path, form.map, content["categories"])
        #: Image number -> (class, area, segmentation), the large ones first.
        self.regions = defaultdict(list)
        self.crowds = defaultdict(list)
        for one in content["annotations"]:
            if one["category_id"] not in classes or one["image_id"] in excluded:
                continue
            if one["iscrowd"]:
                self.crowds[one["image_id"]].append(one["segmentation"])
            elif one["area"] > form.larger_than:
                region = (classes[one["category_id"]], one["area"], one["segmentation"])
                self.regions[one["image_id"]].append(region)
        for regions in self.regions.values():
            regions.sort(key=lambda region: -region[1])
        self.images = {
            PurePosixPath(image["file_name"]).stem: image
            for image in content["images"]
            if image["id"] in self.regions
        }
        self.ids = tuple(sorted(self.images))

    def read(self, id: str) -> np.ndarray:
        """See Masks.read."""
        try:
            image = self.images[id]
            height, width = image["height"], image["width"]
            label = np.zeros((height, width), dtype=np.uint8)
            for segmentation in self.crowds.get(image["id"], ()):
                label[decode(segmentation, height, width)] = VOID
            for number, _, segmentation in self.regions[image["id"]]:
                label[decode(segmentation, height, width)] = number
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: image {id}: {error}; get the file again") from error
        return label


def _categories(path: Path, numbers: dict[str, int], categories: Any) -> dict[int, int]:
    """COCO's category number -> class number."""
    known = {category["name"]: category["id"] for category in categories}
    for name in numbers:
        if name not in known:
            raise UserError(f"{path}: no category {name}, which map names; {nearest(name, known)}")
    return {known[name]: number for name, number in numbers.items()}


def _image_numbers(path: Path) -> set[int]:
    try:
        return {int(word) for word in path.read_text(encoding="utf-8").split()}
    except FileNotFoundError as error:
        raise UserError(f"{path}: the list of excluded images is missing") from error
    except ValueError as error:
        raise UserError(f"{path}: must hold COCO's image numbers, one a line: {error}") from error
