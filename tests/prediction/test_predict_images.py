import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from small_run import CLASSES, PALETTE, picture, save_run

from pipeline.config import CrfConfig
from pipeline.errors import UserError
from pipeline.inference.crf import refine
from pipeline.prediction.places import find_images
from pipeline.prediction.predict import Wanted, predict
from pipeline.prediction.predictor import Predictor
from pipeline.prediction.trained import find_trained

CRF = CrfConfig(sigma_alpha=10, sigma_beta=10, iterations=2)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = save_run(tmp_path_factory.mktemp("runs") / "small")
    return Predictor(find_trained(str(folder)), "cpu")


def wanted(predictor: Predictor, out: Path, crf: CrfConfig | None = None) -> Wanted:
    return Wanted(out, predictor.trained.passes(), PALETTE, crf, probabilities=crf is not None)


def run(predictor: Predictor, folder: Path, out: Path) -> int:
    return predict(predictor, find_images([folder], out), wanted(predictor, out), bar=False)


def labels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_label_map_holds_class_numbers_in_the_classes_colours(
    predictor: Predictor, tmp_path: Path
) -> None:
    picture().save(tmp_path / "a.png")
    assert run(predictor, tmp_path, tmp_path / "out") == 0
    written = Image.open(tmp_path / "out" / "labels" / "a.png")
    assert written.mode == "P" and written.size == (131, 155)
    values = np.asarray(written)
    expected = predictor.labels(np.asarray(picture()), predictor.trained.passes())
    np.testing.assert_array_equal(values, expected)
    assert set(np.unique(values)) == set(range(len(CLASSES)))
    colours = np.array(PALETTE, dtype=np.uint8)[values]
    np.testing.assert_array_equal(np.asarray(written.convert("RGB")), colours)
    over = np.asarray(Image.open(tmp_path / "out" / "overlays" / "a.png"))
    np.testing.assert_allclose(over, 0.4 * np.asarray(picture()) + 0.6 * colours, atol=1)


def test_every_kind_of_image_is_predicted_as_the_user_sees_it(
    predictor: Predictor, tmp_path: Path
) -> None:
    image = picture()
    grey = image.convert("L")
    kinds = tmp_path / "kinds"
    kinds.mkdir()
    image.save(kinds / "rgb.png")
    image.convert("RGBA").save(kinds / "rgba.png")
    grey.save(kinds / "grey.png")
    deep = np.asarray(grey).astype(np.uint16) * 257
    Image.fromarray(deep).save(kinds / "deep.png")
    Image.fromarray(deep).save(kinds / "deep.tif")
    note = Image.Exif()
    note[ExifTags.Base.Orientation] = 6  # to be turned clockwise by a quarter
    image.transpose(Image.Transpose.ROTATE_90).save(kinds / "turned.png", exif=note)
    picture(1, 1).save(kinds / "dot.png")
    picture(200, 3).save(kinds / "flat.png")
    out = tmp_path / "out"
    assert run(predictor, kinds, out) == 0
    colour, dark = labels(out / "labels/rgb.png"), labels(out / "labels/grey.png")
    for name in ("rgba", "turned"):
        np.testing.assert_array_equal(labels(out / f"labels/{name}.png"), colour)
    for name in ("deep.png", "deep.tif"):
        np.testing.assert_array_equal(labels(out / f"labels/{name}.png"), dark)
    assert labels(out / "labels/dot.png").shape == (1, 1)
    assert labels(out / "labels/flat.png").shape == (3, 200)


def test_with_the_crf_the_labels_are_refined_and_the_probabilities_are_the_networks(
    predictor: Predictor, tmp_path: Path
) -> None:
    picture().save(tmp_path / "a.png")
    out = tmp_path / "out"
    asked = wanted(predictor, out, CRF)
    assert predict(predictor, find_images([tmp_path], out), asked, bar=False) == 0
    maps = predictor.probabilities(np.asarray(picture()), asked.passes).numpy()
    refined = refine(np.asarray(picture()), maps, CRF)
    np.testing.assert_array_equal(labels(out / "labels/a.png"), refined)
    assert (refined != maps.argmax(axis=0)).any()
    kept = np.load(out / "probabilities/a.npz")["probabilities"]
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept, maps, atol=1e-3)


def test_the_crf_takes_images_of_a_pixel_and_of_a_line(
    predictor: Predictor, tmp_path: Path
) -> None:
    for size in ((1, 1), (200, 1), (3, 90)):
        picture(*size).save(tmp_path / f"{size[0]}.png")
    asked = wanted(predictor, tmp_path / "out", CRF)
    assert predict(predictor, find_images([tmp_path], tmp_path / "out"), asked, bar=False) == 0
    assert labels(tmp_path / "out/labels/200.png").shape == (1, 200)


def test_a_broken_file_is_named_and_the_others_are_predicted(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture().save(tmp_path / "a.png")
    picture().save(tmp_path / "z.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    out = tmp_path / "out"
    assert run(predictor, tmp_path, out) == 3
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == [
        str(tmp_path / name) for name in ("cut.png", "empty.png", "text.jpg")
    ]
    there = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    names = [f"{kind}/{id}.png" for kind in ("labels", "overlays") for id in "az"]
    assert there == ["classes.json", *names]


def test_names_mirror_the_folders_and_none_overwrites_another(tmp_path: Path) -> None:
    for name in ("b/x.jpg", "b/x.png", "b/deep/x.png", "c/x.JPEG", "c/x.jpg.bmp", "c/x.jpg"):
        path = tmp_path / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "a" / "notes.txt").touch()

    def names(*given: str) -> list[str]:
        found = find_images([tmp_path / name for name in given], tmp_path / "out")
        return sorted(name.as_posix() for name in found.values())

    assert names("a/b/deep/x.png") == ["x"]
    assert names("a/b/x.jpg", "a/c/x.jpg") == ["b/x", "c/x"]
    assert names("a/b") == ["deep/x", "x.jpg", "x.png"]
    assert names("a/b", "a/b/x.jpg") == ["deep/x", "x.jpg", "x.png"]
    # x.jpg.bmp without its suffix is what x.jpg is called because of x.JPEG.
    assert names("a/c") == ["x.JPEG", "x.jpg", "x.jpg.bmp"]


def test_earlier_predictions_are_no_images(predictor: Predictor, tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    for out in (tmp_path / "predictions", tmp_path):
        run(predictor, tmp_path, out)
        assert next(iter(find_images([tmp_path], out).values())).as_posix() == "a"
        assert (out / "labels" / "a.png").is_file()
        for folder in ("labels", "overlays"):
            for path in (out / folder).glob("*"):
                path.unlink()


def test_relative_paths_and_links_are_taken_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.png").touch()
    os.symlink(tmp_path / "real" / "1.png", tmp_path / "linked.png")
    monkeypatch.chdir(tmp_path)
    found = find_images([Path("linked.png"), Path("./real/../real")], Path("out"))
    assert sorted(name.as_posix() for name in found.values()) == ["linked", "real/1"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.png: no such file"):
        find_images([tmp_path / "nowhere.png"], tmp_path / "out")
    with pytest.raises(UserError, match="no images in this folder"):
        find_images([tmp_path], tmp_path / "out")


def test_an_image_beyond_the_memory_is_named_with_the_remedy(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture().save(tmp_path / "a.png")
    picture(33, 33).save(tmp_path / "b.png")

    class Small(Predictor):
        """Runs out of memory as torch does on the CPU."""

        def __init__(self) -> None:
            self.trained, self.network = predictor.trained, predictor.network
            self.device = predictor.device

        def probabilities(self, image, passes):  # type: ignore[no-untyped-def]
            if image.shape[0] > 33:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")
            return super().probabilities(image, passes)

    assert run(Small(), tmp_path, tmp_path / "out") == 1
    assert "a.png: 131 x 155 pixels do not fit into the memory" in capsys.readouterr().err
    assert (tmp_path / "out" / "labels" / "b.png").is_file()


def test_memory_holds_a_few_images_however_many_there_are(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        picture(33, 33).save(tmp_path / f"{number}.png")
    alive, most = 0, 0

    class Counted:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    import pipeline.prediction.predict as module

    def items(*given: object) -> Iterator[module.Seen | module.Failure]:
        for one in run_network(*given):  # type: ignore[arg-type]
            object.__setattr__(one, "counted", Counted())
            yield one

    run_network = module._run
    monkeypatch.setattr(module, "_run", items)
    assert run(predictor, tmp_path, tmp_path / "out") == 0
    assert 1 <= most <= 8 and alive <= 1
