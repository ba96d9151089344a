"""Task `train-on-anonymised`: is a method's output a set of faces to train on, and does it give its people away?

A small recogniser learns to tell people apart from the results of a method alone, and is then tested on *real* pictures
of other people. The same recogniser, with the same budget and seed, also learns from the originals (the ceiling) and
from blurred faces. Beside it stands the leak: how many results find their own original among all originals of the set.

What is good here is bad under a parrot attack (P5), which is the same experiment from the other side.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from a3gan.data.augment import augment
from a3gan.data.ranges import to_float
from a3gan.evaluation import features as feat
from a3gan.evaluation import pairs, statistics
from a3gan.evaluation.attackers import budget, measures, training
from a3gan.evaluation.attackers.scorers import Pixels
from a3gan.evaluation.gather import ORIGINAL, Gather, Table
from a3gan.evaluation.verification import cosine, pair_masks
from a3gan.scorers.small_identity import SmallIdentity
from a3gan.training.identity_stage import CosFace, classes_of

if TYPE_CHECKING:
    from a3gan.evaluation.pictures import Originals
    from a3gan.evaluation.protocol import EvalConfig, TrainOn
    from a3gan.evaluation.tasks import Bench

NAME = "train-on-anonymised"
VERSION = 1  # raise it when the same pictures give another recogniser
COMPARED = "blur"  # the redaction that stands beside every method
SEED = 31  # added to the evaluation's
Figures = dict[str, Any]


class Pupil(nn.Module):
    """A narrow SmallIdentity with a centre for each person: uint8 pixels [B, 3, 64, 64], class [B] -> loss, scalar."""

    def __init__(self, width: int, dim: int, people: int):
        super().__init__()
        self.network = SmallIdentity(width, dim).to(memory_format=torch.channels_last)
        self.classes = CosFace(dim, people)

    def forward(self, pixels: Tensor, person: Tensor) -> Tensor:
        images, _ = augment(to_float(pixels), rotate=5.0, scale=(0.95, 1.05), shift=0.02)
        return self.classes(self.network(images.contiguous(memory_format=torch.channels_last)), person).mean()

    @torch.inference_mode()
    def embed(self, pixels: Tensor, batch: int = 256) -> np.ndarray:
        """Unit vectors float32 [N, dim] of pixels [N, 3, 64, 64], on the CPU."""
        device = self.classes.centres.device
        parts = [self.network(to_float(x.to(device))).float().cpu() for x in pixels.split(batch)]
        return torch.cat(parts).numpy()


def learners(cfg: EvalConfig, judged: Originals) -> Originals:
    """The people that the recogniser learns from: `attack.split`, within the task's own budget.

    budget.TooFew: no such people; UserError where one of them is judged.
    """
    own = cfg.attack.model_copy(update={"images": cfg.train_on.images, "per_person": cfg.train_on.per_person})
    return budget.attack_faces(cfg.model_copy(update={"attack": own}), judged.faces)


def off(bench: Bench) -> str:
    """Why it cannot be measured here, or ''."""
    _, counts = np.unique(bench.main.person, return_counts=True)
    if not (counts > 1).any():
        return "no person with two pictures among the judged (labels of identity)"
    try:
        learners(bench.cfg, bench.main.originals)
    except budget.TooFew as error:
        return str(error)
    return ""


def measure(bench: Bench) -> dict[str, dict[str, Figures]]:
    """Figures of the originals and of every method, of pictures as they are.

    auc, tar, rank1 and others as of `attackers.measures.recognition`, on the judged originals, all pairs; accuracy: the
    best mean of true matches and true non-matches over all thresholds; pairs_accuracy, pairs_auc: on the list of
    `data.pairs`. The originals' figures also come with those of the recogniser before training (`_untrained`) and of
    one that learned from blur (`_blurred`), where blur is not among the methods. own_rank1: the leak, of each judge.
    """
    cfg, originals = bench.cfg, learners(bench.cfg, bench.main.originals)
    gather = _with_blur(bench)
    judges = {f"judge-{name}": judge for name, judge in bench.judges.items()}
    scorers = {"pixels": Pixels(), **judges}
    tables = gather.tables(originals, scorers, ["none"], label="people to learn from")
    tested = bench.gather.tables(bench.main.originals, {"pixels": Pixels()}, ["none"], [ORIGINAL])[ORIGINAL]
    test = Judged(bench, tested["none", "pixels"]["pixels"])
    person = classes_of(originals.faces.identity)
    result = {}
    for name, table in tables.items():
        pixels = table["none", "pixels"]["pixels"]
        vectors = _learned(bench, pixels, person, test.pixels, cfg.train_on.steps, name)
        result[name] = {"none": test.figures(vectors) | _leaks(bench, tables[ORIGINAL], table, originals)}
    untrained = test.figures(_learned(bench, tables[ORIGINAL]["none", "pixels"]["pixels"], person, test.pixels, 0, ""))
    beside = {"untrained": untrained}
    if COMPARED not in bench.gather.methods:
        beside["blurred"] = result.pop(COMPARED)["none"]
    for word, figures in beside.items():
        for leaf in ("auc", "tar", "rank1", "accuracy", "pairs_accuracy", "pairs_auc"):
            if leaf in figures:
                result[ORIGINAL]["none"][f"{leaf}_{word}"] = _value(figures[leaf])
    bench.about["train_on"] = describe(cfg, originals, len(test.person))
    return result


def describe(cfg: EvalConfig, originals: Originals, tested: int) -> dict[str, Any]:
    """The budget as it was spent, for the results."""
    own = cfg.train_on
    network = SmallIdentity(own.width, own.dim)
    return {
        "pictures": len(originals.faces),
        "people": len(originals.faces.identity.unique()),
        "split": cfg.attack.split if cfg.data.path is not None else "rendered",
        "per_person": own.per_person,
        "steps": own.steps,
        "batch": own.batch,
        "parameters": sum(p.numel() for p in network.parameters()),
        "tested": tested,
    }


# --- learning -------------------------------------------------------------------------------------------------------
def learn(pixels: Tensor, person: Tensor, own: TrainOn, seed: int, device: torch.device, title: str = "") -> Pupil:
    """A recogniser of uint8 faces [N, 3, 64, 64] and classes [N] (0 .. people - 1), each with two pictures or more.

    From nothing, `own.steps` steps of `own.batch` pictures, two of a person; all that is random comes from `seed`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pupil = Pupil(own.width, own.dim, int(person.max()) + 1).to(device)
        draw = training.pair_sampler(person, torch.arange(len(person)), own.batch)

        def loss(rows: Tensor) -> Tensor:
            return pupil(pixels[rows].to(device), person[rows].to(device))

        training.fit(pupil, loss, draw, own.steps, own.lr, seed, title=title)
    return pupil.eval()


def _learned(bench: Bench, pixels: np.ndarray, person: Tensor, test: np.ndarray, steps: int, title: str) -> np.ndarray:
    """Vectors [M, dim] of the real test pictures by a recogniser of these pictures; kept, so that a run that was
    interrupted goes on with the next method, and the same pictures are learned once."""
    cfg, own = bench.cfg, bench.cfg.train_on.model_copy(update={"steps": steps})
    digest = hashlib.sha256(json.dumps([VERSION, own.model_dump(), cfg.seed], sort_keys=True).encode())
    for part in (pixels, person.numpy(), test):
        digest.update(np.ascontiguousarray(part).tobytes())
    path: Path = cfg.run_dir / "cache" / f"{NAME}-{digest.hexdigest()[:24]}.npz"
    found = feat.read_cached(path)
    if found is None:
        device = bench.gather.device
        pupil = learn(torch.from_numpy(pixels), person, own, cfg.seed + SEED, device, f"{title}: learning from results")
        found = {"vectors": pupil.embed(torch.from_numpy(test))}
        feat.write_cached(path, found)
    return found["vectors"]


def _with_blur(bench: Bench) -> Gather:
    """The run's methods, and blur if it is not among them."""
    from a3gan.anonymizers.methods import create

    gather, faces = bench.gather, bench.main.originals.faces
    if COMPARED in gather.methods:
        return gather
    blur = create(COMPARED, size=faces.size, frame=faces.frame, device=gather.device)
    return Gather(gather.cfg, {**gather.methods, COMPARED: blur}, gather.device)


# --- testing --------------------------------------------------------------------------------------------------------
class Judged:
    """The real pictures of the judged people: pixels uint8 [M, 3, 64, 64], person int64 [M], and the listed pairs."""

    def __init__(self, bench: Bench, pixels: np.ndarray):
        cfg, faces = bench.cfg, bench.main.originals.faces
        self.pixels, self.person, self.far, self.draw = pixels, bench.main.person, cfg.far, bench.draw
        self.listed = None
        if cfg.data.pairs is not None:
            names = faces.columns.get("source", faces.files)
            listed = pairs.at_hand(pairs.read_pairs(cfg.data.pairs), names)
            self.listed = listed if listed.same.any() and not listed.same.all() else None

    def figures(self, vectors: np.ndarray) -> Figures:
        """How well unit vectors [M, E] of the pictures tell their people apart."""
        result: Figures = measures.recognition(vectors, vectors, self.person, self.far, *self.draw)
        scores = cosine(vectors, vectors)
        genuine, impostor = pair_masks(self.person)
        result["accuracy"] = balanced_accuracy(scores[genuine], scores[impostor])
        if self.listed is not None:
            listed = np.einsum("nd,nd->n", vectors[self.listed.a], vectors[self.listed.b], dtype=np.float64)
            same = self.listed.same
            result["pairs_accuracy"] = pairs.fold_accuracy(listed, same, self.listed.fold)
            result["pairs_auc"] = statistics.auc(listed[same], listed[~same])
        return result


def balanced_accuracy(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Largest mean, over all thresholds, of the shares of genuine scores accepted and impostor scores rejected; 0.5:
    nothing is told. The threshold is chosen on these very scores."""
    false, true = statistics.roc(genuine, impostor)
    return float((1 + (true - false).max()) / 2)


def _leaks(bench: Bench, originals: Table, results: Table, faces: Originals) -> Figures:
    """By judge: own_rank1, the share of results whose nearest original is their own, and own_rank1_chance."""
    person = faces.faces.identity.numpy()
    found = {}
    for judge in bench.judges:
        key = ("none", f"judge-{judge}")
        nearest = cosine(results[key]["embedding"], originals[key]["embedding"]).argmax(1)
        own = statistics.share(nearest == np.arange(len(person)), person, *bench.draw)
        found[judge] = {"own_rank1": own, "own_rank1_chance": 1 / len(person)}
    return {"leak": found} if found else {}


def _value(figure: Any) -> float:
    return figure.value if isinstance(figure, statistics.Interval) else figure
