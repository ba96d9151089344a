"""All inputs of one command, one after the other: `anonymize_all`. One bad file does not stop the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.errors import UserError
from a3gan.files import sweep_dead
from a3gan.media import jobs as plan
from a3gan.media.early import EarlySearch
from a3gan.media.flow import stage_of
from a3gan.media.images import PER_FILE, anonymize_photo, reason
from a3gan.media.jobs import Job, Report
from a3gan.media.pipeline import anonymize_video, method_record, prepare, refuse_impossible, source_record, weights_hash
from a3gan.media.settings import Settings
from a3gan.media.whom import Whom
from a3gan.versions import versions

if TYPE_CHECKING:
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.media.detect import Mtcnn

log = logging.getLogger(__name__)


def anonymize_all(
    inputs: Sequence[str | Path], output: str | Path | None = None, settings: Settings | None = None, *,
    anonymizer: Anonymizer | None = None, device: str | None = None, batch: int | None = None,
    suffix: str = plan.SUFFIX, recursive: bool = True, overwrite: bool = False, strict: bool = False,
    contact_sheet: bool = False, progress: bool = False, show: Callable[[np.ndarray], None] | None = None,
    make: Callable[[], Anonymizer] | None = None,
) -> Report:  # fmt: skip
    """Anonymises photos, videos, folders and patterns of them, file to file.

    Args:
        inputs, output, suffix, recursive: see `jobs.find_jobs`. settings: None = the defaults.
        anonymizer: use this one; else `make` makes it; else it is made from the settings on `device`. Where it must be
            made, the first video is searched for faces meanwhile.
        overwrite: replace results that stand; else those of the same input and settings are skipped, others refused.
        strict: only for the report's exit status. contact_sheet: a PNG beside each video; it shows original faces.
        progress: bars on stderr. show: called with every finished picture or frame.

    Raises:
        UserError: before anything is written: see `jobs.find_jobs`, and settings that the method cannot meet.
    """
    settings = settings or Settings()
    found, ignored = plan.find_jobs(inputs, output, suffix=suffix, recursive=recursive)
    if settings.detections is not None and (len(found) != 1 or found[0].kind != "video"):
        raise UserError(f"{settings.detections}: detections are of one video; name that video as the only input")
    early = None
    if anonymizer is None:
        early = EarlySearch.of(found, settings, overwrite, lambda: _own_detector(settings, device, always=True))
    with early or nullcontext():
        if anonymizer is None:
            anonymizer = make() if make is not None else make_anonymizer(settings, device, batch)
        settings = replace(settings, method=anonymizer.method.name)
        sweep_dead(path for job in found if job.output != Path() for path in (job.output, job.account, job.sheet))
        run = _Run(anonymizer, settings, batch, overwrite, contact_sheet, progress, show, early)
        for job in run.bar(found):
            run.one(job)
    return Report(found, ignored, strict)


def make_anonymizer(settings: Settings, device: str | None = None, batch: int | None = None) -> Anonymizer:
    """What the settings name, on a device; UserError where that is not to be had."""
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.anonymizers.base import Redaction, pick_device
    from a3gan.anonymizers.methods import checked_options, create
    from a3gan.data.attributes import Policy

    policy = Policy.parse(settings.policy) if settings.policy else None
    fallback: dict[str, Any] = {"fallback": Redaction("solid")} if settings.method == "solid" else {}
    device = pick_device(device)
    options = {
        "detector": _own_detector(settings, device), "policy": policy, "seed": settings.secret,
        "alpha": settings.alpha, "batch_size": batch,
        "thresh": settings.thresh or 0.0, "mask_scale": settings.mask_scale, "boxes": settings.boxes,
    } | fallback  # fmt: skip
    own = checked_options(settings.method, settings.options, settings.weights)
    made = Anonymizer(create(settings.method, settings.weights, device=device, **own), **options)
    refuse_impossible(made, settings, policy)
    return made


def _own_detector(settings: Settings, device: Any, always: bool = False) -> Mtcnn | None:
    """The detector that the settings ask for; None for the usual one, unless it is wanted `always`."""
    from a3gan.anonymizers.base import pick_device
    from a3gan.media.detect import load_detector

    # Below the detector's own threshold it must be told to report more.
    low = None if settings.thresh is None or settings.thresh >= 0.7 else settings.thresh
    return None if low is None and not always else load_detector(device=pick_device(device), threshold=low)


class _Run:
    """What all files of a command share. early: a search that is under way already."""

    def __init__(
        self, anonymizer: Anonymizer, settings: Settings, batch: int | None, overwrite: bool, contact_sheet: bool,
        progress: bool, show: Callable[[np.ndarray], None] | None, early: EarlySearch | None = None,
    ):  # fmt: skip
        self.early = early
        self.anonymizer, self.settings, self.batch, self.overwrite = anonymizer, settings, batch, overwrite
        self.contact_sheet, self.progress, self.show = contact_sheet, progress, show
        self.stamp = settings.stamp(weights_hash(anonymizer))
        self.journals: dict[Path, dict[str, dict]] = {}
        self.whom = Whom(settings, lambda: anonymizer.detector)
        if early is not None:
            prepare(anonymizer)

    def bar(self, found: list[Job]) -> Any:
        """The jobs, with a bar where there are many."""
        if not self.progress or len(found) == 1:
            return found
        from tqdm import tqdm

        return tqdm(found, unit="file", disable=None)  # None: silent where stderr is no terminal

    def one(self, job: Job) -> None:
        """Does a job, or says in it why not."""
        try:
            if job.kind == "camera":
                self._camera(job)
                return
            source = source_record(job.source)
            journal = self._journal(job.account) if job.kind == "photo" else {}
            if not self.overwrite and plan.done_before(job, self.stamp, source, journal):
                job.status = "skipped"
                return
            job.output.parent.mkdir(parents=True, exist_ok=True)
            if job.kind == "video":
                self._video(job)
            else:
                self._photo(job, source)
        except PER_FILE as error:
            job.status, job.error = "failed", _reason(error, job)
            log.debug("%s", job.source, exc_info=True)

    def _journal(self, path: Path) -> dict[str, dict]:
        if path not in self.journals:
            self.journals[path] = plan.read_journal(path)
        return self.journals[path]

    def _video(self, job: Job) -> None:
        early = self.early if self.early is not None and self.early.source == job.source else None
        with FrameBar(job.source.name, self.progress) as bar:
            if early is not None:
                early.progress = bar
            report = anonymize_video(
                job.source, job.output, self.anonymizer, self.settings, account_path=job.account,
                sheet_path=job.sheet if self.contact_sheet else None, batch=self.batch, whom=self.whom,
                progress=bar, show=self.show, search=early.found if early is not None else None,
            )  # fmt: skip
        totals = report.totals
        job.record = report.account
        video = report.account["video"]
        job.notes = [*video["notes"], *(f"without {track}" for track in video["dropped_tracks"])]
        job.damaged = video["damaged_frames"]
        job.faces, job.fallback, job.doubtful = totals["faces"], totals["fallback"], totals["doubtful"]
        job.kept = totals["kept"]
        job.status = "done" if job.faces else "no face"

    def _camera(self, job: Job) -> None:
        from a3gan.media import account
        from a3gan.media.live import anonymize_camera
        from a3gan.media.video import CameraReader

        if self.settings.keep_ref is not None or self.settings.only_ref is not None:
            raise UserError("--keep-ref and --only-ref do not work on cameras: a person is known too late")
        output = None if job.output == Path() else job.output
        if output is not None and output.exists() and not self.overwrite:
            raise UserError(f"{output} exists; --overwrite replaces it")
        with CameraReader(int(job.source.name.split()[-1])) as camera:
            counts = anonymize_camera(
                camera, output, self.anonymizer, self.settings, show=self.show, seconds=self.settings.end
            )
        job.status, job.faces, job.fallback = "done", counts["faces"], counts["fallback"]
        job.kept = job.faces - counts["replaced"] - job.fallback
        job.record = {"totals": counts, "method": method_record(self.anonymizer), "settings": self.settings.record()}
        if output is not None:
            account.write_json(job.account, job.record | {"versions": versions()})

    def _photo(self, job: Job, source: dict[str, Any]) -> None:
        settings, seeds = self.settings, self.whom.photo_seeds()
        file = anonymize_photo(
            job.source, job.output, self.anonymizer, seed=settings.secret, alpha=settings.alpha,
            identity="track" if settings.identity == "person" else settings.identity, seeds=seeds,
            metadata=settings.metadata, show=self.show,
        )  # fmt: skip
        if seeds is not None:
            self.whom.note_photo(file.records)
        job.status, job.faces, job.fallback = file.status, file.faces, file.mosaicked
        job.kept = sum(record.status == "kept" for record in file.records)
        plan.note_photo(job, self.stamp, source)


class FrameBar:
    """A bar per pass over a video's frames."""

    def __init__(self, name: str, wanted: bool):
        self.name, self.wanted, self.stage, self.bar = name, wanted, "", None

    def __enter__(self) -> FrameBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if not self.wanted:
            return
        if stage != self.stage:
            from tqdm import tqdm

            self.__exit__()
            text = {"scan": "finding faces", "write": "replacing"}.get(stage, stage)
            self.stage = stage
            self.bar = tqdm(total=total, unit="frame", desc=f"{self.name}: {text}", disable=None, leave=False)
        self.bar.update(done - self.bar.n)


def _reason(error: Exception, job: Job) -> str:
    text = reason(error)
    for name in (f"{job.source}: ", f"{job.output}: "):
        text = text.removeprefix(name)
    stage = stage_of(error)
    return text if stage is None or isinstance(error, UserError) else f"{stage}: {text}"
