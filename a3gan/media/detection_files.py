"""`a3gan detect`: the faces of videos as files that a person may edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a3gan.errors import UserError
from a3gan.media import jobs as plan
from a3gan.media.detections import Detections, save
from a3gan.media.images import PER_FILE, reason
from a3gan.media.pipeline import Found, find_tracks, name_people
from a3gan.media.run import FrameBar
from a3gan.media.settings import Settings
from a3gan.media.whom import Whom

ENDING = "_tracks.json"


def detect_all(
    inputs: Sequence[str | Path], output: str | Path | None, settings: Settings, *, device: str | None = None,
    overwrite: bool = False, progress: bool = False,
) -> tuple[list[str], bool]:  # fmt: skip
    """Writes the tracks of every video of the inputs; persons are numbered over all of them.

    Returns a line per video, and whether one failed. UserError: no video, an output that exists, or is an input.
    """
    from a3gan.anonymizers.base import pick_device
    from a3gan.media.detect import load_detector

    targets = find_targets(inputs, output)
    for source, target in targets:
        if target.exists() and not overwrite:
            raise UserError(f"{target} exists, perhaps with edits; --overwrite replaces it (for {source})")
    low = None if settings.thresh is None or settings.thresh >= 0.7 else settings.thresh
    detector = load_detector(device=pick_device(device), threshold=low)
    whom = Whom(settings, lambda: detector)
    lines, failed = [], False
    for source, target in targets:
        try:
            with FrameBar(source.name, progress) as bar:
                found = find_tracks(source, lambda: detector, settings, bar)
                name_people(found, whom, always=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            save(target, as_detections(source, found, settings))
            lines.append(_line(found, target))
        except PER_FILE as error:
            failed = True
            lines.append(f"failed: {source}: {reason(error).removeprefix(f'{source}: ')}")
    return lines, failed


def find_targets(inputs: Sequence[str | Path], output: str | Path | None) -> list[tuple[Path, Path]]:
    """Every video of the inputs with its JSON file."""
    single = output is not None and Path(output).suffix.lower() == ".json" and not Path(output).is_dir()
    jobs, _ = plan.find_jobs(inputs, None if single else output)
    videos = [job for job in jobs if job.kind == "video"]
    if not videos:
        raise UserError(f"no video in {', '.join(map(str, inputs))}; `detect` is for videos")
    if single and len(videos) != 1:
        raise UserError(f"-o {output}: names one file, but there are {len(videos)} videos; name a folder")
    if single:
        return [(videos[0].source, Path(output))]
    beside = [job.output.with_name(job.source.stem + ENDING) for job in videos]
    if len(set(beside)) < len(beside):  # a.mp4 and a.avi
        beside = [job.output.with_name(job.source.name + ENDING) for job in videos]
    return [(job.source, target) for job, target in zip(videos, beside, strict=True)]


def as_detections(source: Path, found: Found, settings: Settings) -> Detections:
    """What pass 1 found, as it is saved."""
    info: Any = found.info
    part = {key: value for key in ("start", "end") if (value := getattr(settings, key)) is not None}
    return Detections(
        list(found.tracks), source.name, (info.width, info.height), found.frames, str(info.rate), list(found.cuts),
        found.how | part,
    )  # fmt: skip


def _line(found: Found, target: Path) -> str:
    sure = sum(track.sure for track in found.tracks)
    people = len({track.person for track in found.tracks if track.sure})
    doubt = sum(len(track.doubtful) for track in found.tracks)
    unsure = len(found.tracks) - sure
    return (
        f"{target}: {sure} tracks of {people} people in {found.frames} frames"
        + (f", {unsure} more tracks that are hardly faces" if unsure else "")
        + (f", {doubt} faces in doubt" if doubt else "")
    )
