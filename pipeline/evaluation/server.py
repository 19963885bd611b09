"""The archives that the test servers of PASCAL VOC 2012 and Cityscapes take.

VOC (development kit, section 5.3): results/VOC2012/Segmentation/comp6_test_cls/<id>.png, palette
PNGs of class numbers, in one .tgz. comp6 is the competition that allows other training data, which
weights from ImageNet or COCO are. Cityscapes (cityscapesScripts, evalPixelLevelSemanticLabeling):
<city>_<sequence>_<frame>*.png with the label ids, not the train ids, anywhere in one .zip.
"""

import io
import os
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import UserError

Labels = npt.NDArray[np.uint8]

#: In the order of their numbers.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
#: Class -> label id (cityscapesScripts, helpers/labels.py).
CITYSCAPES_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
    "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
    "bicycle": 33,
}  # fmt: skip


@dataclass(frozen=True)
class Server:
    """What one server expects."""

    #: The archive's name; its ending is its kind.
    archive: str
    #: Where the picture of {id} lies inside.
    member: str
    #: Class -> the number that the server has for it.
    numbers: dict[str, int]
    #: Whether the PNGs carry VOC's palette.
    coloured: bool
    #: What an image's file name has after its id, without the ending.
    image_tail: str
    #: Images of its test set; with fewer it gives no score.
    images: int


SERVERS = {
    "voc2012": Server(
        archive="voc2012-comp6.tgz",
        member="results/VOC2012/Segmentation/comp6_test_cls/{id}.png",
        numbers={name: number for number, name in enumerate(VOC_CLASSES)},
        coloured=True,
        image_tail="",
        images=1456,
    ),
    "cityscapes": Server(
        archive="cityscapes.zip",
        member="{id}_pred_labelIds.png",
        numbers=CITYSCAPES_IDS,
        coloured=False,
        image_tail="_leftImg8bit",
        images=1525,
    ),
}


def find_server(name: str) -> Server:
    """What a server expects.

    Raises:
        UserError: there is no such server.
    """
    if name not in SERVERS:
        raise UserError(f"server={name}: one of {', '.join(SERVERS)}")
    return SERVERS[name]


def voc_palette() -> npt.NDArray[np.uint8]:
    """The colours of the development kit's VOClabelcolormap, 256 x 3.

    The lowest three bits of a number are the highest bits of red, green and blue, the next three
    the next highest.
    """
    numbers, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for channel in range(3):
        for triple in range(3):
            bit = numbers >> (3 * triple + channel) & 1
            colours[:, channel] |= (bit << (7 - triple)).astype(np.uint8)
    return colours


def write_submission(
    server: str,
    folder: Path,
    predictions: Iterable[tuple[str, Labels]],
    classes: Sequence[str],
) -> tuple[Path, int]:
    """Write the archive of a server, whole or not at all; memory does not grow with the images.

    Args:
        server: a key of SERVERS.
        folder: where the archive is written.
        predictions: (id, H x W class numbers) at the image's own size; drawn one by one.
        classes: names by class number.

    Returns:
        The archive, and how many images are in it; SERVERS[server].images is a whole test set.

    Raises:
        UserError: there is no such server, it does not know a class, or an id comes twice.
    """
    expected = find_server(server)
    numbers = _numbers(server, expected, classes)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / expected.archive
    beside = path.with_name(f"{path.name}.partial")
    pack = _pack_zip if path.suffix == ".zip" else _pack_tar
    try:
        count = pack(beside, _members(expected, predictions, numbers))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path, count


def _numbers(server: str, expected: Server, classes: Sequence[str]) -> Labels:
    """Class number -> the server's."""
    unknown = [name for name in classes if name not in expected.numbers]
    if unknown or not classes:
        raise UserError(
            f"server={server}: it has no class {', '.join(unknown) or 'at all'}; the network must "
            f"be trained on its classes: {', '.join(expected.numbers)}"
        )
    return np.array([expected.numbers[name] for name in classes], np.uint8)


def _members(
    expected: Server,
    predictions: Iterable[tuple[str, Labels]],
    numbers: Labels,
) -> Iterable[tuple[str, bytes]]:
    """Name inside the archive and content, of each image."""
    palette = voc_palette().tobytes()
    seen: set[str] = set()
    for id, labels in predictions:
        if id in seen:
            raise UserError(f"{id}: predicted twice; a server takes each image once")
        seen.add(id)
        picture = Image.fromarray(numbers[labels])
        if expected.coloured:
            picture.putpalette(palette)
        content = io.BytesIO()
        picture.save(content, "PNG")
        yield expected.member.format(id=id), content.getvalue()


def _pack_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> int:
    count = 0
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:  # PNGs are packed already
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            count += 1
    return count


def _pack_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> int:
    count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
            count += 1
    return count
