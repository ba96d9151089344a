import pytest
import torch

from a3gan.anonymizers.base import face_seed, pick_device
from a3gan.anonymizers.classic import Blur, Identity, Pixelate, Solid, gaussian_blur, mosaic
from a3gan.anonymizers.methods import METHODS, create
from a3gan.data.attributes import Policy
from a3gan.errors import UserError
from a3gan.models.injection import seed_codes

CLASSIC = [Blur, Pixelate, Solid, Identity]


def faces(n=3, size=64):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(n)) * 2 - 1


@pytest.mark.parametrize("kind", CLASSIC)
def test_contract(kind):
    method = kind(size=64, device="cpu")
    x = faces()
    out = method.anonymize(x, seeds=[1, 2, 3])
    assert out.shape == x.shape and out.dtype == torch.float32 and out.abs().max() <= 1
    alone = torch.cat([method.anonymize(x[i : i + 1], seeds=[7]) for i in range(3)])
    assert (out - alone).abs().max() <= 1e-5
    assert method.anonymize(x[:0], seeds=[]).shape == (0, 3, 64, 64)


@pytest.mark.parametrize("kind", CLASSIC)
def test_what_is_not_supported_raises(kind):
    method = kind(size=64, device="cpu")
    with pytest.raises(UserError, match="policy"):
        method.anonymize(faces(), policy=Policy())
    with pytest.raises(UserError, match="alpha"):
        method.anonymize(faces(), alpha=0.5)
    with pytest.raises(UserError, match="2 seeds for 3"):
        method.anonymize(faces(), seeds=[1, 2])
    with pytest.raises(UserError, match="64x64"):
        method.anonymize(faces(size=32))
    with pytest.raises(UserError, match="float"):
        method.anonymize(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_mosaic_is_the_mean_of_each_cell():
    x = faces(1)
    out = mosaic(x, 8)
    torch.testing.assert_close(out[0, 1, 8:16, 24:32], x[0, 1, 8:16, 24:32].mean().expand(8, 8))
    # A face is three quarters of the frame wide: 6 cells a face are 8 a frame.
    torch.testing.assert_close(Pixelate(size=64, device="cpu").anonymize(x), out)


def test_blur_keeps_the_mean_and_kills_detail():
    flat = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, 5.0), flat)
    x = faces(1)
    assert Blur(size=64, device="cpu").anonymize(x).std() < 0.1 * x.std()


def test_solid_and_identity():
    x = faces(2)
    assert (Solid(size=64, colour=-1.0, device="cpu").anonymize(x) == -1).all()
    assert torch.equal(Identity(size=64, device="cpu").anonymize(x), x)


def test_methods_by_name():
    assert {"a3gan", "blur", "pixelate", "solid", "identity"} <= set(METHODS)
    assert create("pixelate", size=64, cells=4, device="cpu").cells == 4
    with pytest.raises(UserError, match="'pixelate'"):
        create("pixellate")
    with pytest.raises(UserError, match="blur"):
        create("blur", sigma=2)


def test_seeds_are_known_values_and_noise_is_per_seed():
    # The first 63 bits of sha256("0:0"): another rule would change every anonymised picture.
    assert face_seed(0, 0) == 6213027144842677344
    assert face_seed(0, 0) != face_seed(0, 1) != face_seed(1, 0)
    assert face_seed("key", 7) == face_seed("key", "7") and 0 <= face_seed("key", 7) < 2**63
    z = seed_codes([5, 6, 5], 64)
    assert torch.equal(z[0], z[2]) and not torch.equal(z[0], z[1])
    assert torch.equal(seed_codes([6], 64)[0], z[1])
    assert seed_codes([-1, 2**64 + 3], 8).isfinite().all()


def test_device_names():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="abacus"):
        pick_device("abacus")
