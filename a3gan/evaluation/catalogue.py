"""What each figure is called, its unit, which direction is better, and for whom.

Reports and policy files look figures up here: by their full name (`tasks.attributes.change.gender_same`), else by the
last word (`tar`).
"""

from __future__ import annotations

from dataclasses import dataclass

from a3gan.data.attributes import SCHEMA

SHARE = "share"  # in [0, 1], shown in per cent
EYES = "eye distances"


@dataclass(frozen=True)
class Meaning:
    """title: in words. unit: `SHARE`, another unit, or ''. better: 'lower', 'higher' or None. side: 'privacy' (what is
    hidden), 'use' (what is left to use) or None (what others are compared with)."""

    title: str
    unit: str = ""
    better: str | None = None
    side: str | None = None


def _privacy(title: str, unit: str = SHARE, better: str | None = "lower") -> Meaning:
    return Meaning(title, unit, better, "privacy")


def _use(title: str, unit: str = SHARE, better: str | None = "higher") -> Meaning:
    return Meaning(title, unit, better, "use")


def _yardstick(title: str, unit: str = SHARE) -> Meaning:
    return Meaning(title, unit)


VERIFICATION = {
    "tar": _privacy("True matches, threshold of the originals"),
    "tar_found": _privacy("True matches, faces not found counted as hidden"),
    "tar_abs": _privacy("True matches by the absolute cosine"),
    "tar_own": _privacy("True matches, threshold set anew on the results"),
    "fmr": _yardstick("False matches at the threshold of the originals"),
    "eer": _privacy("Equal error rate", better="higher"),
    "auc": _privacy("Area under the ROC curve", ""),
    "psr": _privacy("Pairs matched before and no longer", better="higher"),
    "same_picture": _privacy("Pictures matched with their own original"),
    "cosine_same_picture": _privacy("Mean cosine to the own original", ""),
    "cosine_genuine": _privacy("Mean cosine of pairs of one person", ""),
    "cosine_impostor": _yardstick("Mean cosine of pairs of two people", ""),
    "tar_floor": _yardstick("True matches with shuffled labels"),
    "pairs_tar": _privacy("True matches on the listed pairs"),
    "pairs_fmr": _yardstick("False matches on the listed pairs"),
    "pairs_accuracy": _privacy("Accuracy on the listed pairs, best threshold of the other folds"),
    "pairs_auc": _privacy("Area under the ROC curve on the listed pairs", ""),
    "pairs_count": _yardstick("Listed pairs of which both pictures are judged", "pairs"),
    "pairs_listed": _yardstick("Pairs in the list", "pairs"),
}

IDENTIFICATION = {
    "rank1": _privacy("Person found at rank 1, own original left out"),
    "rank5": _privacy("Person found among the nearest 5, own original left out"),
    "rank10": _privacy("Person found among the nearest 10, own original left out"),
    "map": _privacy("Mean average precision, own original left out", ""),
    "rank1_included": _privacy("Person found at rank 1, own original included"),
    "rank5_included": _privacy("Person found among the nearest 5, own original included"),
    "rank10_included": _privacy("Person found among the nearest 10, own original included"),
    "map_included": _privacy("Mean average precision, own original included", ""),
    "rank1_abs": _privacy("Rank 1 by the absolute cosine"),
    "rank1_opposite": _privacy("Rank 1 by the negated cosine"),
    "rank1_reverse": _privacy("Rank 1, an original among the results"),
    "rank1_chance": _yardstick("Rank 1 by guessing"),
    "rank1_included_chance": _yardstick("Rank 1 by guessing, own original included"),
    "rank1_floor": _yardstick("Rank 1 with shuffled labels"),
}

DETECTION = {
    "found": _use("Faces found where they were"),
    "iou": _use("Mean overlap with the original box", ""),
    "score": _use("Mean score of the detector, a miss counts 0", ""),
    "mosaicked": _use("Faces mosaicked for want of a synthesis", "faces", "lower"),
    "ap": _use("Average precision on frames with several faces", ""),
    "recall": _use("Faces found on frames with several"),
    "false": _use("Wrong finds a frame", "", "lower"),
    "frames": _yardstick("Frames", "frames"),
    "faces": _yardstick("Faces in them", "faces"),
}

EXPRESSION = {
    "agreement": _use("Smile read as on the original"),
    "agreement_found": _use("Smile read as on the original, faces not found counted as lost"),
    "accuracy": _use("Smile read as labelled"),
    "head_agreement": _use("Decisions of a model of originals that stay"),
    "majority": _yardstick("Accuracy of always saying the larger class"),
    "head_faces": _yardstick("Faces from which the heads learned", "faces"),
}
for _name, _title in {
    "on_results": "trained on originals, tested on results",
    "from_results": "trained on results, tested on originals",
    "within_results": "trained and tested on results",
    "ceiling": "trained and tested on originals",
}.items():
    _make = _yardstick if _name == "ceiling" else _use
    EXPRESSION[f"{_name}_accuracy"] = _make(f"Smile: {_title}")
    EXPRESSION[f"{_name}_f1"] = _make(f"Macro-F1 of smile or neutral: {_title}", "")

FATIGUE: dict[str, Meaning] = {}
for _name, _title, _class in (("yawning", "Yawning", "yawns"), ("eyes_closed", "Closed eyes", "closed eyes")):
    FATIGUE |= {
        f"{_name}_agreement": _use(f"{_title}: read as on the original"),
        f"{_name}_agreement_found": _use(f"{_title}: the same, faces not found counted as lost"),
        f"{_name}_accuracy": _use(f"{_title}: read as labelled"),
        f"{_name}_balanced": _use(f"{_title}: read as labelled, mean of the two classes"),
        f"{_name}_recall": _use(f"{_title}: share of the {_class} that are seen"),
    }
FATIGUE |= {
    "clips": _yardstick("Clips", "clips"),
    "tracks": _yardstick("Faces followed", "faces"),
    "eye_error": _use("Mean error of the eyes' opening", "", "lower"),
    "mouth_error": _use("Mean error of the mouth's opening", "", "lower"),
    "eye_correlation": _use("Correlation over time, eyes' opening", ""),
    "mouth_correlation": _use("Correlation over time, mouth's opening", ""),
    "perclos": _yardstick("PERCLOS of the results"),
    "perclos_before": _yardstick("PERCLOS of the originals"),
    "perclos_error": _use("Error of PERCLOS", SHARE, "lower"),
    "jitter": _yardstick("Trembling of the landmarks", EYES),
    "jitter_before": _yardstick("Trembling of the landmarks in the original", EYES),
    "jitter_added": _use("Trembling added to the original's", EYES, "lower"),
}
for _name, _title in (("yawns", "Yawns"), ("closures", "Closures of the eyes of half a second")):
    FATIGUE |= {
        _name: _yardstick(f"{_title} counted in the results", "times"),
        f"{_name}_before": _yardstick(f"{_title} counted in the originals", "times"),
        f"{_name}_missed": _use(f"{_title} lost", "times", "lower"),
        f"{_name}_added": _use(f"{_title} invented", "times", "lower"),
    }

QUALITY = {
    "frechet": _use("Fréchet distance to the originals", "", "lower"),
    "kernel": _use("Kernel distance to the originals", "", "lower"),
    "frechet_floor": _yardstick("Fréchet distance of two halves of the originals", ""),
    "kernel_floor": _yardstick("Kernel distance of two halves of the originals", ""),
    "landmarks": _use("Landmark error", EYES, "lower"),
    "landmarks_eyes": _use("Landmark error, eyes", EYES, "lower"),
    "landmarks_nose": _use("Landmark error, nose", EYES, "lower"),
    "landmarks_mouth": _use("Landmark error, mouth", EYES, "lower"),
    "yaw_error": _use("Error of yaw, as offset of the nose", EYES, "lower"),
    "pitch_error": _use("Error of pitch, as height of the nose between eyes and mouth", "", "lower"),
    "roll_error": _use("Error of roll", "degrees", "lower"),
    # More change of the face hides more; of its surroundings it only spoils the picture.
    "perceptual_face": _yardstick("Perceptual distance within the face", ""),
    "perceptual_around": _use("Perceptual distance around the face", "", "lower"),
    "colour_face": _yardstick("Colour difference within the face", "ΔE"),
    "colour_around": _use("Colour difference around the face", "ΔE", "lower"),
}

GROUPS = {
    "smile_agreement": _use("Smile read as on the original"),
    "smile_accuracy": _use("Smile read as labelled"),
}

SPEED = {
    "seconds_per_face": _use("Time a face", "s", "lower"),
    "faces_per_second": _use("Faces a second", "faces/s"),
    "passes": _yardstick("Passes behind the median", ""),
    "size": _yardstick("Side of its faces", "px"),
    "steps": _yardstick("Steps a face at most, one after the other", ""),
    "parameters": _yardstick("Parameters of the networks that it runs", ""),
    "mib": _yardstick("These networks in memory", "MiB"),
}


# A recogniser that learned from results, on real pictures: what recognises real people is of use as a set to train on.
TRAIN_ON = {
    "auc": _use("Area under the ROC curve", ""),
    "tar": _use("True matches, threshold set on these pairs"),
    "tar_at": _yardstick("False match rate at which this threshold is set"),
    "tar_floor": _yardstick("True matches with shuffled labels"),
    "rank1": _use("Person found at rank 1"),
    "rank1_chance": _yardstick("Rank 1 by guessing"),
    "rank1_floor": _yardstick("Rank 1 with shuffled labels"),
    "accuracy": _use("Mean of true matches and true non-matches at the best threshold"),
    "pairs_accuracy": _use("Accuracy on the listed pairs, best threshold of the other folds"),
    "pairs_auc": _use("Area under the ROC curve on the listed pairs", ""),
}
for _name, _one in list(TRAIN_ON.items()):
    if _one.side == "use":
        TRAIN_ON |= {
            f"{_name}_untrained": _yardstick(f"{_one.title}: before training", _one.unit),
            f"{_name}_blurred": _yardstick(f"{_one.title}: learned from blurred faces", _one.unit),
        }
LEAK = {
    "own_rank1": _privacy("Results whose nearest original is their own"),
    "own_rank1_chance": _yardstick("The same by guessing"),
}


# The dial's steps carry the names of VERIFICATION, EXPRESSION and QUALITY.
DIAL = {
    "spearman": _privacy("Rank correlation of alpha and true matches", ""),
    "drop": _privacy("True matches at alpha 0 less those at alpha 1", better="higher"),
    "largest_rise": _privacy("Largest rise of the true matches from a step to a later one"),
}
_CONTROL = "tasks.controllability.summary"
_UNIT = "differences of strangers"
CONTROL = {
    f"{_CONTROL}.selectivity": _use("What is named moves, less what is not", _UNIT),
    f"{_CONTROL}.only.diagonal": _use("Only this may change: this moves", _UNIT),
    f"{_CONTROL}.only.off_diagonal": _use("Only this may change: the others move", _UNIT, "lower"),
    f"{_CONTROL}.but.diagonal": _use("All but this may change: this moves", _UNIT, "lower"),
    f"{_CONTROL}.but.off_diagonal": _use("All but this may change: the others move", _UNIT),
    f"{_CONTROL}.nothing.moved": _use("Nothing may change: all move", _UNIT, "lower"),
    f"{_CONTROL}.everything.moved": _use("Everything may change: all move", _UNIT),
}
for _one in SCHEMA:
    _title = _one.name.replace("_", " ").capitalize()
    CONTROL[f"{_one.name}_moved"] = (
        _yardstick(f"{_title}: change of its value", "") if _one.kind == "continuous"
        else _yardstick(f"{_title}: read differently from the original")
    )  # fmt: skip


# Searches and verification by attackers carry the names of IDENTIFICATION and VERIFICATION; what is theirs alone:
ATTACKERS = {
    "tar_at": _yardstick("False match rate at which the attacker sets the threshold"),
    "rank1_off_the_shelf": _privacy("Rank 1 without learning"),
    "rank1_head": _privacy("Rank 1 after learning a head"),
    "rank1_tuned": _privacy("Rank 1 after fine-tuning"),
    "rank1_pixels": _privacy("Rank 1 of a network that learned from the pixels"),
    "rank1_joined": _privacy("Rank 1 of both networks together"),
    "ssim": _privacy("Structural similarity of the drawn face to the original", ""),
    "ssim_result": _yardstick("Structural similarity of the result to the original", ""),
    "perceptual": _privacy("Perceptual distance of the drawn face to the original", "", "higher"),
    "perceptual_result": _yardstick("Perceptual distance of the result to the original", ""),
    "d_sys": _privacy("Linkability D_sys", ""),
    "d_sys_floor": _yardstick("Linkability with shuffled labels", ""),
    "told": _yardstick("Read as on the original"),
    "told_learned": _yardstick("The original's class told by an attacker who learned"),
    "told_chance": _yardstick("Told by always saying the commonest class"),
    "bits": _yardstick("Information on the original", "bits"),
    "bits_floor": _yardstick("Information with shuffled labels", "bits"),
    "gender_accuracy_learned": _yardstick("Gender as labelled, told by an attacker who learned"),
    "smile_accuracy_learned": _yardstick("Smile as labelled, told by an attacker who learned"),
    "cosine_two_keys": _yardstick("Mean cosine of two results of one original with two keys", ""),
    "cosine_original": _yardstick("Mean cosine of result and original", ""),
    "two_keys_matched": _privacy("Two results of one original with two keys taken for one person"),
    "two_keys_matched_floor": _yardstick("Two results of two originals with two keys taken for one person"),
    "key_auc": _yardstick("How well two people's results that share a key are told from others", ""),
    "repeat_same": _yardstick("Pictures whose result is the same when made again"),
    "alpha0_rank1": _yardstick("Rank 1 from the features when nothing is suppressed"),
    "alpha0_auc": _yardstick("Area under the ROC curve when nothing is suppressed", ""),
}


for _name in ("parrot", "adaptive", "inversion", "background", "background.face", "suppressed"):
    ATTACKERS[f"attackers.{_name}.tar"] = _privacy("True matches, threshold set by the attacker")


def _attributes() -> dict[str, Meaning]:
    """By attribute; under `keep` and `change` with the direction that the policy wants, elsewhere without one."""
    found: dict[str, Meaning] = {}
    endings = {"same": ("read as on the original", SHARE, 1), "shift": ("change of its value", "", -1)}
    endings["correlation"] = ("correlation with the original's", "", 1)
    for ending, (words, unit, sign) in endings.items():
        names = [a.name for a in SCHEMA if (a.kind == "continuous") == (ending != "same")]
        titles = {f"{name}_{ending}": f"{name.replace('_', ' ').capitalize()}: {words}" for name in names}
        titles |= {ending: f"Mean over the attributes: {words}"} if ending != "correlation" else {}
        for leaf, title in titles.items():
            found[leaf] = _yardstick(title, unit)
            for part, wanted in (("keep", sign), ("change", -sign)):
                better = "higher" if wanted > 0 else "lower"
                found[f"tasks.attributes.{part}.{leaf}"] = Meaning(title, unit, better, "use")
    return found


FIGURES: dict[str, Meaning] = {
    **VERIFICATION, **IDENTIFICATION, **DETECTION, **EXPRESSION, **FATIGUE, **QUALITY, **GROUPS, **SPEED, **ATTACKERS,
    **LEAK, **DIAL, **CONTROL, **{f"tasks.train-on-anonymised.{name}": one for name, one in TRAIN_ON.items()},
    **_attributes(),
    # The row's own readings of labelled attributes (see expression.binary_heads).
    "gender_same": _yardstick("Gender: read as on the original"),
    "gender_accuracy": _yardstick("Gender: read as labelled"),
    "yawning_same": _yardstick("Yawning: read as on the original"),
    "eyes_closed_same": _yardstick("Eyes closed: read as on the original"),
}  # fmt: skip


def meaning(name: str) -> Meaning | None:
    """Of a figure by its full name; None for one that is not known."""
    return FIGURES.get(name) or FIGURES.get(name.rsplit(".", 1)[-1])
