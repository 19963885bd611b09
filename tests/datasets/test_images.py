import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from pipeline.datasets.images import (
    read_colours,
    read_image,
    read_label,
    read_numbers,
    read_picture,
)
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


def test_prepared_mask_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(NUMBERS.astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: the mask is of mode I;16"):
        read_label(tmp_path / "a.png")


@pytest.mark.parametrize("scale", [1, 300])
def test_delivered_mask_may_have_sixteen_bits(tmp_path: Path, scale: int) -> None:
    numbers = NUMBERS.astype(np.uint16) * scale
    Image.fromarray(numbers).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.png"), numbers)


def test_delivered_mask_may_have_two_values(tmp_path: Path) -> None:
    Image.fromarray(NUMBERS > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.png"), NUMBERS > 100)


@pytest.mark.parametrize("read", [read_numbers, read_colours])
def test_jpeg_mask_is_refused(tmp_path: Path, read: Callable[[Path], np.ndarray]) -> None:
    Image.fromarray(NUMBERS).save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg: the mask is a JPEG, which blurs classes"):
        read(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA"])
def test_colours_of_a_mask_are_read_from_any_kind(tmp_path: Path, mode: str) -> None:
    few = RGB // 128 * 255
    image = Image.fromarray(few)
    (image.quantize(8) if mode == "P" else image.convert(mode)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_colours(tmp_path / "a.png"), few)


def plain(path: Path) -> bool:
    """Whether a file is taken over as it is; its pixels are read by Pillow again to compare."""
    picture = read_picture(path)
    if picture.plain:
        np.testing.assert_array_equal(picture.upright, np.asarray(Image.open(path)))
    assert picture.upright.dtype == np.uint8
    assert picture.upright.shape[2] == 3
    return picture.plain


def test_only_upright_rgb_of_eight_bits_is_taken_over_as_it_is(tmp_path: Path) -> None:
    image, path = Image.fromarray(RGB), tmp_path / "a"
    for suffix in ("png", "jpg", "bmp"):
        image.save(path.with_suffix(f".{suffix}"))
        assert plain(path.with_suffix(f".{suffix}"))
    for mode in ("1", "L", "LA", "P", "RGBA"):
        image.convert(mode).save(path.with_suffix(".png"))
        assert not plain(path.with_suffix(".png"))
    image.convert("CMYK").save(path.with_suffix(".jpg"))
    assert not plain(path.with_suffix(".jpg"))
    for suffix in ("tiff", "webp"):
        image.save(path.with_suffix(f".{suffix}"), lossless=True)
        assert not plain(path.with_suffix(f".{suffix}"))
        np.testing.assert_array_equal(read_image(path.with_suffix(f".{suffix}")), RGB)


def test_sixteen_bits_of_grey_become_eight(tmp_path: Path) -> None:
    grey = RGB[..., 0].astype(np.uint16) * 256 + 200
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB[..., :1].repeat(3, axis=2))
    assert not plain(tmp_path / "a.png")


def test_sixteen_bits_of_colour_become_eight(tmp_path: Path) -> None:
    """Pillow writes no such PNG: one is put together by hand."""
    rows = (RGB.astype(np.uint16) * 256 + 200).astype(">u2").tobytes()
    lines = b"".join(b"\0" + rows[at : at + 300] for at in range(0, len(rows), 300))
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 50, 40, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(lines),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks.items():
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    (tmp_path / "a.png").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    assert not plain(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_turned_image_becomes_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    """The camera's note says where the stored image's first row and column are to be seen."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(RGB)
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    picture = read_picture(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(picture.upright, expected)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), expected)
    assert picture.stored.shape == RGB.shape
    assert picture.plain == (orientation == 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_note_of_the_camera_does_no_harm(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01")
    assert read_image(tmp_path / "a.jpg").shape == RGB.shape


def test_kind_of_pixels_that_cannot_become_rgb_is_named(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=r"a\.tiff: pixels of mode F, expected RGB or grey"):
        read_image(tmp_path / "a.tiff")


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
