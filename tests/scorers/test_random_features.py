"""Untrained features: the same everywhere, spread out, differentiable, independent of the batch."""

import torch

from a3gan.data.synthetic import synthetic_faces
from a3gan.scorers.random_features import RandomFeatures


def test_untrained_features():
    faces = synthetic_faces(8, 64, 1).fetch(list(range(8)))
    torch.manual_seed(1)
    first = RandomFeatures()
    torch.manual_seed(2)
    z = RandomFeatures()(faces)
    assert torch.equal(first(faces), z) and z.shape == (8, 1024)  # whatever the global seed
    assert not any(p.requires_grad for p in first.parameters())
    torch.testing.assert_close(z.norm(dim=1), torch.ones(8))
    torch.testing.assert_close(first(faces[3:4]), z[3:4], atol=1e-5, rtol=0)
    cosine = z @ z.T
    assert cosine[~torch.eye(8, dtype=torch.bool)].mean() < 0.9
    x = faces.clone().requires_grad_()
    first(x)[:, :8].sum().backward()
    assert x.grad.abs().sum() > 0
