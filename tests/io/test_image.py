"""Images: values, sizes, and what happens with broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import UserError
from common.io.image import check_image, image_size, read_mask, read_rgb, to_uint8, write_image

HEIGHT, WIDTH = 5, 7


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def test_written_image_comes_back_exactly(tmp_path, pixels):
    path = tmp_path / "new" / "image.png"
    write_image(path, pixels)
    image = read_rgb(path, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(to_uint8(image), pixels)
    np.testing.assert_allclose(image.numpy(), pixels.transpose(2, 0, 1) / 255.0, atol=1e-7)
    assert check_image(path) == image_size(path) == (HEIGHT, WIDTH)
    assert [p.name for p in path.parent.iterdir()] == ["image.png"]


def test_values_are_rounded_not_truncated_and_clamped():
    image = torch.tensor([0.499 / 255, 0.501 / 255, 254.6 / 255, -1.0, 2.0]).reshape(1, 1, 5)
    assert to_uint8(image)[0, :, 0].tolist() == [0, 1, 255, 0, 255]
    assert to_uint8(image).shape == (1, 5, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_every_8_bit_kind_loads_as_rgb(tmp_path, mode):
    source = Image.fromarray(np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)).convert(mode)
    source.save(tmp_path / "image.png")
    assert torch.equal(read_rgb(tmp_path / "image.png"), torch.ones(3, HEIGHT, WIDTH))


def test_transparency_is_dropped_not_blended(tmp_path):
    Image.new("RGBA", (WIDTH, HEIGHT), (10, 20, 30, 0)).save(tmp_path / "image.png")
    assert (to_uint8(read_rgb(tmp_path / "image.png")) == (10, 20, 30)).all()


def test_16_bit_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype=np.uint16)).save(tmp_path / "image.png")
    for read in (read_rgb, check_image):
        with pytest.raises(UserError, match="8-bit"):
            read(tmp_path / "image.png")


def test_mask_is_foreground_where_channel_0_is_over_half(tmp_path):
    values = np.zeros((1, 4, 3), dtype=np.uint8)
    values[0, :, 0] = (0, 127, 128, 255)
    values[0, :, 1] = (255, 255, 0, 0)
    write_image(tmp_path / "mask.png", values)
    assert read_mask(tmp_path / "mask.png").tolist() == [[[0, 0, 1, 1]]]


def test_wrong_size_and_missing_file_are_named(tmp_path, pixels):
    write_image(tmp_path / "image.png", pixels)
    for read in (read_rgb, read_mask, check_image):
        with pytest.raises(UserError, match=r"image\.png is 7 x 5 .* expected 6 x 5"):
            read(tmp_path / "image.png", (5, 6))
        with pytest.raises(UserError, match=r"missing file: .*other\.png"):
            read(tmp_path / "other.png")


# The last 4 bytes are the checksum of the empty end marker: without them all pixels are still there.
@pytest.mark.parametrize("n_lost", [5, 12, 16, 40, 100])
def test_truncation_is_found_without_decoding(tmp_path, pixels, n_lost):
    path = tmp_path / "image.png"
    write_image(path, pixels)
    path.write_bytes(path.read_bytes()[:-n_lost])
    with pytest.raises(UserError, match=r"image\.png is truncated"):
        check_image(path)


def test_changed_byte_is_found_by_the_check(tmp_path, pixels):
    path = tmp_path / "image.png"
    write_image(path, pixels)
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"image\.png is truncated or not an image"):
        check_image(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_images_load_or_are_user_errors(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "image.png"
    write_image(path, np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    _load_or_refuse(path)


def _load_or_refuse(path: Path) -> None:
    for read in (check_image, read_rgb, read_mask, image_size):
        try:
            read(path)
        except UserError as error:
            assert path.name in str(error)
