import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from pipeline.config import CrfConfig, EvaluateConfig, ModelConfig, TrainerConfig
from pipeline.datasets.images import read_image
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.confusion import VOID
from pipeline.evaluation.figures import MODES
from pipeline.evaluation.tally import Tally
from pipeline.inference.crf import refine
from pipeline.inference.logits import Index, StoredLogits, keep_what_fits, run_settings
from pipeline.inference.network import Network
from pipeline.inference.score import score, spread
from pipeline.inference.share import Job, run_share
from pipeline.inference.whole_image import geometry_of, probabilities
from pipeline.models.network import build_model
from pipeline.models.weights import load_weights
from pipeline.paths import PROJECT

SHARED = PROJECT.parent / "shared" / "data"
TRAINED = SHARED / "weights" / "deeplab_v3_mobilenet_v2_voc21.pth"
PHOTOGRAPHS = SHARED / "voc2012-subset.tar"
CPU = torch.device("cpu")
CLASSES = ("background", "red", "green")
PALETTE = ((0, 0, 0), (200, 30, 30), (30, 180, 30))
SETTINGS = EvaluateConfig(split="test", scales=[0.5, 1.0], flip=True, pictures=2)
CRF = CrfConfig(sigma_alpha=10, sigma_beta=10, iterations=3)


class ByColour(nn.Module):
    """Knows a class by its colour, seen through a 3 x 3 mean; stands for a trained network."""

    input_mean: Tensor
    output_stride = 8
    align_corners = True

    def __init__(self, palette: tuple[tuple[int, int, int], ...] = PALETTE) -> None:
        super().__init__()
        self.register_buffer("input_mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("colours", torch.tensor(palette).float().view(-1, 3, 1, 1) / 255)
        self.blur = nn.AvgPool2d(3, stride=1, padding=1)

    def scores(self, images: Tensor) -> Tensor:
        colours = self.get_buffer("colours")[None]
        return -20 * (self.blur(images)[:, None] - colours).square().sum(2)


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    """Five images of different sizes: noisy rectangles, a void border, and wrongly coloured spots.

    Each spot is labelled with the class around it, so that the network is never wholly right.
    """
    generator = np.random.default_rng(0)
    ids = [f"scene-{number}" for number in range(5)]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number, id in enumerate(ids):
        height, width = 30 + 7 * number, 52 - 5 * number
        truth = np.zeros((height, width), np.uint8)
        truth[5:20, 4:17] = 1
        truth[12:28, 14:30] = 2
        seen = np.where(generator.random(truth.shape) < 0.05, 1, truth)
        colours = np.array(PALETTE)[seen] + generator.normal(0, 25, (height, width, 3))
        truth[0] = VOID
        Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(
            tmp_path / "images" / f"{id}.png"
        )
        save_label(tmp_path / "labels" / f"{id}.png", truth)
    return Prepared(
        folder=tmp_path,
        name="rectangles",
        classes=CLASSES,
        palette=PALETTE,
        void=VOID,
        splits={"train": (), "test": tuple(ids)},
        digest="0" * 64,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        images={id: f"{id}.png" for id in ids},
    )


def save_label(path: Path, labels: npt.NDArray[np.uint8]) -> None:
    picture = Image.fromarray(labels).convert("P")
    # All 256 colours: with fewer, Pillow writes fewer bits a pixel, and void does not fit.
    picture.putpalette([value for colour in PALETTE for value in colour] + [255] * 3 * 253)
    picture.save(path)


def store(data: Prepared, folder: Path, network: Network, evaluate: EvaluateConfig) -> StoredLogits:
    """The network's scores of the split, as the stage `infer` leaves them."""
    ids = data.ids(evaluate.split)
    geometry = geometry_of(network, evaluate)
    index = Index("", data.digest, "", run_settings(evaluate), geometry, len(data.classes), ids)
    keep_what_fits(folder, index)
    job = Job(Path("model.ckpt"), data, evaluate, folder, "cpu", len(ids))
    run_share(job, [[id] for id in ids], network, CPU)
    return StoredLogits(folder, evaluate.fusion)


def scored(
    data: Prepared,
    tmp_path: Path,
    workers: int = 0,
    settings: EvaluateConfig = SETTINGS,
    crf: CrfConfig = CRF,
) -> Tally:
    logits = store(data, tmp_path / "logits", ByColour(), settings)
    trainer = TrainerConfig(workers=workers, progress_bar=False)
    tally, _ = score(data, logits, logits.ids, settings, crf, tmp_path, trainer)
    return tally


def by_hand(data: Prepared) -> dict[str, float]:
    """mIoU of the two single-scale modes, pixel by pixel and without the code under test."""
    network = ByColour()
    sums = {mode: np.zeros((3, 2)) for mode in ("single", "single_crf")}
    for id in data.ids("test"):
        image = np.asarray(Image.open(data.image_path(id)))
        truth = np.asarray(Image.open(data.label_path(id)))
        height, width = truth.shape
        padded = np.full((-(-(height - 1) // 8) * 8 + 1, -(-(width - 1) // 8) * 8 + 1, 3), 0.5)
        padded[:height, :width] = image / 255
        pixels = torch.from_numpy(padded).permute(2, 0, 1)[None].float()
        maps = network.scores(pixels)[0, :, :height, :width].softmax(0).numpy()
        predictions = {"single": maps.argmax(0), "single_crf": refine(image, maps, CRF)}
        for mode, prediction in predictions.items():
            for label in range(3):
                is_truth, is_seen = truth == label, (prediction == label) & (truth != VOID)
                sums[mode][label] += (is_truth & is_seen).sum(), (is_truth | is_seen).sum()
    return {mode: float((100 * s[:, 0] / s[:, 1]).mean()) for mode, s in sums.items()}


def test_miou_is_that_of_an_independent_loop(data: Prepared, tmp_path: Path) -> None:
    matrices = scored(data, tmp_path).matrices
    assert set(matrices) == set(MODES)
    for mode, miou in by_hand(data).items():
        assert matrices[mode].miou() == pytest.approx(miou, abs=1e-9)
    assert matrices["single"].miou() < matrices["single_crf"].miou() < 100


def test_every_labelled_pixel_is_counted_once(data: Prepared, tmp_path: Path) -> None:
    truths = [np.asarray(Image.open(data.label_path(id))) for id in data.ids("test")]
    labelled = np.bincount(np.concatenate([t[t != VOID] for t in truths]), minlength=3)
    for matrix in scored(data, tmp_path).matrices.values():
        assert np.array_equal(matrix.counts.sum(axis=1), labelled)


def test_any_number_of_threads_gives_the_same_integers(data: Prepared, tmp_path: Path) -> None:
    alone = scored(data, tmp_path)
    for workers in (1, 2, 3):
        assert scored(data, tmp_path, workers) == alone


def test_processes_give_the_same_integers(data: Prepared, tmp_path: Path) -> None:
    crf = replace(CRF, backend="pydensecrf")
    assert scored(data, tmp_path, 2, crf=crf) == scored(data, tmp_path, crf=crf)


def test_modes_that_are_one_pass_have_one_result(data: Prepared, tmp_path: Path) -> None:
    tally = scored(data, tmp_path, settings=replace(SETTINGS, scales=[1.0], flip=False))
    assert tally.matrices["ms_flip"] == tally.matrices["single"]
    assert tally.matrices["ms_flip_crf"] == tally.matrices["single_crf"]


def test_images_that_are_left_out_are_in_no_count(data: Prepared, tmp_path: Path) -> None:
    logits = store(data, tmp_path / "logits", ByColour(), SETTINGS)
    trainer = TrainerConfig(workers=0, progress_bar=False)
    first, _ = score(data, logits, logits.ids[:2], SETTINGS, CRF, tmp_path, trainer)
    rest, seconds = score(data, logits, logits.ids[2:], SETTINGS, CRF, tmp_path, trainer)
    assert first + rest == scored(data, tmp_path)
    assert set(seconds.parts) == {
        *("reading", "upsampling", "CRF", "tally", "pictures", "label maps")
    }


def test_pictures_are_saved_for_images_spread_over_the_split(
    data: Prepared, tmp_path: Path
) -> None:
    scored(data, tmp_path)
    folders = sorted((tmp_path / "pictures").iterdir())
    assert [folder.name for folder in folders] == ["scene-1", "scene-3"]
    for folder in folders:
        image = np.asarray(Image.open(data.image_path(folder.name)))
        assert {path.name for path in folder.iterdir()} == {
            f"{name}.png" for name in ("image", "truth", *MODES)
        }
        assert np.array_equal(np.asarray(Image.open(folder / "image.png")), image)
        for path in folder.iterdir():
            assert np.asarray(Image.open(path)).shape == image.shape


def test_no_pictures_where_none_are_asked_for(data: Prepared, tmp_path: Path) -> None:
    scored(data, tmp_path, settings=replace(SETTINGS, pictures=0))
    assert not (tmp_path / "pictures").exists()


@given(st.integers(1, 500), st.integers(0, 20))
def test_spread_indices_are_distinct_and_lie_evenly(length: int, count: int) -> None:
    indices = sorted(spread(length, count))
    assert len(indices) == min(length, count)
    assert all(0 <= index < length for index in indices)
    gaps = np.diff(indices)
    assert not gaps.size or gaps.max() - gaps.min() <= 1


def small_label(data: Prepared) -> None:
    save_label(data.label_path("scene-2"), np.zeros((3, 4), np.uint8))


def wrong_class(data: Prepared) -> None:
    labels = np.asarray(Image.open(data.label_path("scene-2"))).copy()
    labels[2, 2] = 7
    save_label(data.label_path("scene-2"), labels)


def truncated_image(data: Prepared) -> None:
    path = data.image_path("scene-2")
    path.write_bytes(path.read_bytes()[:900])


def missing_label(data: Prepared) -> None:
    data.label_path("scene-2").unlink()


@pytest.mark.parametrize("damage", [small_label, wrong_class, truncated_image, missing_label])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_named(
    data: Prepared, tmp_path: Path, damage: Callable[[Prepared], None], workers: int
) -> None:
    damage(data)
    with pytest.raises(UserError, match=r"scene-2\.png"):
        scored(data, tmp_path, workers=workers)


def test_a_network_of_other_classes_is_refused(data: Prepared, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 classes, data set rectangles has 3"):
        store(data, tmp_path, ByColour((*PALETTE, (1, 2, 3))), SETTINGS)


def test_a_diverged_network_is_named_with_the_image(data: Prepared, tmp_path: Path) -> None:
    network = ByColour()
    network.get_buffer("colours")[1] = torch.nan
    with pytest.raises(UserError, match=r"scene-0\.png: the network's scores are not finite"):
        store(data, tmp_path, network, SETTINGS)


def test_an_image_that_changed_after_the_network_saw_it_is_named(
    data: Prepared, tmp_path: Path
) -> None:
    logits = store(data, tmp_path / "logits", ByColour(), SETTINGS)
    save_label(data.label_path("scene-2"), np.zeros((9, 9), np.uint8))
    Image.new("RGB", (9, 9)).save(data.image_path("scene-2"))
    trainer = TrainerConfig(workers=0, progress_bar=False)
    with pytest.raises(UserError, match=r"scene-2\.png: of another size than the network saw; run"):
        score(data, logits, logits.ids, SETTINGS, CRF, tmp_path, trainer)


def test_a_split_of_void_alone_is_refused(data: Prepared, tmp_path: Path) -> None:
    for id in data.ids("test"):
        shape = np.asarray(Image.open(data.label_path(id))).shape
        save_label(data.label_path(id), np.full(shape, VOID, np.uint8))
    with pytest.raises(UserError, match="every pixel of rectangles is void"):
        scored(data, tmp_path)


@pytest.fixture
def photographs(tmp_path: Path) -> Prepared:
    """Three photographs of the real VOC 2012 val split, with their masks."""
    root = "VOCdevkit/VOC2012"
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with tarfile.open(PHOTOGRAPHS) as archive:

        def content(name: str) -> bytes:
            member = archive.extractfile(f"{root}/{name}")
            assert member is not None
            return member.read()

        ids = content("ImageSets/Segmentation/val.txt").decode().split()[::100]
        for id in ids:
            (tmp_path / "images" / f"{id}.jpg").write_bytes(content(f"JPEGImages/{id}.jpg"))
            (tmp_path / "labels" / f"{id}.png").write_bytes(content(f"SegmentationClass/{id}.png"))
    return Prepared(
        folder=tmp_path,
        name="voc2012",
        classes=tuple(f"class {number}" for number in range(21)),
        palette=tuple((12 * number, 255 - 12 * number, 90) for number in range(21)),
        void=VOID,
        splits={"val": tuple(ids)},
        digest="0" * 64,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        images={id: f"{id}.jpg" for id in ids},
    )


@pytest.mark.real_data
@pytest.mark.skipif(not TRAINED.is_file(), reason=f"{TRAINED} is not here")
@pytest.mark.skipif(not PHOTOGRAPHS.is_file(), reason=f"{PHOTOGRAPHS} is not here")
def test_the_crf_improves_a_trained_network_on_photographs(
    photographs: Prepared, tmp_path: Path
) -> None:
    config = ModelConfig(aspp="no_atrous", weights=str(TRAINED))
    network = build_model(config, num_classes=21).eval()
    load_weights(network, config)
    settings = EvaluateConfig(split="val", scales=[1.0], flip=False, pad_to=513, pictures=0)
    logits = store(photographs, tmp_path / "logits", network, settings)
    for id in logits.ids:
        image = torch.from_numpy(read_image(photographs.image_path(id)).copy()).permute(2, 0, 1)
        wanted = probabilities(network, image / 255, settings).argmax(0).numpy()
        found = logits.probabilities(id, ["single"])["single"].argmax(0)
        assert (found != wanted).mean() < 1e-4  # what 16 bits cost
    trainer = TrainerConfig(progress_bar=False)
    tally, _ = score(photographs, logits, logits.ids, settings, CrfConfig(), tmp_path, trainer)
    single, refined = tally.matrices["single"], tally.matrices["single_crf"]
    assert single.miou() > 60
    assert refined.pixel_accuracy() > single.pixel_accuracy()
