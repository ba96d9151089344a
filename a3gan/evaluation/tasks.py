"""The tasks beyond recognition and detection: fatigue, quality, attributes, groups, speed; the learned heads of
expression; training on results; the dial and what a policy moves. Each gives {method: {degradation: figures}}, or a
line that says why it is off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.evaluation import controllability, dial, verification
from a3gan.evaluation import detection as detect
from a3gan.evaluation import features as feat
from a3gan.evaluation.fatigue import HEADS, Temperatures
from a3gan.evaluation.figures import reference_boxes
from a3gan.evaluation.gather import ORIGINAL, Gather, Table
from a3gan.evaluation.sets import EvalSet
from a3gan.evaluation.statistics import Interval

if TYPE_CHECKING:
    from a3gan.evaluation.protocol import EvalConfig

By = dict[str, dict[str, Any]]  # method -> degradation -> figures
LEAST_KNOWN = 2  # pictures with a label, below which a set tells nothing


@dataclass
class Bench:
    """Everything the tasks read. tables: by set's name and method; found: bool [N] of the main set, by (method,
    degradation); detectors: by name, a function of the smallest face."""

    cfg: EvalConfig
    gather: Gather
    sets: list[EvalSet]
    tables: dict[str, dict[str, Table]]
    judges: dict[str, feat.Embedding]
    attributes: feat.Attributes | None
    detectors: dict[str, Callable[[int], Any]]
    references: dict[str, verification.Reference]
    found: dict[tuple[str, str], np.ndarray]
    off: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)  # what figures rest on, for the results
    _temperatures: Temperatures | None = None

    @property
    def main(self) -> EvalSet:
        return self.sets[0]

    @property
    def draw(self) -> tuple[int, int]:
        return self.cfg.bootstrap, self.cfg.seed

    @property
    def names(self) -> list[str]:
        return [ORIGINAL, *self.gather.methods]

    def table(self, method: str) -> Table:
        return self.tables[self.main.name][method]

    @property
    def temperatures(self) -> Temperatures:
        if self._temperatures is None:
            self._temperatures = calibrate(self)
        return self._temperatures


def run(bench: Bench) -> dict[str, By]:
    """All tasks that are asked for and possible; the others leave a line in `bench.off`."""
    result: dict[str, By] = {}
    for name, (task, needs) in RUN.items():
        if name not in bench.cfg.tasks:
            continue
        reason = needs(bench)
        if reason:
            bench.off.append(f"task {name} off: {reason}")
        else:
            result[name] = task(bench)
    return result


def plain(value: Any) -> Any:
    """Intervals, NaN and numpy numbers as JSON has them, in any depth; six digits."""
    if isinstance(value, Interval):
        return value.as_dict()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def calibrate(bench: Bench) -> Temperatures:
    """Temperatures of the judge's heads on originals that are not judged; 1 where no such labels are at hand."""
    from a3gan.evaluation.fatigue import temperature
    from a3gan.evaluation.sets import calibration_sets

    logits: dict[str, list[np.ndarray]] = {name: [] for name in HEADS}
    labels: dict[str, list[np.ndarray]] = {name: [] for name in HEADS}
    for one in calibration_sets(bench.cfg):
        scorers = {"attributes": bench.attributes}
        table = bench.gather.tables(one.originals, scorers, ["none"], [ORIGINAL], one.name)[ORIGINAL]
        for name in HEADS:
            known = ~np.isnan(one.labels[name])
            logits[name].append(table["none", "attributes"][name][known])
            labels[name].append(one.labels[name][known])
    made, count = {}, 0
    for name in HEADS:
        if logits[name] and sum(map(len, logits[name])):
            made[name] = temperature(np.concatenate(logits[name]), np.concatenate(labels[name]))
            count += sum(map(len, labels[name]))
    if not count:
        bench.off.append(
            f"calibration off: no yawning or eye labels in split {bench.cfg.heads.calibration}; temperatures are 1"
        )
    found = Temperatures(**made, count=count)
    about = {"eyes_closed": found.eyes_closed, "yawning": found.yawning, "pictures": count}
    bench.about["temperatures"] = plain(about)
    return found


# --- fatigue --------------------------------------------------------------------------------------------------------
def no_fatigue(bench: Bench) -> str:
    if bench.attributes is None:
        return "no attributes_judge"
    labelled = any(one.has(name) for one in bench.sets for name in HEADS)
    return "" if labelled or bench.cfg.data.clips else "no labels of yawns or closed eyes, and no clips (data.clips)"


def fatigue(bench: Bench) -> By:
    """Stills of every set with labels, and the clips."""
    from a3gan.evaluation.fatigue import stills

    result: By = {name: {d: {} for d in bench.cfg.degradations} for name in bench.names}
    for one in bench.sets:
        if not any(one.has(name) for name in HEADS):
            continue
        tables = bench.tables[one.name]
        before = tables[ORIGINAL]["none", "attributes"]
        boxes = reference_boxes(one.originals, tables[ORIGINAL])
        for name in bench.names:
            for degradation in bench.cfg.degradations:
                table = tables[name]
                seen = feat.as_faces(table[degradation, "detector"])
                where = boxes.get((degradation, "detector"), boxes["none", "detector"])
                found = detect.best_overlap(seen, where) >= detect.MIN_IOU
                after = table[degradation, "attributes"]
                cell = stills(before, after, one.labels, one.person, found, bench.draw)
                result[name][degradation] |= {"stills": {**result[name][degradation].get("stills", {}), **cell}}
    if not any(one.has(name) for one in bench.sets for name in HEADS):
        bench.off.append("task fatigue: stills off: no labels of yawns or closed eyes")
    if bench.cfg.data.clips:
        from a3gan.evaluation.clip_task import clip_figures

        for name, figures in clip_figures(bench).items():
            result[name]["none"] |= figures
    else:
        bench.off.append("task fatigue: clips off: none named (data.clips)")
    return result


# --- quality --------------------------------------------------------------------------------------------------------
def no_quality(bench: Bench) -> str:
    return "" if bench.attributes is not None or bench.judges else "no network to compare with: no judge of any kind"


def quality(bench: Bench) -> By:
    """Set distances by extractor, errors of points and pose, and what changed in and around the face."""
    from a3gan.evaluation.quality import floors, landmark_errors, pair_distances, set_distances

    extractors = {f"by_{name}": (f"judge-{name}", "embedding") for name in bench.judges}
    if bench.attributes is not None:
        extractors = {f"by_{bench.attributes.network.family}": ("looks", "hidden")} | extractors
    first, who, result = bench.table(ORIGINAL), bench.main.person, {}
    least = {
        (title, d): floors(first[d, scorer][feature], who, bench.cfg.seed)
        for title, (scorer, feature) in extractors.items()
        for d in bench.cfg.degradations
    }
    replicates = max(2, min(20, bench.cfg.bootstrap // 10))
    for name in bench.names:
        result[name], table = {}, bench.table(name)
        for degradation in bench.cfg.degradations:
            cell: dict[str, Any] = {}
            for title, (scorer, feature) in extractors.items():
                pair = (t[degradation, scorer][feature] for t in (first, table))
                cell[title] = set_distances(*pair, who, bench.cfg.seed, replicates) | least[title, degradation]
            if bench.attributes is not None:
                points = (first["none", "attributes"]["landmarks"], table[degradation, "attributes"]["landmarks"])
                cell |= landmark_errors(*points, who, bench.draw)
            if (degradation, "against") in table:
                cell |= pair_distances(table[degradation, "against"], who, bench.draw)
            result[name][degradation] = cell
    bench.about["perceptual"] = (
        "LPIPS, AlexNet" if bench.cfg.lpips else "features of the attribute judge, all weights 1"
    )
    return result


# --- attributes -----------------------------------------------------------------------------------------------------
def no_attributes(bench: Bench) -> str:
    return "" if bench.attributes is not None else "no attributes_judge"


def attributes(bench: Bench) -> By:
    """By the run's policy, and on fewer pictures by the presets of `policies`."""
    from a3gan.evaluation.kept import figures, read, strangers

    def values(table: Table, degradation: str) -> dict[str, np.ndarray]:
        return read(table[degradation, "attributes"], table[degradation, "looks"], bench.temperatures)

    before, who, result = values(bench.table(ORIGINAL), "none"), bench.main.person, {}
    for name in bench.names:
        policy = bench.gather.policy(name) if name != ORIGINAL else None
        result[name] = {
            d: figures(before, values(bench.table(name), d), policy, who, bench.draw) for d in bench.cfg.degradations
        }
    result[ORIGINAL]["none"]["stranger"] = strangers(before, who, bench.cfg.seed)
    for name, cell in other_policies(bench, values).items():
        result[name]["none"]["policies"] = cell
    return result


def other_policies(bench: Bench, values: Callable[[Table, str], dict[str, np.ndarray]]) -> dict[str, Any]:
    """The presets of `cfg.policies` for the methods that follow one."""
    from a3gan.data.attributes import Policy
    from a3gan.evaluation.kept import figures
    from a3gan.evaluation.pictures import Originals, Photos
    from a3gan.evaluation.sets import people, whole_people

    able = [name for name in bench.gather.methods if bench.gather.policy(name) is not None]
    cfg = bench.cfg
    if not able or not cfg.policies or not cfg.policy_images:
        return {}
    faces = whole_people(bench.main.originals.faces, cfg.policy_images, cfg.seed)
    photos = Photos(cfg.data.photos, faces) if bench.main.originals.photos is not None else None
    originals, who = Originals(faces, photos), people(faces)
    scorers = scorers_of_faces(bench)
    first = values(bench.gather.tables(originals, scorers, ["none"], [ORIGINAL], "policies")[ORIGINAL], "none")
    result: dict[str, Any] = {name: {} for name in able}
    for preset in cfg.policies:
        policy = Policy.parse(preset)
        tables = bench.gather.tables(originals, scorers, ["none"], able, f"policy {preset}", policy)
        for name, table in tables.items():
            result[name][preset] = figures(first, values(table, "none"), policy, who, bench.draw)
    return result


def scorers_of_faces(bench: Bench) -> dict[str, Any]:
    """What reads a face by itself."""
    from a3gan.evaluation.looks import Looks

    network = bench.attributes.network
    return {"attributes": bench.attributes, "looks": Looks(network, bench.gather.device)}


# --- groups ---------------------------------------------------------------------------------------------------------
def no_groups(bench: Bench) -> str:
    from a3gan.evaluation.groups import groups

    return "" if groups(*_marks(bench)) else "neither gender labels nor enough people for terciles of skin tone"


def _marks(bench: Bench) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    looks = bench.table(ORIGINAL).get(("none", "looks"))
    return bench.main.labels["gender"], None if looks is None else looks["skin_tone"], bench.main.person


def by_groups(bench: Bench) -> By:
    """The headline figures by group, of the first judge."""
    from a3gan.evaluation.groups import Row, figures, groups

    parts, first = groups(*_marks(bench)), bench.table(ORIGINAL)
    if not bench.main.has("gender"):
        bench.off.append("task groups: gender off: no labels of gender")
    judge = next(iter(bench.references), None)
    before = first.get(("none", "attributes"))
    bench.about["groups"] = {name: int(len(np.unique(bench.main.person[rows]))) for name, rows in parts.items()}
    bench.about["groups_judge"] = judge
    result: By = {}
    for name in bench.names:
        result[name] = {}
        for degradation in bench.cfg.degradations:
            table = bench.table(name)
            probe = table[degradation, f"judge-{judge}"]["embedding"] if judge is not None else None
            row = Row(probe, bench.found[name, degradation], table.get((degradation, "attributes")))
            ref, label = bench.references.get(judge), bench.main.labels["expression"]
            result[name][degradation] = figures(parts, row, ref, before, label, bench.main.person, bench.draw)
    return result


# --- expression: heads that learn -----------------------------------------------------------------------------------
def expression_heads(bench: Bench) -> dict[tuple[str, str], dict[str, Any]]:
    """Figures of `expression_heads.heads` by (method, degradation); {} and a line where nothing can be learned."""
    from a3gan.evaluation.expression_heads import clear, heads
    from a3gan.evaluation.looks import Looks
    from a3gan.evaluation.sets import learning_set

    label = bench.main.labels["expression"]
    smiles = label[clear(label)] == 1
    if len(smiles) < LEAST_KNOWN or smiles.all() or not smiles.any():
        bench.off.append("task expression off: no labels of expression (neutral and happiness)")
        return {}
    learning = learning_set(bench.cfg)
    if learning is None:
        reason = f"no labels of expression in split {bench.cfg.heads.split}"
        bench.off.append(f"task expression: heads off: {reason if bench.cfg.heads.images else 'heads.images is 0'}")
        return {}
    scorers = {"looks": Looks(None, bench.gather.device)}
    train = bench.gather.tables(learning.originals, scorers, ["none"], label="learning people")
    originals, fitted, result = train[ORIGINAL]["none", "looks"]["gradients"], None, {}
    before = bench.table(ORIGINAL)["none", "looks"]["gradients"]
    for name in bench.names:
        pair = {"before": originals, "after": train[name]["none", "looks"]["gradients"]}
        for degradation in bench.cfg.degradations:
            test = {"before": before, "after": bench.table(name)[degradation, "looks"]["gradients"]}
            args = (learning.labels["expression"], label, bench.main.person, bench.draw, fitted)
            result[name, degradation], fitted = heads(pair, test, *args)
    bench.about["heads"] = {"faces": len(learning.originals.faces), "split": bench.cfg.heads.split}
    return result


# --- a recogniser that learns from results --------------------------------------------------------------------------
def no_training(bench: Bench) -> str:
    from a3gan.evaluation.train_on import off

    return off(bench)


def train_on_anonymised(bench: Bench) -> By:
    """Trained on results of other people, tested on the real pictures of the judged ones; and who is given away."""
    from a3gan.evaluation.train_on import measure

    return measure(bench)


RUN: dict[str, tuple[Callable[[Bench], By], Callable[[Bench], str]]] = {
    "fatigue": (fatigue, no_fatigue),
    "quality": (quality, no_quality),
    "attributes": (attributes, no_attributes),
    "groups": (by_groups, no_groups),
    "train-on-anonymised": (train_on_anonymised, no_training),
    "dial": (dial.measure, dial.off),
    "controllability": (controllability.measure, controllability.off),
}
