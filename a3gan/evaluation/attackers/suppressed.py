"""An attacker inside the method: reads the suppressed features S_l of A3GAN's encoder, before any face is drawn.

What a result shows passes through S_l; who is still told by S_l could be told by a better reader of results. At alpha =
0 nothing is suppressed and the attacker must recognise: its sanity row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.evaluation.attackers import measures, training
from a3gan.evaluation.attackers.material import Material
from a3gan.evaluation.attackers.originals import attack_originals, judged_originals
from a3gan.evaluation.figures import plain

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.evaluation.features import Features
    from a3gan.evaluation.pictures import View

PLACES = 4  # each level is averaged to this many places a side; finer than a global mean, which is tried as well
HIDDEN = 512


def reaches(anonymizer: FaceAnonymizer) -> bool:
    """Whether a method has suppressed features to read (an ONNX export shows none)."""
    return anonymizer.name == "a3gan" and hasattr(getattr(anonymizer, "model", None), "encoder")


class Levels:
    """S_1 .. S_3 of the encoder at the given dial, `levels` float16 [B, F]: each level's means over 4 x 4 places."""

    def __init__(self, anonymizer: FaceAnonymizer, alpha: float):
        self.anonymizer, self.alpha = anonymizer, alpha
        self.identity = f"levels|{alpha}"

    @torch.inference_mode()
    def __call__(self, view: View, degradation: str) -> Features:
        method = self.anonymizer
        faces = view.aligned(method.frame, method.size).to(method.device)
        maps = method.model.encoder(faces, faces.new_full((len(faces),), self.alpha)).features
        pooled = [F.adaptive_avg_pool2d(x.float(), PLACES).flatten(1) for x in maps]
        return {"levels": torch.cat(pooled, 1).half().cpu().numpy()}


class Regressor(nn.Module):
    """Standardised features [N, F] -> unit embedding [N, E]; coarse: of each channel only the mean over the places."""

    def __init__(self, features: Tensor, width: int, coarse: bool):
        super().__init__()
        self.coarse = coarse
        seen = self._reduced(features)
        self.register_buffer("mean", seen.mean(0))
        self.register_buffer("scale", seen.std(0).clamp_min(1e-3))
        self.layers = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(seen.shape[1], HIDDEN), nn.SiLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, width)
        )

    def _reduced(self, features: Tensor) -> Tensor:
        return features.unflatten(1, (-1, PLACES * PLACES)).mean(2) if self.coarse else features

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.layers((self._reduced(features) - self.mean) / self.scale))


def attack(material: Material, anonymizer: FaceAnonymizer, alpha: float) -> dict[str, Any]:
    """Figures at the evaluation's dial (`none` only: features are no pictures), and at dial 0 alpha0_rank1, alpha0_auc.

    The judged person's features look for the person among the embeddings of originals, the own picture left out.
    """
    f = material.field
    gallery = judged_originals(f)["embedding"]
    figures: dict[str, Any] = {}
    for prefix, dial in (("", alpha), ("alpha0_", 0.0)):
        scorer = {"levels": Levels(anonymizer, dial)}
        key = {**material.key, "dial": dial}
        title = f"{material.name}: suppressed features at {dial:g}"
        tables = [f.collect(o, None, [], key, ["none"], False, title, scorer)["none"] for o in (f.attack, f.judged)]
        attacker, choice = learn(material, tables[0]["levels"])
        with torch.inference_mode():
            vectors = attacker(torch.from_numpy(tables[1]["levels"]).float()).numpy()
        found = plain(measures.recognition(gallery, vectors, f.person, f.cfg.far, *f.draw))
        if prefix:
            figures |= {f"{prefix}{name}": found[name] for name in ("rank1", "auc")}
        else:
            figures |= {**found, "stage": choice}
    return {"none": figures}


def learn(material: Material, levels: np.ndarray) -> tuple[Regressor, str]:
    """The better, on held-out people, of a regressor on the levels' global means and one on 4 x 4 places."""
    f = material.field
    gallery, person, held = attack_originals(f)["embedding"], f.attack_person, ~f.train
    features, rows = torch.from_numpy(levels).float(), torch.from_numpy(np.flatnonzero(f.train))
    wanted = torch.from_numpy(gallery)
    pull = training.against_gallery(gallery, person, f.train)
    draw = training.pair_sampler(torch.from_numpy(person)[rows], rows, f.cfg.attack.batch)
    best: tuple[float, Regressor, str] | None = None
    for choice, coarse in (("means", True), ("places", False)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(f.cfg.seed + 16)
            network = Regressor(features[rows], gallery.shape[1], coarse)

            def loss(picked: Tensor, network: Regressor = network) -> Tensor:
                vectors = network(features[picked])
                return pull(vectors, picked) + 4 * (1 - (vectors * wanted[picked]).sum(1)).mean()

            @torch.no_grad()
            def score(network: Regressor = network) -> float:
                return measures.quick(gallery[held], network(features[held]).numpy(), person[held])

            network.eval()
            title = f"{material.name}: suppressed features, {choice}"
            training.fit(network, loss, draw, f.cfg.attack.suppressed_steps, 1e-3, f.cfg.seed + 17, score, title)
            network.eval()
            if best is None or score() > best[0]:
                best = (score(), network, choice)
    return best[1], best[2]
