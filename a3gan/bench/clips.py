"""Whole videos: frames a second of each stage and end to end, and against `deface` on the same clip in turn."""

from __future__ import annotations

import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from a3gan.errors import UserError

log = logging.getLogger(__name__)

# As they run; the second pass's overlap, so that their sum is more than the time it takes.
STAGES = ("search", "of it detector", "decode", "align", "synthesise", "compose", "encode")
LONGEST = 3600.0  # s that one command may take


@dataclass
class Versus:
    """Whole commands in turn, start and loading included. seconds: of each pair (ours, theirs); ratios: theirs/ours."""

    name: str
    version: str
    command: str
    pairs: list[tuple[float, float]]

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in self.pairs]


@dataclass
class ClipRow:
    """One clip by one method. busy: stage -> seconds that it worked; seconds: of the whole, models already loaded."""

    clip: str
    method: str
    width: int
    height: int
    frames: int
    faces: int
    seconds: float
    busy: dict[str, float]
    versus: Versus | None = None

    @property
    def rate(self) -> float:
        """Frames a second, end to end."""
        return self.frames / self.seconds


@dataclass
class ClipsReport:
    """All rows, with the machine."""

    device: str
    threads: int
    cores: int
    rows: list[ClipRow] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        out = asdict(self)
        for row, plain in zip(self.rows, out["rows"], strict=True):
            plain["rate"] = row.rate
            if row.versus is not None:
                plain["versus"]["ratios"] = row.versus.ratios
                plain["versus"]["median_ratio"] = statistics.median(row.versus.ratios)
        return out

    def lines(self) -> list[str]:
        """Tables for people."""
        lines = [f"{self.device}, {self.threads} threads, {self.cores} cores"]
        for row in self.rows:
            lines.append(
                f"{row.clip} {row.width}x{row.height}, {row.frames} frames, {row.faces} faces, {row.method}: "
                f"{row.rate:.1f} frames/s end to end"
            )
            for name in STAGES:
                busy = row.busy.get(name, 0.0)
                rate = f"{row.frames / busy:8.1f} frames/s" if busy > 1e-3 else "         -"
                lines.append(f"    {name:15} {1e3 * busy / max(row.frames, 1):8.2f} ms a frame {rate}")
            if row.versus is not None:
                ratios, name = row.versus.ratios, row.versus.name
                ours, theirs = (statistics.median(times) for times in zip(*row.versus.pairs, strict=True))
                middle = statistics.median(ratios)
                lines.append(
                    f"    against {name} {row.versus.version}: {middle:.2f} times as fast (median of {len(ratios)} "
                    f"pairs, {min(ratios):.2f} to {max(ratios):.2f}); whole commands {ours:.1f} s and "
                    f"{theirs:.1f} s, {row.frames / ours:.1f} and {row.frames / theirs:.1f} frames/s"
                )
        return lines


def bench_clips(
    clips: Sequence[str | Path], *, methods: Sequence[str] = ("blur", "a3gan"), weights: str | None = None,
    device: str | None = None, against: str | None = None, program: str | None = None, backend: str = "auto",
    pairs: int = 5, repeats: int = 3,
) -> ClipsReport:  # fmt: skip
    """Anonymises clips, into a folder that is then removed, and times it.

    Args:
        methods: as `a3gan anonymize --method`. weights: of a3gan.
        against: 'deface' or None. program: path of its command; None = found on PATH. backend: what it runs its network
            on. pairs: of commands in turn.
        repeats: of our own run, whose median is told.

    Raises:
        UserError: a clip is missing or no video; `deface` is not found or fails.
    """
    from a3gan.media.run import make_anonymizer
    from a3gan.media.settings import Settings

    if against not in (None, "deface"):
        raise UserError(f"--against {against}: only deface is known")
    found = find_program(program) if against else None
    for clip in clips:
        if not Path(clip).is_file():
            raise UserError(f"{clip}: no such file")
    report = ClipsReport("?", torch.get_num_threads(), os.cpu_count() or 0)
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:
            settings = Settings(method=method, weights=weights if method == "a3gan" else None)
            anonymizer = make_anonymizer(settings, device)
            report.device = str(getattr(anonymizer.method, "runs_on", anonymizer.method.device))
            for clip in clips:
                row = _time_clip(Path(clip), anonymizer, settings, Path(folder), repeats)
                if found is not None:
                    command = [found, *(["--backend", backend] if backend != "auto" else [])]
                    row.versus = versus_deface(Path(clip), settings, command, Path(folder), pairs, device)
                report.rows.append(row)
    return report


class TimedDetector:
    """A detector that adds up the seconds it works."""

    def __init__(self, detector: Any, clock: list[float] | None = None):
        self.detector, self.clock = detector, [0.0] if clock is None else clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.detector, name)

    def sensitive(self) -> TimedDetector:
        """The same clock over the detector's sensitive sibling, if it has one."""
        better = self.detector.sensitive() if hasattr(self.detector, "sensitive") else self.detector
        return TimedDetector(better, self.clock)

    def detect(self, images: Any) -> Any:
        """As the detector's."""
        began = time.perf_counter()
        try:
            return self.detector.detect(images)
        finally:
            self.clock[0] += time.perf_counter() - began


def _time_clip(clip: Path, anonymizer: Any, settings: Any, folder: Path, repeats: int) -> ClipRow:
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.media.pipeline import anonymize_video

    assert isinstance(anonymizer, Anonymizer)
    timed = TimedDetector(getattr(anonymizer.detector, "detector", anonymizer.detector))
    anonymizer._detector = timed
    runs = []
    for i in range(repeats):
        timed.clock[0] = 0.0
        began = time.perf_counter()
        done = anonymize_video(clip, folder / f"{i}.mp4", anonymizer, settings, compare=False)
        took = time.perf_counter() - began
        busy = dict(done.account["seconds"])
        busy = {"search": busy.pop("scan", 0.0), "of it detector": timed.clock[0], **busy}
        busy.pop("all", None)
        runs.append((took, busy, done.account))
        log.info("%s, %s: %.1f s", clip.name, settings.method, took)
        (folder / f"{i}.mp4").unlink()
    took, busy, account = sorted(runs, key=lambda run: run[0])[len(runs) // 2]
    video = account["video"]
    faces = account["totals"]["faces"]
    name = f"{settings.method} {Path(settings.weights).name}" if settings.weights else settings.method
    return ClipRow(clip.name, name, video["width"], video["height"], video["frames"], faces, took, busy)


def find_program(program: str | None) -> str:
    """The `deface` command; UserError with what to do where there is none."""
    found = shutil.which(program or "deface")
    if found is None:
        where = f"{program}: no such program" if program else "deface is not on PATH"
        raise UserError(f"--against deface: {where}; pip install deface (in an environment of its own) and name it")
    return found


def versus_deface(
    clip: Path, settings: Any, command: Sequence[str], folder: Path, pairs: int, device: str | None = None
) -> Versus:
    """Our command and `deface` on a clip, in turn and each first in half of the pairs."""
    ours_out, theirs_out = folder / "ours.mp4", folder / "theirs.mp4"
    ours = [sys.executable, "-m", "a3gan.cli", "anonymize", str(clip), "-o", str(ours_out), "--overwrite", "--quiet"]
    ours += ["--method", settings.method, *(["--weights", settings.weights] if settings.weights else [])]
    ours += ["--device", device] if device else []
    theirs = [*command, str(clip), "-o", str(theirs_out)]
    times = []
    for i in range(pairs):
        took = {}
        for name, words, out in (("ours", ours, ours_out), ("theirs", theirs, theirs_out))[:: 1 if i % 2 else -1]:
            took[name] = run_command(words)
            if not out.is_file():
                raise UserError(f"{words[0]}: wrote no {out.name} from {clip}")
            out.unlink()
        log.info("pair %d: %.1f s against %.1f s", i + 1, took["ours"], took["theirs"])
        times.append((took["ours"], took["theirs"]))
    return Versus("deface", deface_version(command[0]), " ".join(["deface", *command[1:], "CLIP"]), times)


def run_command(command: Sequence[str]) -> float:
    """Wall seconds of a command; UserError with its last words where it fails."""
    import a3gan

    # As this process finds the package, whether it is installed or stands in a working tree.
    path = os.pathsep.join(filter(None, [str(Path(a3gan.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | ({"PYTHONPATH": path} if command[0] == sys.executable else {})
    began = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=env, timeout=LONGEST)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{command[0]}: {error}") from error
    took = time.perf_counter() - began
    if done.returncode:
        words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise UserError(f"{' '.join(map(str, command[:4]))} ... failed with status {done.returncode}: {words}")
    return took


def deface_version(program: str) -> str:
    """What `deface --version` says, or '?'."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    return (done.stdout or done.stderr).strip().split("\n")[-1][:40] or "?"


def plot(report: ClipsReport, path: str | Path) -> Path:
    """PNG: milliseconds a frame of each stage, a group of bars a clip and method; ratios in the labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from a3gan.files import replacing

    rows = report.rows
    figure = Figure(figsize=(9, 1.2 + 1.1 * max(1, len(rows))), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(STAGES)
    for k, stage in enumerate(STAGES):
        places = [i + (k - (len(STAGES) - 1) / 2) * height for i in range(len(rows))]
        axes.barh(places, [1e3 * row.busy.get(stage, 0.0) / max(row.frames, 1) for row in rows], height, label=stage)
    labels = []
    for row in rows:
        ratio = f"\n{statistics.median(row.versus.ratios):.1f} x deface" if row.versus else ""
        labels.append(f"{row.clip}\n{row.method}: {row.rate:.1f} frames/s{ratio}")
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(f"ms a frame ({report.device}, {report.threads} threads); stages overlap")
    axes.legend(fontsize="small")
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return Path(path)
