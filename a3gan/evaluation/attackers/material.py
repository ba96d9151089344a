"""What all attackers on one evaluation share: the two sets of people and the features of each method, cached."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan.evaluation import features as feat
from a3gan.evaluation.attackers import budget
from a3gan.evaluation.attackers.scorers import Code, Pixels, Seen
from a3gan.evaluation.pictures import Originals, View, degraded

if TYPE_CHECKING:
    from a3gan.evaluation.attackers.training import Learned
    from a3gan.evaluation.protocol import EvalConfig
    from a3gan.scorers.attributes import AttributeNetwork
    from a3gan.scorers.identity import Recogniser

log = logging.getLogger(__name__)

VERSION = 1  # raise it when an attacker changes: its cached figures are then computed anew
ORDER = ("none", "jpeg75", "half")

Applied = Callable[[Originals, list[int], list[int]], tuple[View, np.ndarray]]  # originals, rows, their seeds


@dataclass
class Field:
    """Judged people and attack people, and what the attackers may use."""

    cfg: EvalConfig
    judged: Originals
    attack: Originals
    recogniser: Recogniser
    judge: str  # its name in the tables
    attributes: AttributeNetwork | None
    device: torch.device
    person: np.ndarray = field(init=False)  # of the judged pictures
    attack_person: np.ndarray = field(init=False)
    train: np.ndarray = field(init=False)  # which attack pictures train; the others choose
    digests: tuple[str, str] = field(init=False)
    untouched: dict[str, feat.Features] = field(default_factory=dict, init=False)  # see `originals`

    def __post_init__(self) -> None:
        budget.assert_apart(self.attack.faces, self.judged.faces)
        self.person = self.judged.faces.identity.numpy()
        self.attack_person = self.attack.faces.identity.numpy()
        self.train = ~budget.held_out(self.attack_person, self.cfg.seed)
        self.digests = (self.judged.digest(), self.attack.digest())

    @property
    def draw(self) -> tuple[int, int]:
        """Replicates and seed of the intervals."""
        return self.cfg.bootstrap, self.cfg.seed

    @property
    def folder(self) -> Path:
        return self.cfg.run_dir / "cache" / "attack"

    def scorers(self, training: bool) -> dict[str, Any]:
        """Small features, kept; and maps and pixels, large, which are removed when a method is done."""
        parts = ("whole", "background") if training else ("whole", "background", "face")
        result: dict[str, Any] = {"seen": Seen(self.recogniser, self.device, parts=parts)}
        if {"inversion", "parrot", "adaptive", "linkability"} & set(self.cfg.attackers):
            result["pixels"] = Pixels()
        if self.attributes is not None and "soft" in self.cfg.attackers:
            result["code"] = Code(self.attributes, self.device)
        return result

    def collect(
        self, originals: Originals, made: Applied | None, seeds: Sequence[int], key: dict[str, Any],
        degradations: Sequence[str], training: bool, title: str, scorers: dict[str, Any] | None = None,
    ) -> dict[str, feat.Features]:  # fmt: skip
        """Features by degradation ("mixed" for training: one after another), all scorers' in one dict.

        made: None for the originals themselves.
        """
        mixed = training and made is not None and self.cfg.attack.mixed

        def source(rows: list[int]) -> tuple[View, np.ndarray]:
            if made is None:
                return originals.view(rows), np.zeros(len(rows), bool)
            view, failed = made(originals, rows, [seeds[i] for i in rows])
            return (turned(view, rows) if mixed else view), failed

        key = {**key, "data": originals.digest(), "mixed": mixed, "seed": self.cfg.seed}
        scorers = self.scorers(training) if scorers is None else scorers
        folder, batch = self.folder / "features", self.cfg.run.batch
        found = feat.collect(source, len(originals.faces), scorers, degradations, key, folder, batch, title)
        result = {}
        for degradation in degradations:
            result[degradation] = {k: v for name in scorers for k, v in found[degradation, name].items()}
            result[degradation]["mosaicked"] = found["none", "mosaicked"]["mosaicked"]
        return result


def turned(view: View, rows: list[int]) -> View:
    """Each picture with one of the three degradations, by its row's number: what an attacker trains on."""
    pictures, points = list(view.pictures), np.array(view.points, dtype=np.float64)
    for number, name in enumerate(ORDER):
        at = [i for i, row in enumerate(rows) if row % len(ORDER) == number]
        if name == "none" or not at:
            continue
        part = degraded(View([pictures[i] for i in at], points[at]), name)
        for place, i in enumerate(at):
            pictures[i], points[i] = part.pictures[place], part.points[place]
    return View(pictures, points)


@dataclass
class Material:
    """One method as the attackers meet it. Features are made at first use, so that a cached figure costs nothing."""

    field: Field
    name: str
    applied: Applied | None  # None: the originals themselves (`identity`)
    key: dict[str, Any]
    keyed: bool  # whether it has a seed
    degradations: tuple[str, ...] = ORDER
    _made: dict[str, Any] = field(default_factory=dict)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def training(self) -> feat.Features:
        """Features of the results on the attack people, in mixed degradations."""
        f = self.field
        seeds = seeds_of(f.attack, f"attack:{f.cfg.seed}")
        title = f"{self.name}: attack people"
        make = lambda: f.collect(f.attack, self.applied, seeds, self.key, ["none"], True, title)["none"]  # noqa: E731
        return self._once("training", make)

    def results(self, degradation: str) -> feat.Features:
        """Features of the results on the judged people, a key for each picture."""
        f = self.field
        seeds = seeds_of(f.judged, str(f.cfg.seed))
        title = f"{self.name}: judged people"
        every = self._once(
            "results", lambda: f.collect(f.judged, self.applied, seeds, self.key, self.degradations, False, title)
        )
        return every[degradation]

    def results_with(self, label: str, seeds: list[int], degradations: Sequence[str]) -> dict[str, feat.Features]:
        """The recogniser's features of the results with other keys, by degradation."""
        f = self.field
        key, title = {**self.key, "keys": label}, f"{self.name}: {label}"
        seen = {"seen": Seen(f.recogniser, f.device, parts=("whole",)), "pixels": Pixels()}
        return self._once(
            f"keys:{label}:{','.join(degradations)}",
            lambda: f.collect(f.judged, self.applied, seeds, key, degradations, False, title, seen),
        )

    def learned(self, name: str, make: Callable[[], Learned]) -> Learned:
        """A trained attacker, once a run: P8 uses what P5 learned."""
        return self._once(f"learned:{name}", make)

    def probe(self) -> str:
        """Hash of the first results: a change of code that changes pictures changes it."""

        def make() -> str:
            f, digest = self.field, hashlib.sha256()
            for originals in (f.judged, f.attack):
                rows = list(range(min(2, len(originals.faces))))
                view = originals.view(rows)
                if self.applied is not None:
                    view, _ = self.applied(originals, rows, [seeds_of(originals, str(f.cfg.seed))[i] for i in rows])
                for picture in view.pictures:
                    digest.update(f"{picture.shape}".encode() + picture.tobytes())
            return digest.hexdigest()

        return self._once("probe", make)

    def cached(self, attacker: str, uses: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of an attacker from its file, else made and written; the file's name follows from all they rest
        on."""
        from a3gan.files import replacing

        f, cfg = self.field, self.field.cfg
        parts = [VERSION, attacker, self.key, f.digests, cfg.attack.model_dump(), f.recogniser.fingerprint, uses]
        parts += [cfg.bootstrap, cfg.seed, cfg.far, list(self.degradations), self.probe()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
        path = f.folder / f"{attacker}-{self.name}-{digest}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            start = time.perf_counter()
            figures = make()
            log.info("attacker %s on %s: %.0f s", attacker, self.name, time.perf_counter() - start)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(figures, sort_keys=True), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))


def seeds_of(originals: Originals, seed: str) -> list[int]:
    """A key for each picture, by its name."""
    from a3gan.anonymizers.base import face_seed

    return [face_seed(seed, file) for file in originals.faces.columns.get("source", originals.faces.files)]
