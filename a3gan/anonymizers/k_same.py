"""k-same-mean (Newton, Sweeney, Malin, "Preserving privacy by de-identifying face images", IEEE TKDE 2005).

The classic: a face becomes the mean of the k faces most like it. Published, the faces are a closed set with one picture
a person, and each is replaced together with its neighbours, so that every mean stands for at least k of them: a
recogniser that knows the set names the right one in at most 1 of k cases. `k_same_mean` is that algorithm.

The method `k_same` takes one picture at a time, so its gallery is another set, of generated faces. The original is then
not even in the mean, **but the guarantee does not hold**: the neighbours follow from the face, so that two pictures of
one person may get the same ones, and a person at the edge of the gallery may share the mean with nobody. In a clip the
neighbours change with the frame.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from a3gan.anonymizers.base import FaceAnonymizer, pick_device
from a3gan.anonymizers.falco_pool import load_model, load_pool
from a3gan.data.attributes import Policy
from a3gan.errors import UserError

DEFAULT_GALLERY = "falco_64"
VARIANCE = 0.95  # share of the gallery's variance that its eigenfaces hold


class EigenSpace:
    """Principal components of pictures [N, 3, S, S] (eigenfaces), in which faces are compared.

    variance: share that the components kept must reach. Distance: Euclidean between coordinates.
    """

    def __init__(self, pictures: Tensor, variance: float = VARIANCE):
        flat = pictures.flatten(1).double()
        self.mean = flat.mean(0)
        centred = flat - self.mean
        # Of N pictures with D >> N numbers each, the N x N products hold the same directions; in float32, for they are
        # most of the work and only choose the directions.
        products = centred.float() @ centred.float().T
        values, vectors = torch.linalg.eigh(products.double())
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        share = values.cumsum(0) / values.sum().clamp_min(1e-12)
        rank = min(int((share < variance).sum()) + 1, len(values))
        able = values[:rank] > 1e-6 * values[0].clamp_min(1e-12)
        self.axes = (centred.T @ vectors[:, :rank][:, able]) / values[:rank][able].sqrt()
        self.coordinates = centred @ self.axes  # [N, K]

    def distances(self, faces: Tensor) -> Tensor:
        """Of faces [n, 3, S, S] to every picture: [n, N]."""
        own = (faces.flatten(1).double() - self.mean) @ self.axes
        # Not torch.cdist: it multiplies matrices for large inputs, and rows would depend on their batch.
        return torch.stack([(self.coordinates - row).square().sum(1) for row in own]).sqrt()


def k_same_mean(faces: Tensor, k: int, variance: float = VARIANCE) -> Tensor:
    """The closed set's algorithm: pictures [N, 3, S, S], one a person, -> each replaced by its cluster's mean.

    The first face left and the k - 1 of those left that are nearest to it (`EigenSpace`) become one cluster, until
    fewer than 2k are left: they are the last cluster. So every picture of the result stands there at least k times, and
    nobody who knows the set can name one with more than 1/k.

    Raises UserError: k below 1, or fewer than k faces.
    """
    if not 1 <= k <= len(faces):
        raise UserError(f"method k_same: k = {k} needs k or more faces; the set has {len(faces)}")
    space, result = EigenSpace(faces, variance), torch.empty_like(faces)
    left = torch.arange(len(faces), device=faces.device)
    while len(left):
        cluster = left
        if len(left) >= 2 * k:
            distance = (space.coordinates[left] - space.coordinates[left[0]]).norm(dim=1)
            distance[0] = -1.0  # itself, also where another is the same picture
            cluster = left[distance.argsort(stable=True)[:k]]
        result[cluster] = faces[cluster].mean(0)
        left = left[~torch.isin(left, cluster)]
    return result


class KSame(FaceAnonymizer):
    """The mean of the k faces of a gallery nearest to the face, as eigenfaces measure it. No seed, no policy.

    Args:
        weights: a pool of generated faces (see `falco_pool`), path or shipped name; drawn at the start, it is the
            gallery. Pictures of people serve none: their faces would be in the result.
        device: None or 'auto' = cuda where there is one.
        k: faces a mean, 10 by default; 1 = the nearest generated face itself.
        model: the A3GAN checkpoint that draws the pool, where it is neither shipped nor beside it.

    Raises UserError: missing or unmatched files, k out of range.
    """

    name = "k_same"
    synthesises = True

    def __init__(
        self, weights: str | Path = DEFAULT_GALLERY, device: str | torch.device | None = None, *, k: int = 10,
        model: str | Path | None = None,
    ):  # fmt: skip
        self.device = pick_device(device)
        pool, self.meta, self.path = load_pool(weights)
        if not 1 <= k <= len(pool):
            raise UserError(f"method k_same: k {k}: must be from 1 to the gallery's {len(pool)} faces")
        drawing = load_model(self.meta, self.path, model, self.device)
        self.frame, self.size, self.k = drawing.frame, drawing.size, k
        self.meta = self.meta | {"scorers": drawing.meta.get("scorers", [])}
        parts = torch.arange(len(pool), device=self.device).split(64)
        pool = pool.to(self.device)
        self.gallery = torch.cat([pool.render(drawing.model.generator, part) for part in parts])
        self.space = EigenSpace(self.gallery.cpu())  # in float64, which not every device has

    @torch.no_grad()
    def _anonymize(self, faces: Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> Tensor:
        nearest = self.space.distances(faces.cpu()).topk(self.k, largest=False).indices
        return torch.stack([self.gallery[rows].mean(0) for rows in nearest.to(self.device)])
