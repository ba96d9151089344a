from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from a3gan.data.ranges import from_pil, to_float, to_pil, to_uint8, upright_rgb


def test_every_byte_survives_the_way_through_float():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    y = to_float(x)
    assert (y.min(), y.max()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(y), x)
    assert torch.equal(to_uint8(torch.tensor([[-3.0, 3.0]])), torch.tensor([[0, 255]], dtype=torch.uint8))


def test_wrong_types_are_refused():
    with pytest.raises(TypeError):
        to_float(torch.zeros(3, 4, 4))
    with pytest.raises(TypeError):
        to_uint8(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(TypeError):
        to_pil(torch.zeros(1, 4, 4, dtype=torch.uint8))


def test_pil_round_trip():
    x = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(from_pil(to_pil(x)), x)


def test_exif_orientation_is_applied(tmp_path):
    # Orientation 6: the camera was turned, the viewer turns the picture by 90 degrees clockwise.
    picture = Image.new("RGB", (20, 10))
    picture.paste((255, 0, 0), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    x = from_pil(Image.open(tmp_path / "turned.png"))
    assert x.shape == (3, 20, 10)
    assert x[0, 0].tolist() == [255] * 10 and x[0, -1].tolist() == [0] * 10


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_white_and_black_stay_so_in_every_mode(mode):
    source = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).resize((32, 16), Image.Resampling.NEAREST)
    if mode in ("I;16", "I"):
        picture = Image.fromarray((np.asarray(source).astype(np.uint16) * 257).astype(np.uint16))
        picture = picture if mode == "I;16" else Image.fromarray(np.asarray(source).astype(np.int32) * 257)
        assert picture.mode == mode
    else:
        picture = source.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr", "P") else source.convert(mode)
    x = from_pil(picture)
    assert x.shape == (3, 16, 32) and x.dtype == torch.uint8
    assert x[:, :, :16].max() <= 1 and x[:, :, 16:].min() >= 254


def test_sixteen_bit_gray_is_scaled_not_clipped():
    picture = Image.fromarray(np.full((16, 16), 128 * 257, dtype=np.uint16))
    assert np.asarray(upright_rgb(picture)).flatten().tolist() == [128] * (16 * 16 * 3)


def test_transparency_is_laid_over_white():
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert from_pil(picture).min() == 255
