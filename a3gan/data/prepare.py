"""Raw photos to an aligned archive: `prepare(src, output)`."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from a3gan.data import align
from a3gan.data.archive_file import ArchiveWriter
from a3gan.data.prepare_face import MIN_EYE_DISTANCE, REASONS, FaceWork
from a3gan.data.prepare_journal import Journal
from a3gan.data.prepare_layouts import LAYOUTS
from a3gan.data.prepare_sources import Source, list_sources
from a3gan.errors import UserError

log = logging.getLogger(__name__)

# A generator learns the mirrored borders of pictures above this share.
OUTSIDE_LIMIT = 0.15


@dataclass
class PrepareReport:
    """What came of a run: pictures seen, kept, continued from an earlier run, and the skipped ones by reason."""

    output: Path
    total: int = 0
    kept: int = 0
    reused: int = 0
    outside: int = 0  # kept, but with more than OUTSIDE_LIMIT of reflected pixels
    skipped: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [f"{self.output}: {self.kept} of {self.total} pictures kept in {self.seconds:.0f} s"]
        if self.reused:
            lines.append(f"  continued: {self.reused} pictures were done before")
        if self.outside:
            share = f"more than {OUTSIDE_LIMIT:.0%} outside their source"
            lines.append(f"  {self.outside} lie {share} (left out of the generator's training)")
        for reason, names in self.skipped.items():
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            lines.append(f"  {len(names)} {reason}: {shown}")
        return "\n".join(lines)


def prepare(
    src: str | os.PathLike,
    output: str | os.PathLike,
    *,
    size: int = 128,
    frame: str = "face",
    table: str | os.PathLike | None = None,
    layout: str = "auto",
    detector: object | None = None,
    min_eye_distance: float = MIN_EYE_DISTANCE,
    workers: int = 2,
    progress: bool = True,
) -> PrepareReport:
    """Align every usable face of a source and write one archive.

    SRC is a folder tree, a zip, or a CSV table. Folder and zip: pictures in a sub-folder get its name as identity.
    Table: the column `file` is relative to it (or lies in a zip of the table's stem beside it); `identity` (or
    `identity_cluster`), `split` (default train) and the ten landmark columns are used where present, all other
    columns are kept as labels. Landmarks are pixels of the upright picture; a row without them goes to the detector.
    A copy of CelebA or FFHQ is known by its own folders and tables (`prepare_layouts`), unless `layout` is 'plain'.

    A picture is left out, named in the log and listed in meta.json, when it is
    - missing: the table names it, nothing is there;
    - unreadable: no picture, damaged, or its landmarks do not lie in it;
    - tiny: a side under 16 px, or both the eyes and the way from eyes to mouth under `min_eye_distance` source
      pixels;
    - faceless: no landmarks given, none found;
    - multi-face: several found, and the largest is less than 1.5 times as high as the next. Landmarks given are
      trusted: such a picture is never multi-face.
    None of these stops the rest.

    A run that is stopped leaves OUTPUT.partial beside the output and nothing under the output's name; the same call
    continues it.

    Args:
        src, output: paths. size: side in px. frame: "face" or "ffhq". table: CSV with the labels of a zip or folder.
        layout: 'auto', 'plain', 'celeba' or 'ffhq'.
        detector: as `a3gan.media.detect.load_detector` returns; loaded when first needed if None.
        min_eye_distance: source pixels. workers: threads. progress: show a bar (only on a terminal).

    Raises:
        UserError: nothing to read, nothing usable, bad arguments.
    """
    started = time.monotonic()
    src, output = Path(src), Path(output)
    _check(src, output, size, frame, workers, layout)
    sources = list_sources(src, Path(table) if table else None, layout)
    settings = {"frame": frame, "size": size, "min_eye_distance": min_eye_distance}
    work = FaceWork(frame, size, min_eye_distance, detector)
    report = PrepareReport(output, total=len(sources))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with Journal(output.with_name(output.name + ".partial"), settings) as journal:
            report.reused = sum(source.key in journal.rows for source in sources)
            _run(sources, journal, work, workers, progress)
            _assemble(sources, journal, output, settings, src, report)
    except OSError as error:  # of the output: those of a picture are caught where it is read
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from error
    except KeyboardInterrupt:
        log.warning("stopped; the same command continues from %s.partial", output)
        raise
    journal.remove()
    report.seconds = time.monotonic() - started
    return report


def _check(src: Path, output: Path, size: int, frame: str, workers: int, layout: str) -> None:
    if layout not in LAYOUTS:
        raise UserError(f"--layout {layout}: unknown; one of {', '.join(LAYOUTS)}")
    if frame not in align.FRAMES:
        raise UserError(f"--frame {frame}: unknown; one of {', '.join(align.FRAMES)}")
    if not 16 <= size <= 2048:
        raise UserError(f"--size {size}: must be from 16 to 2048 pixels")
    if workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
    if output.is_dir():
        raise UserError(f"{output}: is a folder; name the archive to write, such as {output / 'faces.zip'}")
    if src.exists() and output.exists() and src.samefile(output):
        raise UserError(f"{output}: is the source itself; name another file")


def _run(sources: list[Source], journal: Journal, work: FaceWork, workers: int, progress: bool) -> None:
    """Works through what the journal does not hold yet."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    todo = [source for source in sources if source.key not in journal.rows]
    shown = progress and sys.stderr.isatty()
    bar = tqdm(total=len(sources), initial=len(sources) - len(todo), desc="prepare", unit="picture", disable=not shown)
    with bar, logging_redirect_tqdm() if shown else nullcontext():
        for source, (data, row) in _in_order(todo, work, workers):
            journal.add(source.key, data, row)
            if "skip" in row:
                log.warning("%s: %s: %s", row["skip"], source.name, row["why"])
            bar.update()


def _in_order(todo: Iterable[Source], work: FaceWork, workers: int) -> Iterator[tuple[Source, tuple[bytes, dict]]]:
    """Results in the order of the sources, a bounded number under way. Threads: Pillow and numpy release the lock."""
    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[Source, Future]] = deque()
    todo = iter(todo)
    try:
        for source in islice(todo, workers * 8):
            waiting.append((source, pool.submit(work, source)))
        while waiting:
            source, future = waiting.popleft()
            yield source, future.result()
            for following in islice(todo, 1):
                waiting.append((following, pool.submit(work, following)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _assemble(
    sources: list[Source], journal: Journal, output: Path, settings: dict, src: Path, report: PrepareReport
) -> None:
    counts: Counter[str] = Counter()
    for source in sources:
        row = journal.rows[source.key]
        if "skip" in row:
            report.skipped.setdefault(row["skip"], []).append(source.name)
        else:
            report.kept += 1
            counts[row["split"]] += 1
            report.outside += float(row["outside"]) > OUTSIDE_LIMIT
    report.skipped = {reason: report.skipped[reason] for reason in REASONS if reason in report.skipped}
    if not report.kept:
        numbers = ", ".join(f"{len(names)} {reason}" for reason, names in report.skipped.items())
        raise UserError(f"{src}: no usable face among {report.total} pictures ({numbers})")
    meta = settings | {"source": src.name, "splits": dict(counts), "skipped": report.skipped}
    with ArchiveWriter(output, settings["frame"], settings["size"], meta) as writer:
        for source in sources:
            row = dict(journal.rows[source.key])
            if "skip" not in row:
                writer.add(Path(source.name).stem, ".jpg", journal.read(source.key), row)
