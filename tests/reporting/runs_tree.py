"""A small runs/ tree whose figures are those of drawn scenes, written as evaluation writes them."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import Config, CrfConfig, EvaluateConfig, ModelConfig, TrainConfig
from pipeline.evaluation.figures import MODES, Cost, Figures
from pipeline.evaluation.tally import Tally
from pipeline.reporting.load import Variant, load_variant

Labels = NDArray[np.uint8]
VOID = 255
LABEL_MAPS = ("single", "single_crf")
#: The second class needs escaping in HTML, Markdown and CSV; the last is never drawn.
CLASSES = ["background", 'a <b>"bold"</b> & |piped|, class', "ring", "square", "ghost"]
PALETTE = [(0, 0, 0), (230, 90, 60), (60, 140, 230), (90, 190, 110), (200, 120, 220)]


@dataclass
class Plan:
    """One variant to write: its settings, its cost, and how often it is wrong."""

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(iterations=600, crop_size=97))
    seed: int = 0
    params_m: float = 2.5
    gmacs: float = 4.0
    peak_mib: float = 30.0
    ms_per_image: float = 20.0
    #: Share of pixels that get a random class, without and with the CRF.
    wrong: tuple[float, float] = (0.2, 0.15)
    #: Whether the CRF's settings were searched.
    searched: bool = False


PLANS = [
    Plan("v3-os16", ModelConfig(), params_m=2.54, gmacs=6.41, ms_per_image=31.7, wrong=(0.2, 0.15)),
    Plan("v3-os8", ModelConfig(output_stride=8), params_m=2.54, gmacs=21.96, ms_per_image=96.2,
         wrong=(0.12, 0.1)),
    Plan("v3-noatrous", ModelConfig(aspp="no_atrous"), params_m=2.12, gmacs=5.5, ms_per_image=24.4,
         wrong=(0.28, 0.2)),
    Plan("v3plus-os16", ModelConfig(decoder=True), params_m=5.23, gmacs=26.4, ms_per_image=71.0,
         wrong=(0.15, 0.15)),
    Plan("v3-resnet50", ModelConfig(backbone="resnet50"), params_m=39.6, gmacs=60.9,
         peak_mib=180.0, ms_per_image=213.0, wrong=(0.1, 0.11)),
]  # fmt: skip


#: The variants of params.yaml: the plans, and one that was never run.
NAMES = [*(plan.name for plan in PLANS), "missing"]


def draw_scene(rng: np.random.Generator, height: int = 48, width: int = 64) -> Labels:
    """Labels [height, width] of a few shapes, each with a void border."""
    labels = np.zeros((height, width), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    for number in (1, 2, 3):
        cy, cx, radius = (
            rng.integers(8, height - 8),
            rng.integers(8, width - 8),
            rng.integers(7, 14),
        )
        if number == 3:
            distance = np.maximum(abs(y - cy), abs(x - cx)).astype(float)
        else:
            distance = np.hypot(y - cy, x - cx)
        inside = distance < radius
        if number == 2:
            inside &= distance > radius / 2
        labels[(distance >= radius) & (distance < radius + 1)] = VOID
        labels[inside] = number
    return labels


def photograph(labels: Labels, palette: Sequence[Sequence[int]], rng: np.random.Generator) -> Any:
    """An image [height, width, 3] that goes with the labels."""
    shade = paint(labels, palette).astype(float) * 0.5 + 60
    return np.clip(shade + rng.normal(0, 12, shade.shape), 0, 255).astype(np.uint8)


def paint(labels: Labels, palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Labels in the palette's colours, void in grey."""
    colours = np.full((256, 3), 224, dtype=np.uint8)
    colours[: len(palette)] = palette
    return colours[labels]


def guess(truth: Labels, wrong: float, classes: int, rng: np.random.Generator) -> Labels:
    """The truth with blocks of 4 x 4 pixels given to a random class; the void is guessed too."""
    height, width = truth.shape
    small = (-(-height // 4), -(-width // 4))
    noise = np.kron(rng.random(small), np.ones((4, 4)))[:height, :width]
    # The last class is neither drawn nor guessed: it is absent.
    other = np.kron(rng.integers(0, classes - 1, small), np.ones((4, 4), dtype=int))
    known = np.where(truth == VOID, 0, truth)
    return np.where(noise < wrong, other[:height, :width], known).astype(np.uint8)


def write_run(
    folder: Path,
    plan: Plan,
    scenes: dict[str, tuple[NDArray[np.uint8], Labels]],
    classes: Sequence[str] = tuple(CLASSES),
    palette: Sequence[Sequence[int]] = tuple(PALETTE),
    dataset: str = "shapes",
) -> None:
    """Write runs/<variant>/ for the scenes, id -> (image, truth)."""
    labels = folder / "evaluation" / "labels"
    for mode in LABEL_MAPS:
        (labels / mode).mkdir(parents=True)
    config = asdict(Config(dataset=dataset, seed=plan.seed, model=plan.model, train=plan.train))
    sections = {key: config[key] for key in ("seed", "dataset", "model", "train")}
    (folder / "config.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))
    run = {
        "run_id": f"{plan.name}-0123456789abcdef",
        "signature": f"sig-{plan.name}",
        "versions": {"torch": "2.9.0", "pipeline": "0.1.0"},
        "data_digest": "d1" * 32,
        "seconds": 372.4,
        "device": "cpu",
    }
    (folder / "run.json").write_text(json.dumps(run))
    shown = {}
    truths = [truth for _, truth in scenes.values()]
    for mode in MODES:
        rng = np.random.default_rng(plan.seed)
        wrong = plan.wrong["crf" in mode] * (0.9 if "ms" in mode else 1.0)
        shown[mode] = [guess(truth, wrong, len(classes), rng) for truth in truths]
    tally = Tally(len(classes), MODES, VOID)
    for index, truth in enumerate(truths):
        tally.add(truth, {mode: guesses[index] for mode, guesses in shown.items()})
    cost = Cost(plan.params_m, plan.gmacs, plan.peak_mib, plan.ms_per_image, 129, "cpu")
    figures = Figures(
        dataset=dataset,
        split="test",
        classes=list(classes),
        palette=[list(map(int, colour)) for colour in palette],
        ids=list(scenes),
        tally=tally,
        cost=cost,
        evaluate=EvaluateConfig(scales=[0.5, 1.0, 1.5]),
        crf=CrfConfig(),
        seconds={"network": 12.3, "crf": 81.0},
    )
    figures.write(folder / "evaluation")
    (folder / "metrics.json").write_text(json.dumps(figures.metrics()))
    write_history(folder / "history.csv", plan.train.iterations, figures.metrics()["miou"])
    for index, id_ in enumerate(scenes):
        for mode in LABEL_MAPS:
            Image.fromarray(shown[mode][index]).save(labels / mode / f"{id_}.png")
    if plan.searched:
        write_search(folder / "crf")


def write_search(folder: Path) -> None:
    """What a search of the CRF's settings leaves."""
    folder.mkdir()
    given, found = ({"w1": w1, "sigma_alpha": 30.0, "sigma_beta": 5.0} for w1 in (4.0, 2.0))
    summary = {"images": 7, "miou_without_crf": 50.0, "miou_given": 51.5, "miou_found": 52.25,
               "given": given, "found": found, "at_the_edge_of": ["w1"]}  # fmt: skip
    (folder / "search.json").write_text(json.dumps(summary))
    Image.new("RGB", (400, 300), "teal").save(folder / "surface.png")


def write_history(path: Path, iterations: int, miou: float) -> None:
    """Ten validations that approach the mIoU."""
    steps = np.linspace(iterations / 10, iterations, 10).astype(int)
    rows = [
        [int(step), 0.05 * (1 - step / iterations) ** 0.9, 1.8 * 0.75**index,
         miou * (1 - 0.6 ** (index + 1)), 90.0]
        for index, step in enumerate(steps)
    ]  # fmt: skip
    header = ["iteration", "learning_rate", "train_loss", "val_miou", "val_pixel_accuracy"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def draw_scenes(count: int = 4) -> dict[str, tuple[NDArray[np.uint8], Labels]]:
    """Scenes by id."""
    rng = np.random.default_rng(7)
    truths = [draw_scene(rng) for _ in range(count)]
    return {f"scene_{i}": (photograph(t, PALETTE, rng), t) for i, t in enumerate(truths)}


def made(folder: Path, plan: Plan) -> Variant:
    """The plan's variant, written below the folder and read back."""
    write_run(folder / plan.name, plan, draw_scenes())
    return load_variant(plan.name, folder / plan.name)


def plant_seeds(root: Path) -> list[str]:
    """Two settings with three seeds each, and one with a single run; the variants' names.

    At output stride 8 fewer pixels are wrong than at 16, by far more than the seeds spread; the
    decoder changes nothing but the draw.
    """
    scenes, names = draw_scenes(), []
    for seed in (0, 1, 2):
        for plan, wrong in ((PLANS[0], 0.3), (PLANS[1], 0.1)):
            name = f"{plan.name}-s{seed}"
            write_run(
                root / name,
                replace(plan, name=name, seed=seed, wrong=(wrong + 0.02 * seed, wrong / 2)),
                scenes,
            )
            names.append(name)
    write_run(root / "decoder", replace(PLANS[3], name="decoder", wrong=(0.3, 0.15)), scenes)
    return [*names, "decoder"]


def write_data_set(prepared: Path, digest: str = "d1" * 32) -> None:
    """The training-ready set of the scenes; all of them are the test split."""
    folder, scenes = prepared / "shapes", draw_scenes()
    for name in ("images", "labels", "splits"):
        (folder / name).mkdir(parents=True)
    for id_, (image, truth) in scenes.items():
        Image.fromarray(image).save(folder / "images" / f"{id_}.png")
        Image.fromarray(truth).save(folder / "labels" / f"{id_}.png")
    splits = {"train": ["scene_0", "scene_1"], "val": ["scene_2"], "test": list(scenes)}
    for split, ids in splits.items():
        (folder / "splits" / f"{split}.txt").write_text("".join(f"{id_}\n" for id_ in ids))
    description = {"name": "shapes", "classes": CLASSES, "palette": PALETTE, "void": VOID,
                   "splits": {split: len(ids) for split, ids in splits.items()},
                   "digest": digest}  # fmt: skip
    files = {
        "dataset": description,
        "statistics": {"mean": [0.5] * 3, "std": [0.2] * 3},
        "classes_in": {id_: [0] for id_ in scenes},
    }
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))


@dataclass(frozen=True)
class Tree:
    """Where a planted tree lies."""

    runs: Path
    prepared: Path


def plant(root: Path) -> Tree:
    """Write a run of every plan, and the data set; "missing" of NAMES is left out."""
    scenes = draw_scenes()
    for plan in PLANS:
        write_run(root / "runs" / plan.name, plan, scenes)
    write_data_set(root / "prepared")
    return Tree(root / "runs", root / "prepared")
