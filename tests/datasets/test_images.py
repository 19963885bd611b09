from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.images import read_image, read_label
from pipeline.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
NUMBERS = np.arange(2000, dtype=np.uint8).reshape(40, 50)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_image_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), RGB)


def test_grey_image_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "bmp"])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_mask_is_read_as_class_numbers(tmp_path: Path, suffix: str, mode: str) -> None:
    mask = Image.fromarray(NUMBERS)
    if mode == "P":
        # A palette whose colours are not the numbers.
        mask.putpalette([(7 * value) % 256 for value in range(768)])
    mask.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_label(tmp_path / f"a.{suffix}"), NUMBERS)


def test_rgb_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: the mask is an RGB picture, .* class numbers"):
        read_label(tmp_path / "a.png")


def test_sixteen_bit_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(NUMBERS.astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: the mask is of mode I;16"):
        read_label(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: pixels of mode I;16"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.01, 0.0])
def test_truncated_file_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match=rf"a\.{suffix}: truncated or not an image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.png: the file is missing"):
        read_image(tmp_path / "a.png")
