import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import Config, CrfConfig, EvaluateConfig, ModelConfig, TrainerConfig
from pipeline.errors import UserError
from pipeline.evaluation.server import CITYSCAPES_IDS, SERVERS, VOC_CLASSES
from pipeline.inference.crf import refine
from pipeline.inference.search.outcome import write_settings
from pipeline.inference.submission import find_images, submit
from pipeline.inference.whole_image import SINGLE, probabilities
from pipeline.models.checkpoint import load_network, save_network
from pipeline.models.network import build_model

CONFIG = Config(
    evaluate=EvaluateConfig(scales=[0.5, 1.0]),
    trainer=TrainerConfig(accelerator="cpu", workers=1, progress_bar=False),
)
CRF = CrfConfig(sigma_alpha=10, sigma_beta=10, iterations=2)
IDS = ("berlin_000000_000019", "bonn_000003_000019")


def run_of(classes: list[str], folder: Path) -> Path:
    """A run's folder with a small network of random weights and settings of the CRF."""
    torch.manual_seed(0)
    model = ModelConfig(aspp="no_atrous", aspp_channels=8)
    network = build_model(model, len(classes))
    save_network(folder / "model.ckpt", network, model, {"classes": classes})
    write_settings(folder / "crf", CRF)
    return folder


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    return run_of(list(CITYSCAPES_IDS), tmp_path / "run")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Test images as Cityscapes delivers them, in a folder a city, and a file that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "leftImg8bit" / "test"
    for place, id in enumerate(IDS):
        path = folder / id.split("_")[0] / f"{id}_leftImg8bit.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (33, 40 + place, 3)).astype(np.uint8)).save(path)
    (folder / "license.txt").write_text("")
    return folder


def packed(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        return {
            name: np.asarray(Image.open(archive.open(name))) for name in sorted(archive.namelist())
        }


@pytest.mark.parametrize("mode", ["single", "single_crf", "ms_flip"])
def test_what_is_packed_is_what_the_network_predicts(
    cityscapes: Path, images: Path, mode: str
) -> None:
    said = submit(CONFIG, cityscapes, "cityscapes", images, None, mode)
    path = cityscapes / "submission" / "cityscapes.zip"
    assert said == f"2 images, {mode}, for cityscapes; its test set has 1525: {path}"
    network = load_network(cityscapes / "model.ckpt")
    numbers = np.array(list(CITYSCAPES_IDS.values()))
    files = packed(path)
    assert list(files) == [f"{id}_pred_labelIds.png" for id in IDS]
    for id, labels in zip(IDS, files.values(), strict=True):
        image = np.array(Image.open(find_images(images, SERVERS["cityscapes"])[id]))
        pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        evaluate = CONFIG.evaluate if mode == "ms_flip" else SINGLE
        maps = probabilities(network, pixels, evaluate).numpy()
        expected = refine(image, maps, CRF) if mode.endswith("crf") else maps.argmax(axis=0)
        assert np.array_equal(labels, numbers[expected])


def test_a_list_names_the_images_of_voc(tmp_path: Path, images: Path) -> None:
    run = run_of(list(VOC_CLASSES), tmp_path / "voc")
    name = f"{IDS[1]}_leftImg8bit"
    (tmp_path / "test.txt").write_text(f"{name}\n")
    submit(CONFIG, run, "voc2012", images, tmp_path / "test.txt", "single")
    with tarfile.open(run / "submission" / "voc2012-comp6.tgz") as archive:
        assert archive.getnames() == [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png"]
    (tmp_path / "test.txt").write_text("2008_000006\n")
    with pytest.raises(UserError, match=r"2008_000006 of .*test\.txt is not there"):
        find_images(images, SERVERS["voc2012"], tmp_path / "test.txt")
    with pytest.raises(UserError, match=r"gone\.txt: no such list"):
        find_images(images, SERVERS["voc2012"], tmp_path / "gone.txt")


def test_a_folder_without_images_or_with_twins_is_refused(tmp_path: Path, images: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images \(\*_leftImg8bit"):
        find_images(tmp_path / "empty", SERVERS["cityscapes"])
    twin = images / "elsewhere" / f"{IDS[0]}_leftImg8bit.png"
    twin.parent.mkdir()
    twin.write_bytes(b"")
    with pytest.raises(UserError, match="has the same id"):
        find_images(images, SERVERS["cityscapes"])


def test_a_network_of_other_classes_is_refused(tmp_path: Path, images: Path) -> None:
    run = run_of(["background", "disc"], tmp_path / "run")
    with pytest.raises(UserError, match="no class background, disc"):
        submit(CONFIG, run, "cityscapes", images, None, "single")
    assert not list((run / "submission").glob("*"))
