"""Pictures get smaller, and look the same."""

import io

import numpy as np
from PIL import Image

from alignlab.plots.png import compressed


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_few_colours_stay_as_they_are():
    colours = np.array([[0, 114, 178], [213, 94, 0], [255, 255, 255]], np.uint8)
    pixels = colours[np.arange(60 * 80).reshape(60, 80) % 3]
    small = compressed(_png(pixels))
    assert np.array_equal(_pixels(small), pixels)
    assert len(small) < len(_png(pixels)) / 10
    assert compressed(small) == small


def test_shades_move_by_a_few_steps_and_what_is_transparent_becomes_white():
    shades = np.zeros((64, 256, 4), np.uint8)
    shades[..., :3] = np.arange(256)[None, :, None]
    shades[32:, :, 3] = 255
    seen = _pixels(compressed(_png(shades)))
    assert np.all(seen[:32] == 255)
    assert np.abs(seen[32:] - shades[32:, :, :3].astype(int)).max() <= 4


def test_it_never_grows():
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", optimize=True)
    assert len(compressed(file.getvalue())) <= len(file.getvalue())
