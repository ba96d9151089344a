"""From what was typed to what is done: inputs to files, files to outputs, what is done already, what became of it."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from a3gan.errors import UserError
from a3gan.media.images import SUFFIXES as PHOTO_SUFFIXES

SUFFIX = "_anonymized"
JOURNAL = "anonymized_photos.jsonl"  # beside anonymised photos: one line each
SHEET = ".contact.png"


@dataclass
class Job:
    """One input. kind: 'photo', 'video' or 'camera'; status: '' before, then 'done', 'no face', 'skipped' or 'failed'.

    account: where its account goes: a JSON file for a video, the folder's `JOURNAL` for a photo. error: why it failed.
    fallback: faces that could not be done as asked, and were covered. kept: faces left as they are. doubtful: faces
    whose place is a guess. damaged: frames that the decoder had to patch, where a face may look like none. notes:
    tracks encoded anew or left out. record: what became of it, as the account tells.
    """

    source: Path
    output: Path
    kind: str
    account: Path
    status: str = ""
    error: str = ""
    faces: int = 0
    fallback: int = 0
    doubtful: int = 0
    kept: int = 0
    record: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    damaged: int = 0

    @property
    def sheet(self) -> Path:
        """Its contact sheet."""
        return self.output.with_name(self.output.name + SHEET)


@dataclass
class Report:
    """All jobs in the order of the work. ignored: (file, why) of what was not taken as input."""

    jobs: list[Job] = field(default_factory=list)
    ignored: list[tuple[Path, str]] = field(default_factory=list)
    strict: bool = False

    def having(self, *status: str) -> list[Job]:
        """The jobs of those statuses."""
        return [job for job in self.jobs if job.status in status]

    @property
    def exit_status(self) -> int:
        """1: something failed; 3: nothing did, but under --strict a face is in doubt or a photo has none; else 0."""
        if self.having("failed"):
            return 1
        doubt = any(job.doubtful or job.damaged for job in self.jobs) or self.having("no face")
        return 3 if self.strict and doubt else 0

    def lines(self) -> list[str]:
        """For people: every file that needs a look by name, then the counts."""
        lines = [f"failed: {job.source}: {job.error}" for job in self.having("failed")]
        lines += [f"no face found, written unchanged: {job.source}" for job in self.having("no face")]
        lines += [
            f"{job.fallback} of {job.faces} faces could not be done and were covered: {job.source}"
            for job in self.having("done") if job.fallback
        ]  # fmt: skip
        lines += [f"{j.doubtful} faces in doubt, see {j.account.name}: {j.source}" for j in self.jobs if j.doubtful]
        lines += [f"{j.damaged} damaged frames, patched by the decoder: {j.source}" for j in self.jobs if j.damaged]
        for job in self.jobs:
            totals = job.record.get("totals", {})
            if number := totals.get("still_recognised"):
                of = f"{number} of {totals['tracks']} tracks"
                lines.append(f"identity_small still recognises {of}, see {job.account.name}: {job.source}")
        own = [path for path, why in self.ignored if why == "own result"]
        others = len(self.ignored) - len(own)
        done, faces = self.having("done"), sum(job.faces for job in self.jobs)
        kept = sum(job.kept for job in self.jobs)
        how = f"{sum(job.fallback for job in self.jobs)} by fallback" + (f", {kept} left as they are" if kept else "")
        left = sum(0 < job.faces == job.kept for job in done)
        parts = [f"{len(done) - left} anonymised ({faces} faces, {how})"]
        if left:  # of each all faces: asked for, or the method is `identity`
            parts.append(f"{left} left as they were")
        for status, text in (("no face", "without a face"), ("skipped", "done before"), ("failed", "failed")):
            if number := len(self.having(status)):
                parts.append(f"{number} {text}")
        lines.append(f"{len(self.jobs)} files: " + ", ".join(parts))
        if own:
            lines.append(f"{len(own)} results of earlier runs not taken as input")
        if others:
            lines.append(f"{others} other files ignored")
        return lines

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "exit_status": self.exit_status,
            "files": [
                {
                    "source": str(job.source), "output": str(job.output), "kind": job.kind, "status": job.status,
                    "faces": job.faces, "fallback": job.fallback, "kept": job.kept, "doubtful": job.doubtful,
                    **({"error": job.error} if job.error else {}),
                    **({"notes": job.notes} if job.notes else {}),
                    **({"damaged": job.damaged} if job.damaged else {}),
                    **({"account": str(job.account)} if job.kind != "photo" and job.status != "failed" else {}),
                }
                for job in self.jobs
            ],
            "ignored": [{"file": str(path), "why": why} for path, why in self.ignored],
        }  # fmt: skip


def video_suffixes() -> tuple[str, ...]:
    """Of the files that are taken for videos."""
    from a3gan.media.video import VIDEO_SUFFIXES

    return tuple(VIDEO_SUFFIXES)


def find_jobs(
    inputs: Sequence[str | Path], output: str | Path | None = None, *, suffix: str = SUFFIX, recursive: bool = True
) -> tuple[list[Job], list[tuple[Path, str]]]:
    """Every photo and video of the inputs with its output, and the files that are none, with the reason.

    Args:
        inputs: files, folders, patterns (for shells that expand none), or a camera ('cam', 'cam1', '0').
        output: folder, holding the tree below each input folder; or a file, for one input; None = `<stem><suffix><ext>`
            beside each input.
        recursive: look into the folders of folders.

    Raises:
        UserError: an input that does not exist, nothing to do, two files with one output, an output that would
            overwrite an input. Nothing has been written then.
    """
    if not suffix and output is None:
        raise UserError("--suffix '': the result would overwrite its input; give a suffix or -o")
    ignored: list[tuple[Path, str]] = []
    sources: list[tuple[Path, Path]] = []  # file, its place below the input folder
    cameras = {str(text): number for text in inputs if (number := _camera(text)) is not None}
    if cameras:
        return [_camera_job(cameras, inputs, output)], []
    folder = None if output is None or _names_a_file(output, inputs) else Path(output)
    entries = [entry for text in inputs for entry in _expand(text)]
    for entry in entries:
        inside = _inside(entry, recursive) if entry.is_dir() else [entry]
        base = entry if entry.is_dir() else entry.parent
        for path in inside:
            why = _why_not(path, folder, suffix, base, only=len(entries) == 1 and not entry.is_dir())
            if why:
                ignored.append((path, why))
            else:
                sources.append((path, path.relative_to(base)))
    # A file named by itself and found in a folder as well is done once.
    unique = list({path.resolve(): (path, place) for path, place in reversed(sources)}.values())[::-1]
    if not unique:
        own = any(why == "own result" for _, why in ignored)
        raise UserError(
            f"no photo or video in {', '.join(map(str, inputs)) or 'the inputs'}"
            + (" but results of earlier runs; rename one to use it as input" if own else "")
        )
    jobs = [_job(path, place, output, folder, suffix) for path, place in unique]
    refuse_clashes(jobs)
    return jobs, ignored


def _camera(text: str | Path) -> int | None:
    """Number of a camera; None for what names none, or an existing file."""
    from a3gan.media.video import camera_index

    return None if Path(text).exists() else camera_index(str(text))


def _camera_job(cameras: dict[str, int], inputs: Sequence[str | Path], output: str | Path | None) -> Job:
    """One camera, to a file, into a folder, or (output '') to nowhere but the preview."""
    if len(inputs) != 1:
        raise UserError(f"{next(iter(cameras))}: a camera cannot be one of several inputs; run it by itself")
    number = next(iter(cameras.values()))
    target = Path(output) if output is not None else Path()
    if output is not None and target.suffix.lower() not in video_suffixes():
        target = target / f"camera{number}.mp4"
    account = target.with_suffix(".json") if output is not None else target
    return Job(Path(f"camera {number}"), target, "camera", account)


def _names_a_file(output: str | Path, inputs: Sequence[str | Path]) -> bool:
    """Whether -o names a file: it ends like a photo or video and is no folder."""
    text, path = str(output), Path(output)
    if path.is_dir() or text.endswith(("/", "\\")):
        return False
    if path.suffix.lower() not in (*PHOTO_SUFFIXES, *video_suffixes()):
        if path.exists():
            raise UserError(f"{path}: exists and is no folder; name a folder for the results")
        return False
    entries = [entry for text in inputs for entry in _expand(text)]
    if len(entries) != 1 or entries[0].is_dir():
        raise UserError(f"-o {path}: names one file, but there are more inputs; name a folder for the results")
    return True


def _expand(text: str | Path) -> list[Path]:
    """The path, or the files that it is a pattern for."""
    path = Path(text)
    if path.exists():
        return [path]
    if any(mark in str(text) for mark in "*?["):
        found = sorted(Path(name) for name in glob.glob(str(text), recursive=True))
        if not found:
            raise UserError(f"{text}: no file is named like that")
        return found
    raise UserError(f"{path}: no such file or folder")


def _inside(folder: Path, recursive: bool) -> list[Path]:
    found = folder.rglob("*") if recursive else folder.glob("*")
    return [path for path in sorted(found) if path.is_file()]


def _why_not(path: Path, folder: Path | None, suffix: str, base: Path, only: bool) -> str:
    """Why a file is no input, '' if it is one. only: it is all that was asked for."""
    if path.name == JOURNAL or path.name.endswith(SHEET) or (suffix and path.stem.endswith(suffix)):
        return "own result"
    if folder is not None:
        inside = folder.resolve()
        if inside != base.resolve() and inside in path.resolve().parents:
            return "own result"
    if only:
        return ""  # tried even where its name says nothing
    if path.name.startswith("."):
        return "hidden"
    return "" if path.suffix.lower() in (*PHOTO_SUFFIXES, *video_suffixes()) else "no photo or video"


def _job(path: Path, place: Path, output: str | Path | None, folder: Path | None, suffix: str) -> Job:
    from a3gan.media.video import is_video

    kind = "video" if is_video(path) else "photo"
    if folder is not None:
        target = folder / place
        account = folder / JOURNAL if kind == "photo" else target.with_name(target.name + ".json")
        return Job(path, target, kind, account)
    target = Path(output) if output is not None else path.with_name(path.stem + suffix + path.suffix)
    account = target.with_name(JOURNAL) if kind == "photo" else target.with_suffix(".json")
    return Job(path, target, kind, account)


def refuse_clashes(jobs: Iterable[Job]) -> None:
    """UserError where an output is an input, or two outputs are one; two accounts of one name get longer ones."""
    jobs = list(jobs)
    sources = {job.source.resolve() for job in jobs}
    taken: dict[str, Path] = {}
    accounts: dict[str, Job] = {}
    for job in jobs:
        if job.output.resolve() in sources or (job.output.exists() and job.output.samefile(job.source)):
            raise UserError(f"{job.output}: would overwrite an input; choose another output")
        # Compared without case: on Windows and macOS A.jpg and a.jpg are one file.
        other = taken.setdefault(str(job.output.resolve()).casefold(), job.source)
        if other is not job.source:
            raise UserError(f"{other} and {job.source} would both become {job.output}; use two output folders")
        if job.kind == "video":
            first = accounts.setdefault(str(job.account.resolve()).casefold(), job)
            if first is not job:
                job.account = job.output.with_name(job.output.name + ".json")


def done_before(job: Job, stamp: str, source: dict[str, Any], journal: dict[str, dict]) -> bool:
    """Whether the output stands and its account says: made of this input, with these settings.

    Raises UserError where an output stands that is something else.
    """
    if not job.output.exists():
        return False
    from a3gan.media.account import read_json

    record = journal.get(_key(job)) if job.kind == "photo" else read_json(job.account)
    if record and record.get("stamp") == stamp and record.get("source") == source:
        return True
    raise UserError(
        f"{job.output} exists" + (", made of another input or with other settings" if record else "")
        + "; --overwrite replaces it"
    )  # fmt: skip


def _key(job: Job) -> str:
    return job.output.resolve().relative_to(job.account.resolve().parent).as_posix()


def read_journal(path: Path) -> dict[str, dict]:
    """Lines of a journal by output; the last line of a file counts, broken ones do not."""
    entries: dict[str, dict] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return entries
    for line in lines:
        try:
            entry = json.loads(line)
            entries[entry["output"]] = entry
        except (ValueError, KeyError, TypeError):
            continue
    return entries


def note_photo(job: Job, stamp: str, source: dict[str, Any]) -> None:
    """Adds a photo's line to its journal."""
    entry = {
        "output": _key(job), "source": source, "stamp": stamp, "status": job.status,
        "faces": job.faces, "fallback": job.fallback,
    }  # fmt: skip
    with open(job.account, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
