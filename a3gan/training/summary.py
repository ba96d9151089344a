"""What a finished run says of itself in the terminal: its numbers before and after training, and its files."""

from __future__ import annotations

import json
from pathlib import Path

# metric -> what it is, and what is good; a metric that is not here stands under its own name
WORDS: dict[str, str] = {
    "reconstruction_l1": "reconstruction error, pixels in [-1, 1] (lower)",
    "identity_reconstructed": "identity cosine, original and reconstruction (higher)",
    "identity_anonymised": "identity cosine, original and anonymised (toward strangers)",
    "identity_strangers": "identity cosine, two strangers (the yardstick)",
    "two_seeds": "identity cosine, one face under two seeds (toward strangers)",
    "watched_reconstructed": "the watcher's cosine, original and reconstruction (higher)",
    "watched_anonymised": "the watcher's cosine, original and anonymised (toward strangers)",
    "watched_strangers": "the watcher's cosine, two strangers (the yardstick)",
    "watched_two_seeds": "the watcher's cosine, one face under two seeds (toward strangers)",
    "smile_agreement": "smiling or neutral as before (higher)",
    "pool_mean": "identity cosine, generated face and the nearest training face, mean",
    "pool_p99": "the same, 99th percentile",
    "pool_max": "the same, largest",
    "others_mean": "identity cosine, stranger and the nearest training face, mean (the yardstick)",
    "others_p99": "the same, 99th percentile (the yardstick)",
    "others_max": "the same, largest (the yardstick)",
    "landmark_error": "landmark error, in eye distances (lower)",
}
NOTES: dict[str, str] = {
    "a3gan": "On faces that training never saw, judged by the networks of the losses themselves: this shows that it "
    "learns\nand proves no privacy. `a3gan evaluate` does, with judges that took no part in training.",
}


def first_validation(log: Path) -> dict[str, float]:
    """The metrics that a run's log.jsonl holds from before its first step; {} where it has none."""
    if not log.is_file():
        return {}
    with open(log, encoding="utf-8") as lines:
        for text in lines:
            line = json.loads(text)
            if line["images"] > 0:
                return {}
            if line["kind"] == "val":
                return {name: value for name, value in line.items() if name not in ("images", "kind")}
    return {}


def summary(folder: Path) -> str:
    """The table of before and after and the run's files; of a run that is not complete, its folder alone."""
    path = folder / "metrics.json"
    if not path.is_file():
        return str(folder)
    record = json.loads(path.read_text(encoding="utf-8"))
    before, after = record.get("before", {}), record["metrics"]
    lines = []
    if after:
        names = sorted(after, key=lambda name: list(WORDS).index(name) if name in WORDS else len(WORDS))
        width = max(len(WORDS.get(name, name)) for name in names)
        lines = [f"{'':{width}}  {'before':>8}  {'after':>8}"]
        lines += [f"{WORDS.get(n, n):{width}}  {_number(before.get(n))}  {_number(after[n])}" for n in names]
        lines += [NOTES[record["stage"]]] if record["stage"] in NOTES else []
    sheets = sorted((folder / "sheets").glob("*.png"))
    lines += [f"faces       {sheets[-1]}"] if sheets else []
    lines += [f"checkpoint  {folder / 'checkpoint.safetensors'}", f"run         {folder}"]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return f"{value:8.3f}" if value is not None else f"{'-':>8}"
