"""One evaluation: pictures -> features -> statistics -> `results.json`, `results.md`, `roc.png` in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan import __version__
from a3gan.anonymizers import methods as known
from a3gan.errors import UserError
from a3gan.evaluation import features as feat
from a3gan.evaluation import protocol, report, sources, speed, tasks
from a3gan.evaluation.attackers.attack import attack
from a3gan.evaluation.figures import measure
from a3gan.evaluation.gather import Gather
from a3gan.evaluation.page import faces as sheets
from a3gan.evaluation.pictures import Originals
from a3gan.evaluation.protocol import EvalConfig
from a3gan.evaluation.sets import EvalSet, load_sets
from a3gan.versions import versions

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.data.archive import FaceSet
    from a3gan.evaluation.pairs import Listed


def evaluate(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> report.Results:
    """Reads an evaluation config, runs it and returns what `results.json` holds (`str()` of it: the tables).

    The same config, data and weights give the same bytes on one machine; features that were computed before are read
    from the cache. UserError: a bad config, missing files, a judge that was used in training, a method that leaves a
    picture unchanged.
    """
    asked = protocol.load(path, overrides)
    cfg = sources.prepared(asked)
    if cfg.run.threads:
        torch.set_num_threads(cfg.run.threads)
    device = _device(cfg)
    methods = {name: _anonymizer(name, cfg, device) for name in cfg.method if known.entry_of(name).weights}
    judges, attributes = _judges(cfg, device)
    _refuse_training_judges(methods, judges, attributes)
    sets = load_sets(cfg)
    originals = sets[0].originals
    methods |= {name: _anonymizer(name, cfg, device, originals.faces) for name in cfg.method if name not in methods}
    gather = Gather(cfg, {name: methods[name] for name in cfg.method}, device)
    detectors, off = _detectors(cfg, device)
    tables = {}
    for number, one in enumerate(sets):
        scorers = _scorers(cfg, judges, attributes, detectors, device, main=number == 0)
        tables[one.name] = gather.tables(one.originals, scorers, label=one.name if number else "")
    able, listed = _able_judges(cfg, sets[0], judges, off), _pairs(cfg, originals, off)
    measured = measure(cfg, originals, tables[sets[0].name], able, listed)
    bench = tasks.Bench(
        cfg, gather, sets, tables, judges, attributes, detectors, measured.references, measured.found, off
    )  # fmt: skip
    if "expression" in cfg.tasks:
        for row in measured.rows if (heads := tasks.expression_heads(bench)) else ():
            row["expression"] = row.get("expression", {}) | tasks.plain(heads[row["method"], row["degradation"]])
    digests = {one.name: one.originals.digest() for one in sets}
    results = report.Results(
        {
            "format": "a3gan-evaluation-1",
            "version": __version__,
            "versions": versions(),
            "command": ["a3gan", "evaluate", str(path), *overrides],
            "config": asked.model_dump(mode="json", exclude={"run"}),
            "data": _describe(originals, digests[sets[0].name]),
            "methods": {
                name: {"data": digests[sets[0].name], **gather.key(name, gather.policy(name))} for name in cfg.method
            },
            "judges": {name: judge.identity for name, judge in judges.items()},
            "attributes_judge": attributes.identity if attributes else None,
            "detectors": {"picture": "mtcnn", **({"second": _second_name(detectors)} if len(detectors) > 1 else {})},
        }
    )
    results["data"]["more"] = [{"name": one.name, **_describe(one.originals, digests[one.name])} for one in sets[1:]]
    results["thresholds"], results["rows"] = measured.thresholds, measured.rows
    results["tasks"] = tasks.plain(tasks.run(bench))
    if "speed" in cfg.tasks:
        results["tasks"]["cost"] = {name: {"none": speed.networks(one)} for name, one in gather.methods.items()}
    results["about"], results["off"] = bench.about, bench.off
    follows = {name: gather.key(name, gather.policy(name)) for name in cfg.method}
    results["attackers"], results["attack"], turned_off = attack(
        cfg, originals, gather.methods, follows, judges, attributes, device
    )
    results["off"] += turned_off
    shown = sheets.strips(cfg, originals, gather.methods)
    fast = None
    if "speed" in cfg.tasks:
        fast = speed.keep(cfg.run_dir, gather.methods, follows, device, originals.faces)
    report.write(cfg.run_dir, results, measured.curves, shown, cfg.limits, fast)
    return results


# --- parts --------------------------------------------------------------------------------------------------------
def _device(cfg: EvalConfig) -> torch.device:
    from a3gan.anonymizers.base import pick_device

    return pick_device(cfg.run.device)


def _anonymizer(name: str, cfg: EvalConfig, device: torch.device, faces: FaceSet | None = None) -> FaceAnonymizer:
    """faces: whose size and frame a method without weights takes."""
    weights = cfg.weights_of(name)
    shape = {} if faces is None else {"size": faces.size, "frame": faces.frame}
    options = known.checked_options(name, cfg.options.get(name, {}), weights)
    return known.create(name, weights=weights, device=device, **shape, **options)


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
    for name, method in methods.items():
        if "scorers" not in method.meta:
            raise UserError(
                f"{method.path}: does not say which scorers trained it, so nobody can judge it; train it again"
            )
        refuse_training_judges(method.meta["scorers"], fingerprints, f"method {name}")


def _detectors(cfg: EvalConfig, device: torch.device) -> tuple[dict[str, Any], list[str]]:
    """The detectors, each a function of the smallest face; and a line where there is no second one."""
    from a3gan.evaluation import second_detector
    from a3gan.media.detect import load_detector

    found: dict[str, Any] = {"mtcnn": lambda min_face: load_detector("mtcnn", device, min_face)}
    other = second_detector.load_second(cfg.second_detector) if "detection" in cfg.tasks else None
    if other is not None:
        return found | {"second": other}, []
    missing = "detection" in cfg.tasks and cfg.second_detector is not None
    return found, [f"task detection: second detector off: {second_detector.ABSENT}"] if missing else []


def _second_name(detectors: dict[str, Any]) -> str:
    return detectors["second"](40).name


def _scorers(
    cfg: EvalConfig,
    judges: dict[str, feat.Embedding],
    attributes: feat.Attributes | None,
    detectors: dict[str, Any],
    device: torch.device,
    main: bool,
) -> dict[str, feat.Scorer]:
    """What reads the pictures: on the main set everything, on the others what fatigue needs."""
    from a3gan.evaluation.looks import Against, Looks, load_lpips

    scorers: dict[str, feat.Scorer] = feat.detector_scorers(detectors["mtcnn"], cfg.min_face)
    if attributes is not None:
        scorers["attributes"] = attributes
    if not main:
        scorers.pop("detector_crop")
        return scorers
    scorers = {f"judge-{name}": judge for name, judge in judges.items()} | scorers
    if "second" in detectors:
        scorers |= feat.detector_scorers(detectors["second"], cfg.min_face, second=True)
    network = attributes.network if attributes is not None else None
    if {"expression", "quality", "attributes", "groups"} & set(cfg.tasks):
        scorers["looks"] = Looks(network, device)
    if "quality" in cfg.tasks:
        lpips, identity = load_lpips(cfg.lpips)
        scorers["against"] = Against(network, lpips, device, identity)
    return scorers


def _able_judges(cfg: EvalConfig, main: EvalSet, judges: dict[str, feat.Embedding], off: list[str]) -> list[str]:
    """The judges that verify; none, and a line, where the pictures show no person twice."""
    if "verification" not in cfg.tasks or not judges:
        return []
    identity = main.originals.faces.identity.numpy()
    _, counts = np.unique(identity[identity >= 0], return_counts=True)
    if not (counts > 1).any():
        off.append("task verification off: no person with two pictures (labels of identity)")
        return []
    return list(judges)


def _pairs(cfg: EvalConfig, originals: Originals, off: list[str]) -> Listed | None:
    from a3gan.evaluation import pairs

    if cfg.data.pairs is None:
        return None
    faces = originals.faces
    listed = pairs.at_hand(pairs.read_pairs(cfg.data.pairs), faces.columns.get("source", faces.files))
    if not (listed.same.any() and not listed.same.all()):
        off.append(f"task verification: pairs off: too few of {cfg.data.pairs} are among the judged pictures")
        return None
    return listed


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
