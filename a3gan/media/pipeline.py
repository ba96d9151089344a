"""A video in, the same video with other faces out: `anonymize_video`.

Two passes, since a face that is found late must also be hidden early. Pass 1 (`scan`, `track`, `people`) finds the
faces of the whole clip; pass 2 (`stages`) decodes again and replaces them. Nothing appears under the output's name
before the file is whole.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from a3gan.errors import UserError
from a3gan.media import account
from a3gan.media.stages import Progress, SecondPass, run_second_pass
from a3gan.media.threads import beside_stages, codec_threads
from a3gan.media.whom import Whom
from a3gan.versions import versions

if TYPE_CHECKING:
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.media.crops import Crops
    from a3gan.media.settings import Settings
    from a3gan.media.track import Track
    from a3gan.media.video import VideoInfo, VideoReader

log = logging.getLogger(__name__)


@dataclass
class VideoReport:
    """One video done. account: as written beside it; its totals are in ``account["totals"]``."""

    source: str
    output: Path
    account: dict[str, Any] = field(default_factory=dict)

    @property
    def totals(self) -> dict[str, int]:
        return self.account.get("totals", {})

    @property
    def doubtful(self) -> int:
        """Faces whose place is a guess."""
        return self.totals.get("doubtful", 0)


@dataclass
class Found:
    """What pass 1 knows of a clip. reader: starts over for each pass. how: thresholds and such, for the account.

    crops: of the faces, until `name_people` has looked at them; None where nobody will, or the faces were given.
    """

    tracks: list[Track]
    frames: int | None
    reader: VideoReader
    how: dict[str, Any]
    cuts: Sequence[int] = ()
    crops: Crops | None = None

    @property
    def info(self) -> VideoInfo:
        """Of the clip."""
        return self.reader.info


@beside_stages()
def anonymize_video(
    source: str | Path, output: str | Path, anonymizer: Anonymizer, settings: Settings, *,
    account_path: Path | None = None, sheet_path: Path | None = None, batch: int | None = None,
    whom: Whom | None = None, progress: Progress | None = None, show: Callable[[np.ndarray], None] | None = None,
    compare: bool = True, search: Callable[[], Found] | None = None,
) -> VideoReport:  # fmt: skip
    """Replaces every face of a video; length, size, timing and sound stay.

    Args:
        anonymizer: with its method and detector. settings: see `Settings`; method and weights in it are only noted.
        account_path, sheet_path: also write the account (JSON) and the contact sheet (PNG; it shows original faces).
        batch: faces a pass at most. whom: knows the persons of earlier files of a run.
        progress: called with (stage, frames done, of all). show: called with every finished frame.
        compare: read residual similarity and jitter.
        search: gives what `find_tracks` found, where that has been asked before.

    Raises:
        UserError: the video or a setting is at fault; nothing stands under the output's name then.
    """
    from a3gan.data.attributes import Policy
    from a3gan.media.video import VideoWriter

    began = time.perf_counter()
    policy = Policy.parse(settings.policy) if settings.policy else anonymizer.policy
    refuse_impossible(anonymizer, settings, policy)
    whom = whom or Whom(settings, lambda: anonymizer.detector)
    found = search() if search is not None else find_tracks(source, lambda: anonymizer.detector, settings, progress)
    draws = anonymizer.method if settings.alpha else None
    name_people(found, whom, method=draws)
    scanned = time.perf_counter() - began
    seeds = whom.track_seeds(found.tracks, Path(source).name, draws, policy)
    ledger = account.Ledger(found.tracks, anonymizer.method, sheet_path is not None, compare)
    stages = SecondPass(anonymizer, found.tracks, seeds, ledger, batch=batch, policy=policy, alpha=settings.alpha)
    with found.reader as reader, ThreadPoolExecutor(1, "a3gan-account") as aside:
        with VideoWriter(
            output, reader.info, Path(source), audio=settings.audio, codec=settings.codec, crf=settings.crf,
            preset=settings.preset, metadata=settings.metadata, start=settings.start, end=settings.end,
        ) as writer:  # fmt: skip
            frames, busy = run_second_pass(reader, writer.write, stages, progress, found.frames, show)
            damage = {"broken_frames": reader.broken, "damaged_frames": reader.damaged}
            if found.frames is not None and frames != found.frames:  # inside: so that nothing gets the final name
                raise UserError(f"{source}: gave {found.frames} frames, then {frames}; is it still being written?")
            tracks = aside.submit(ledger.tracks)  # while the file is finished and checked
    seconds = {"scan": scanned, **busy, "all": time.perf_counter() - began}
    report = VideoReport(str(source), Path(output))
    files = damage | {"notes": [*reader.info.notes, *writer.notes], "dropped_tracks": list(writer.dropped)}
    report.account = _account(report, anonymizer, settings, found, tracks.result(), {"frames": frames} | files, seconds)
    if sheet_path is not None:
        from a3gan.media.contact import contact_sheet

        contact_sheet(ledger, sheet_path)
    if account_path is not None:
        account.write_json(account_path, report.account)
    return report


def anonymize_with(anonymizer: Anonymizer, source: str | Path, output: str | Path, **options: Any) -> VideoReport:
    """`anonymize_video` with the anonymizer's own policy, seed and alpha, unless `options` say otherwise.

    options: fields of `Settings`, and arguments of `anonymize_video`. UserError for one that is neither.
    """
    from a3gan.media.settings import Settings

    made = {"method", "weights", "options", "thresh", "mask_scale", "boxes"}  # the anonymizer is made with these
    names = {field.name for field in fields(Settings)} - made
    chosen = {name: options.pop(name) for name in names & set(options)}
    known = set(inspect.signature(anonymize_video).parameters)
    if wrong := sorted(set(options) - known):
        raise UserError(f"process_video: {', '.join(wrong)} unknown; known: {', '.join(sorted(names | known))}")
    own = {"seed": anonymizer.seed, "alpha": anonymizer.alpha, "method": anonymizer.method.name}
    if anonymizer.policy is not None:
        own["policy"] = str(anonymizer.policy)
    return anonymize_video(source, output, anonymizer, Settings(**own | chosen), **options)


def refuse_impossible(anonymizer: Anonymizer, settings: Settings, policy: Any) -> None:
    """UserError for a policy or alpha that the method cannot follow, before any work."""
    method = anonymizer.method
    empty = torch.zeros(0, 3, method.size, method.size)
    method.anonymize(empty, policy=policy, seeds=[], alpha=settings.alpha)


def prepare(anonymizer: Anonymizer) -> None:
    """Loads and computes what pass 2 needs once, for a time when only one core is busy."""
    from contextlib import suppress

    from a3gan.media.compose import prepare as prepare_composing
    from a3gan.scorers.identity import small_recogniser

    with suppress(UserError):  # an installation without it; whoever needs it says so
        small_recogniser()
    if anonymizer.method.synthesises:
        prepare_composing(anonymizer.method.size, anonymizer.method.frame, anonymizer.mask_scale)


@beside_stages()
def find_tracks(
    source: str | Path, detector: Callable[[], Any], settings: Settings, progress: Progress | None = None
) -> Found:
    """Pass 1: the faces of a clip, by the detector (called for when it is needed) or from the file of detections."""
    from a3gan.media.video import VideoReader

    with VideoReader(source, settings.start, settings.end, codec_threads()) as reader:
        if settings.detections is not None:
            return _given(settings, reader)
        return _searched(reader, detector(), settings, progress)


def _given(settings: Settings, reader: Any) -> Found:
    from a3gan.media.detections import load

    whole = settings.start is None and settings.end is None
    size = (reader.info.width, reader.info.height)
    made = load(settings.detections, size, reader.info.frames if whole else None)
    how = {"detections": Path(settings.detections).name, **made.how}
    return Found(made.tracks, made.frames if whole else None, reader, how, made.cuts)


def _searched(reader: Any, detector: Any, settings: Settings, progress: Progress | None) -> Found:
    from a3gan.media.crops import Crops
    from a3gan.media.scan import scan
    from a3gan.media.track import TrackConfig, link

    looked_at = settings.identity == "person" or settings.keep_ref is not None or settings.only_ref is not None
    crops = Crops() if looked_at else None
    options: dict[str, Any] = {}
    if progress is not None:
        options["progress"] = lambda done, total: progress("scan", done, total)
    if settings.stride is not None or not settings.track:
        options["stride"] = settings.stride if settings.track else 1
    if settings.scale is not None:
        options["scale"] = settings.scale
    result = scan(reader, detector, crops=crops, **options)
    config = TrackConfig.of(settings.thresh, result.stride)
    tracks = link(result.found, result.frames, result.cuts, config, result.size)
    if not settings.track:
        tracks = each_alone(tracks)
    if settings.thresh is not None:
        tracks = [track for track in tracks if track.score >= settings.thresh]
    how = {"detector": getattr(detector, "name", "?"), "searched_frames": len(result.whole)}
    return Found(tracks, result.frames, reader, how | {"tracker": asdict(config)}, result.cuts, crops)


def each_alone(tracks: Sequence[Track]) -> list[Track]:
    """Without tracking: each face that the detector found is a track of its own, in its frame only."""
    from a3gan.media.track import Track

    found = [(frame, one) for track in tracks for frame, one in track.sightings.items() if one.source == "detected"]
    found.sort(key=lambda pair: (pair[0], *pair[1].box.tolist()))
    return [Track(number, {frame: one}) for number, (frame, one) in enumerate(found)]


def name_people(found: Found, whom: Whom, always: bool = False, method: FaceAnonymizer | None = None) -> None:
    """Joins tracks of one person, marks those to keep by the reference photos; method: see `Whom.name_tracks`."""

    def frames() -> Iterator[Any]:
        with found.reader as reader:
            yield from reader

    whom.name_tracks(frames, found.tracks, always, method, found.crops)
    found.crops = None  # megabytes


def _account(
    report: VideoReport, anonymizer: Anonymizer, settings: Settings, found: Found, tracks: list[dict[str, Any]],
    video: dict[str, Any], seconds: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    info = found.info
    seen = {index for track in found.tracks for index in track.sightings}
    return {
        "what": "account of a3gan anonymize",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": source_record(Path(report.source)),
        "output": report.output.name,
        "stamp": settings.stamp(weights_hash(anonymizer)),
        "method": method_record(anonymizer),
        "settings": settings.record(),
        "finding": found.how | {"cuts": list(found.cuts)},
        "video": {
            **video,
            "frames_with_faces": len(seen),
            "width": info.width,
            "height": info.height,
            "rate": str(info.rate),
            "variable_rate": info.variable,
            "codec": info.codec,
        },
        "totals": account.totals(tracks),
        "tracks": tracks,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "versions": versions(),
        "statement": account.STATEMENT,
    }


def source_record(path: Path) -> dict[str, Any]:
    """How an input is known again: its name, bytes and time of change (not its content's hash, which would tie a
    published account to the original)."""
    stat = path.stat()
    return {"file": path.name, "bytes": stat.st_size, "changed": stat.st_mtime_ns}


def weights_hash(anonymizer: Anonymizer) -> str:
    """sha256 of the method's weights, '' for one without; kept on the method, as files may be large."""
    from a3gan import checkpoint

    method = anonymizer.method
    if getattr(method, "path", None) is None:
        return ""
    if not hasattr(method, "_sha256"):
        method._sha256 = checkpoint.sha256(method.path)
    return method._sha256


def method_record(anonymizer: Anonymizer) -> dict[str, Any]:
    """Name, weights, device and options (those that were named) of what anonymised."""
    method = anonymizer.method
    record: dict[str, Any] = {"name": method.name, "size": method.size, "device": str(method.device)}
    if method.options:
        record["options"] = {name: str(v) if isinstance(v, Path) else v for name, v in method.options.items()}
    if weights := getattr(method, "path", None):
        record |= {"weights": Path(weights).name, "sha256": weights_hash(anonymizer)}
    return record
