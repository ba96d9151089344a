"""How good a face generator is: `a3gan evaluate eval/generator_128 generator=CKPT`.

Samples -> features -> figures -> `results.json`, `results.md`, `samples.png`, `paths.png`. Pictures show generated
faces only, never those that they are compared with.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from a3gan import __version__
from a3gan.data.ranges import to_float, to_uint8
from a3gan.errors import UserError
from a3gan.evaluation import generator_features as feat
from a3gan.evaluation import generator_inversion, generator_manifold, generator_paths, generator_report, quality
from a3gan.evaluation.features import Features, read_cached, write_cached
from a3gan.evaluation.generator_protocol import GeneratorConfig, missing
from a3gan.evaluation.generator_report import Results
from a3gan.evaluation.verification import reference

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet
    from a3gan.evaluation.verification import Reference
    from a3gan.models.stylegan2 import Generator
    from a3gan.scorers.attributes import AttributeNetwork
    from a3gan.scorers.identity import Recogniser

SHOWN = 64  # samples on the sheet: the first ones, unchosen


@dataclass
class Bench:
    """What every figure is made from.

    made, test, train: features by name, a row a picture; z [samples, z_dim]: codes of the samples; reference: what the
    compared faces fix for the judge.
    """

    cfg: GeneratorConfig
    device: torch.device
    generator: Generator
    meta: dict[str, Any]
    recogniser: Recogniser
    network: AttributeNetwork
    judge: str
    test_faces: FaceSet
    z: Tensor
    made: Features
    test: Features
    train: Features
    reference: Reference


def evaluate(cfg: GeneratorConfig, command: list[str] | None = None) -> Results:
    """Measures one generator and writes the files; returns what `results.json` holds (`str()` of it: the tables).

    The same config, data and weights give the same figures on one machine. UserError: missing files, faces smaller
    than the generator's or of another frame, a judge that a loss used, too few pairs for `far`.
    """
    if lacking := missing(cfg):
        raise UserError(lacking[0])
    if cfg.run.threads:
        torch.set_num_threads(cfg.run.threads)
    bench = gather(cfg)
    results = Results({
        "format": "a3gan-generator-1",
        "version": __version__,
        "command": command or [],
        "config": cfg.model_dump(mode="json", exclude={"run"}),
        "generator": about(bench),
        "judges": {bench.judge: bench.recogniser.fingerprint, "attributes": bench.network.fingerprint},
        "distance": distance(bench),
        "detection": {"samples": float(bench.made["found"].mean()), "test": float(bench.test["found"].mean())},
        "matches": {
            "threshold": bench.reference.threshold,
            "far": cfg.far,
            "samples": generator_manifold.matches(
                bench.made["embedding"], bench.reference.threshold, seed=cfg.seed
            ).as_dict(),
        },
        "memorised": generator_manifold.memorised(
            bench.made["embedding"], bench.test["embedding"], bench.train["embedding"], bench.reference.threshold
        ),
    })
    results["paths"], rows = paths(bench)
    if cfg.inversion.images:
        results["inversion"] = inversion(bench)
    with torch.inference_mode():
        shown = feat.sampled(bench.generator, bench.z, cfg.truncation)(torch.arange(min(SHOWN, len(bench.z))))
    generator_report.write(Path(cfg.run.dir), results, shown.cpu(), rows)
    return results


# --- parts --------------------------------------------------------------------------------------------------------
def gather(cfg: GeneratorConfig) -> Bench:
    """Loads everything and reads the features of samples, compared faces and training faces."""
    from a3gan.anonymizers.base import pick_device
    from a3gan.media.detect import load_detector
    from a3gan.scorers.attributes import load_attributes
    from a3gan.scorers.guard import refuse_training_judges
    from a3gan.scorers.identity import load_recogniser

    device = pick_device(cfg.run.device)
    generator, meta = feat.load_generator(cfg.generator, device)
    recogniser = load_recogniser(cfg.judge.path, cfg.judge.kind).to(device)
    network = load_attributes(cfg.attributes_judge, device)
    refuse_training_judges(meta.get("scorers", ()), [recogniser.fingerprint, network.fingerprint])
    sets = [_faces(cfg, split, generator.size, meta) for split in (cfg.data.split, cfg.data.split_train)]
    frame = sets[0].frame
    readers = {"identity": feat.Identity(recogniser, frame), "hidden": feat.Hidden(network, frame)}
    every = readers | {"found": feat.Found(load_detector("mtcnn", device, cfg.min_face))}
    read = partial(feat.collect, cache=Path(cfg.run.dir) / "cache", batch=cfg.run.batch)
    z = feat.codes(cfg.samples, generator.z_dim, cfg.seed)
    key = [meta["sha256"], cfg.seed, cfg.truncation]
    made = read(feat.sampled(generator, z, cfg.truncation), len(z), every, key, title="samples")
    test, train = (
        read(feat.real(faces, device), len(faces), wanted, _digest(faces), title=f"faces of {split}")
        for faces, wanted, split in zip(sets, (every, readers), (cfg.data.split, cfg.data.split_train), strict=True)
    )
    fixed = reference(test["embedding"], sets[0].identity.numpy(), cfg.far)
    name = cfg.judge.name or cfg.judge.kind
    return Bench(cfg, device, generator, meta, recogniser, network, name, sets[0], z, made, test, train, fixed)


def _faces(cfg: GeneratorConfig, split: str, size: int, meta: dict[str, Any]) -> FaceSet:
    """One split at the generator's size, of the frame it draws; with data.max_images, faces spread over all of it."""
    from a3gan.data.archive import FaceSet

    faces = FaceSet.load(cfg.archives, split=split, size=size)
    if faces.frame != meta.get("frame", faces.frame):
        raise UserError(f"data.path: faces of frame {faces.frame}; the generator draws frame {meta['frame']}")
    limit = cfg.data.max_images
    if limit and limit < len(faces):
        faces = faces.subset(torch.linspace(0, len(faces) - 1, limit).long())
    return faces


def _digest(faces: FaceSet) -> str:
    return hashlib.sha256(faces.images.numpy().tobytes()).hexdigest()


def about(bench: Bench) -> dict[str, Any]:
    size = sum(p.numel() for p in bench.generator.parameters())
    known = {name: bench.meta.get(name) for name in ("stage", "kind", "images_seen", "sha256")}
    return {**known, "file": Path(bench.cfg.generator).name, "size": bench.generator.size, "parameters": size}


# --- figures ------------------------------------------------------------------------------------------------------
def distance(bench: Bench) -> dict[str, dict[str, float]]:
    """By extractor: set distances of the samples, precision and recall; the same of training faces (`train_...`), which
    are real faces of other people; and the distance of two halves of the compared faces (`..._floor`)."""
    extractors = {f"by_{bench.network.family}": "hidden", f"by_{bench.judge}": "embedding"}
    person, seed = bench.test_faces.identity.numpy(), bench.cfg.seed
    found = {}
    for name, feature in extractors.items():
        real, cell = bench.test[feature], {}
        for prefix, other in (("", bench.made[feature]), ("train_", bench.train[feature])):
            kernel = quality.kernel_subsets(real, other, seed=seed)
            cell[f"{prefix}frechet"] = quality.frechet(real, other)
            cell |= {f"{prefix}kernel": kernel["value"], f"{prefix}kernel_deviation": kernel["deviation"]}
            shares = generator_manifold.precision_recall(real, other, bench.cfg.neighbours, seed)
            cell |= {f"{prefix}{name}": value for name, value in shares.items()}
        found[name] = cell | quality.floors(real, person, seed)
    return found


def paths(bench: Bench) -> tuple[dict[str, dict[str, dict[str, float]]], list[Tensor]]:
    """Evenness by kind of path and distance; and the pictures uint8 [steps + 1, 3, S, S] of the first paths."""
    from a3gan.scorers.perceptual import perceptual

    cfg, generator, frame = bench.cfg, bench.generator, bench.test_faces.frame
    ends = feat.codes(2 * cfg.paths.count, generator.z_dim, cfg.seed + 1).to(bench.device)
    measures = {
        "perceptual": lambda a, b: perceptual(a, b, bench.network.features),
        "identity": lambda a, b: 1 - (bench.recogniser(a, frame) * bench.recogniser(b, frame)).sum(1),
    }
    result: dict[str, dict[str, dict[str, float]]] = {}
    shown = []
    with torch.inference_mode():
        for kind in generator_paths.KINDS:
            steps: dict[str, list[np.ndarray]] = {name: [] for name in measures}
            for first, last in ends.unflatten(0, (-1, 2)):
                way = generator_paths.frames(generator, first, last, cfg.paths.steps, kind, cfg.truncation).clamp(-1, 1)
                for name, measure in measures.items():
                    steps[name].append(generator_paths.step_sizes(way, measure))
                if len(shown) < generator_report.PATHS:
                    shown.append(to_uint8(way).cpu())
            result[kind] = {name: generator_paths.evenness(np.stack(found)) for name, found in steps.items()}
    return result, shown


def inversion(bench: Bench) -> dict[str, float]:
    """Means over the inverted faces: l1 (of a range of 2), psnr (dB), identity (cosine to the original), matched (share
    above the threshold), beside `strangers`, the mean cosine of real faces of two people."""
    cfg, faces = bench.cfg.inversion, bench.test_faces
    rows = torch.linspace(0, len(faces) - 1, min(cfg.images, len(faces))).long().unique()
    codes = _inverted(bench, rows)
    with torch.inference_mode():
        w_plus = torch.from_numpy(codes).to(bench.device)
        pictures = torch.cat([bench.generator.synthesis(part) for part in w_plus.split(bench.cfg.run.batch)])
        found = generator_inversion.errors(pictures, faces.fetch(rows).to(bench.device))
        seen = to_float(to_uint8(pictures))
        embedding = torch.cat([bench.recogniser(part, faces.frame) for part in seen.split(bench.cfg.run.batch)])
    cosines = (embedding.cpu().numpy() * bench.test["embedding"][rows.numpy()]).sum(1)
    return {
        "images": len(rows),
        "l1": float(found["l1"].mean()),
        "psnr": float(found["psnr"].mean()),
        "identity": float(cosines.mean()),
        "matched": float((cosines > bench.reference.threshold).mean()),
        "strangers": float(bench.reference.impostor.mean()),
    }


def _inverted(bench: Bench, rows: Tensor) -> np.ndarray:
    """W+ of these compared faces, batch by batch from the cache where they are there."""
    from tqdm import tqdm

    from a3gan.scorers.attributes import load_attributes
    from a3gan.scorers.guard import refuse_training_judges

    cfg, faces, done = bench.cfg.inversion, bench.test_faces, []
    network = load_attributes(cfg.attributes, bench.device)
    refuse_training_judges([network.fingerprint], [bench.recogniser.fingerprint, bench.network.fingerprint])
    follows = repr([feat.VERSION, bench.meta["sha256"], network.fingerprint, cfg.model_dump(exclude={"images"})])
    with tqdm(total=len(rows) * cfg.steps, desc="inversion", unit="step", dynamic_ncols=True, disable=None) as bar:
        for part in rows.split(bench.cfg.run.batch):
            x = faces.fetch(part)
            name = hashlib.sha256(follows.encode() + x.numpy().tobytes()).hexdigest()[:24]
            path = Path(bench.cfg.run.dir) / "cache" / f"inverted-{name}.npz"
            kept = read_cached(path)
            if kept is None:
                found = generator_inversion.invert(
                    bench.generator, x.to(bench.device), network, steps=cfg.steps, rate=cfg.rate,
                    perceptual=cfg.perceptual, progress=bar.update,
                )  # fmt: skip
                kept = {"w_plus": found.cpu().numpy()}
                write_cached(path, kept)
            else:
                bar.update(len(part) * cfg.steps)
            done.append(kept["w_plus"])
    return np.concatenate(done)
