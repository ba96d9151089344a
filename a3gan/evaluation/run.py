"""One evaluation: pictures -> features -> statistics -> `results.json`, `results.md`, `roc.png` in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan import __version__
from a3gan.errors import UserError
from a3gan.evaluation import features as feat
from a3gan.evaluation import protocol, report
from a3gan.evaluation.figures import ORIGINAL, Table, measure, people
from a3gan.evaluation.pictures import Method, Originals, Photos
from a3gan.evaluation.protocol import EvalConfig

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.data.archive import FaceSet


def evaluate(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> report.Results:
    """Reads an evaluation config, runs it and returns what `results.json` holds (`str()` of it: the tables).

    The same config, data and weights give the same bytes on one machine; features that were computed before are read
    from the cache. UserError: a bad config, missing files, a judge that was used in training, a method that leaves a
    picture unchanged.
    """
    cfg = protocol.load(path, overrides)
    if cfg.run.threads:
        torch.set_num_threads(cfg.run.threads)
    device = _device(cfg)
    methods = {name: _anonymizer(name, cfg, device) for name in cfg.method if name == "a3gan"}
    judges, attributes = _judges(cfg, device)
    _refuse_training_judges(methods, judges, attributes)
    originals = _originals(cfg)
    methods |= {name: _anonymizer(name, cfg, device, originals.faces) for name in cfg.method if name not in methods}
    tables, keys = _features(cfg, originals, {name: methods[name] for name in cfg.method}, judges, attributes)
    results = report.Results(
        {
            "format": "a3gan-evaluation-1",
            "version": __version__,
            "config": cfg.model_dump(mode="json", exclude={"run"}),
            "data": _describe(originals, keys["data"]),
            "methods": keys["methods"],
            "judges": {name: judge.identity for name, judge in judges.items()},
            "attributes_judge": attributes.identity if attributes else None,
        }
    )
    results["thresholds"], results["rows"], curves = measure(cfg, originals, tables, list(judges))
    report.write(cfg.run_dir, results, curves)
    return results


# --- parts --------------------------------------------------------------------------------------------------------
def _device(cfg: EvalConfig) -> torch.device:
    from a3gan.anonymizers.base import pick_device

    return pick_device(cfg.run.device)


def _anonymizer(name: str, cfg: EvalConfig, device: torch.device, faces: FaceSet | None = None) -> FaceAnonymizer:
    from a3gan.anonymizers.a3gan import DEFAULT_WEIGHTS
    from a3gan.anonymizers.methods import create

    if name == "a3gan":
        return create(name, weights=cfg.weights or DEFAULT_WEIGHTS, device=device)
    return create(name, size=faces.size, frame=faces.frame, device=device)


def _judges(cfg: EvalConfig, device: torch.device) -> tuple[dict[str, feat.Embedding], feat.Attributes | None]:
    from a3gan.scorers.attributes import load_attributes
    from a3gan.scorers.identity import load_recogniser

    judges: dict[str, feat.Embedding] = {}
    for judge in cfg.judges:
        name = judge.name or judge.kind
        if name in judges:
            raise UserError(f"judges: two are called {name}; give each a name of its own")
        judges[name] = feat.Embedding(load_recogniser(judge.path, judge.kind), device)
    network = load_attributes(cfg.attributes_judge, device) if cfg.attributes_judge else None
    return judges, feat.Attributes(network, device) if network is not None else None


def _refuse_training_judges(
    methods: dict[str, FaceAnonymizer], judges: dict[str, feat.Embedding], attributes: feat.Attributes | None
) -> None:
    from a3gan.scorers.guard import refuse_training_judges

    fingerprints = [judge.identity for judge in judges.values()] + ([attributes.identity] if attributes else [])
    for method in methods.values():
        if "scorers" not in method.meta:
            raise UserError(
                f"{method.path}: does not say which scorers trained it, so nobody can judge it; train it again"
            )
        refuse_training_judges(method.meta["scorers"], fingerprints)


def _originals(cfg: EvalConfig) -> Originals:
    from a3gan.data.archive import FaceSet

    if cfg.data.path is None:
        from a3gan.data.synthetic import synthetic_faces

        if cfg.data.photos is not None:
            raise UserError("data.photos: rendered faces (data.path: null) have no photos; set it to null")
        data = cfg.data
        # A seed of its own: training's rendered people start from data.synthetic_seed = 0.
        faces = synthetic_faces(data.synthetic_count, data.synthetic_size, 1_000_003, identities=data.synthetic_people)
        return Originals(_whole_people(faces, cfg.data.max_images, cfg.seed))
    faces = FaceSet.load(cfg.data.path, split=cfg.data.split)
    faces = _whole_people(faces, cfg.data.max_images, cfg.seed)
    return Originals(faces, Photos(cfg.data.photos, faces) if cfg.data.photos else None)


def _whole_people(faces: FaceSet, at_most: int, seed: int) -> FaceSet:
    """About `at_most` pictures (0 = all): people in a shuffled order, each with all pictures, as long as they fit."""
    if not at_most or len(faces) <= at_most:
        return faces
    who = people(faces)
    chosen, count = [], 0
    for person in np.random.default_rng(seed).permutation(np.unique(who)):
        rows = np.flatnonzero(who == person)
        if count + len(rows) > at_most and count:
            continue
        chosen.append(rows)
        count += len(rows)
    return faces.subset(np.sort(np.concatenate(chosen)).tolist())


def _describe(originals: Originals, digest: str) -> dict[str, Any]:
    identity = originals.faces.identity.numpy()
    _, counts = np.unique(identity[identity >= 0], return_counts=True)
    return {
        "digest": digest,
        "pictures": len(identity),
        "people": len(counts),
        "people_with_two": int((counts > 1).sum()),
        "genuine_pairs": int((counts * (counts - 1) // 2).sum()),
        "judged": "photos with the faces pasted back" if originals.photos is not None else "aligned crops",
        "size": originals.faces.size,
        "frame": originals.faces.frame,
    }


# --- pictures -> features -------------------------------------------------------------------------------------------
def _features(
    cfg: EvalConfig,
    originals: Originals,
    anonymizers: dict[str, FaceAnonymizer],
    judges: dict[str, feat.Embedding],
    attributes: feat.Attributes | None,
) -> tuple[dict[str, Table], dict[str, Any]]:
    """Features of the originals and of every method, and what they follow from."""
    from a3gan import checkpoint
    from a3gan.anonymizers.base import face_seed
    from a3gan.data.attributes import Policy
    from a3gan.media.detect import load_detector

    device = _device(cfg)
    scorers: dict[str, feat.Scorer] = {f"judge-{name}": judge for name, judge in judges.items()}
    scorers |= feat.detector_scorers(lambda min_face: load_detector("mtcnn", device, min_face), cfg.min_face)
    if attributes is not None:
        scorers["attributes"] = attributes
    digest = originals.digest()
    keys: dict[str, Any] = {"data": digest, "methods": {}}

    def collect(source: feat.Source, key: dict[str, Any], title: str) -> Table:
        key, cache, count = {"data": digest, **key}, cfg.run_dir / "cache", len(originals.faces)
        return feat.collect(source, count, scorers, cfg.degradations, key, cache, cfg.run.batch, title)

    tables = {ORIGINAL: collect(feat.original_source(originals), {"method": ORIGINAL}, ORIGINAL)}
    names = originals.faces.columns.get("source", originals.faces.files)
    for name, anonymizer in anonymizers.items():
        policy = Policy.parse(cfg.policy) if "policy" in anonymizer.supports else None
        alpha = cfg.alpha if "alpha" in anonymizer.supports else 1.0
        seeds = [face_seed(cfg.seed, file) for file in names]
        key = {"method": name, "size": anonymizer.size, "frame": anonymizer.frame}
        if "seed" in anonymizer.supports:
            key["seed"] = cfg.seed
        if hasattr(anonymizer, "path"):
            key["weights_sha256"] = checkpoint.sha256(anonymizer.path)
        key |= {"policy": str(policy), "alpha": alpha} if policy is not None else {}
        method = Method(anonymizer, policy, alpha, seeds)
        tables[name] = collect(lambda rows, method=method: method.apply(originals, rows), key, name)
        keys["methods"][name] = key
    return tables, keys
