"""A recogniser, a detector and a method with a dial and a policy that tests of whole evaluations can afford."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from a3gan.anonymizers.base import FaceAnonymizer
from a3gan.data.attributes import Policy
from a3gan.media.detect import Faces

BOX = np.array([[0.15, 0.1, 0.85, 0.95]], np.float32)  # of a face in its aligned frame, in sides


class StubJudge(torch.nn.Module):
    """Embeds a face as its own pixels, shrunk and centred."""

    fingerprint = "stub:0"

    def forward(self, x: torch.Tensor, frame: str = "face") -> torch.Tensor:
        small = F.adaptive_avg_pool2d(x, 12).flatten(1)
        return F.normalize(small - small.mean(1, keepdim=True))


class StubDetector:
    """Sees one face where the middle of a picture has contrast, or in every picture where it is not `picky`."""

    name = "stub"

    def __init__(self, min_face: int = 40, picky: bool = True):
        self.min_face, self.picky = min_face, picky

    def detect(self, images: list[np.ndarray]) -> list[Faces]:
        found = []
        for image in images:
            side = len(image)
            seen = not self.picky or image[side // 3 : 2 * side // 3].std() > 5
            one = Faces(BOX * side, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))
            found.append(one if seen else Faces.none())
        return found


class StubMethod(FaceAnonymizer):
    """Turns a face into noise of its seed: of the face's own contrast, 1 - alpha remains; darker where the skin's tone
    may change."""

    name, frame, size = "a3gan", "face", 64
    supports = frozenset({"policy", "seed", "alpha"})
    meta = MappingProxyType({"scorers": ["other:1"]})

    def _anonymize(self, faces: torch.Tensor, policy: Policy | None, seeds: list[int], alpha: float) -> torch.Tensor:
        stay = 1 - alpha
        noise = torch.stack([
            F.interpolate(torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed % 2**31)), (64, 64))[0]
            for seed in seeds
        ])  # fmt: skip
        tone = 0.2 if policy is not None and policy.describe()["skin_tone"] == "change" else 0.0
        return (0.5 * (stay * faces + (1 - stay**2) ** 0.5 * 0.5 * noise) - alpha * tone - 0.01).clamp(-1, 1)


def stubbed_run(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of `text` whose run lies in `folder`, with stubs for the judge and the detector and an attribute judge
    of random weights."""
    from a3gan.scorers.attributes import AttributeNetwork

    torch.manual_seed(0)
    network = AttributeNetwork("residual", 8).eval().requires_grad_(False)
    network.family, network.fingerprint = "attributes_residual", "attributes_residual:0"
    monkeypatch.setattr("a3gan.scorers.identity.load_recogniser", lambda path, kind: StubJudge())
    monkeypatch.setattr("a3gan.scorers.attributes.load_attributes", lambda path, device: network)
    monkeypatch.setattr("a3gan.media.detect.load_detector", lambda name, device, min_face: StubDetector(picky=False))
    path = folder / "eval.yaml"
    run = json.dumps(str(folder / "run"))
    path.write_text(text + f"run: {{dir: {run}, device: cpu}}\n", encoding="utf-8")
    return path
