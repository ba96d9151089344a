"""A camera: one pass with a short delay. `find_ahead` sees some frames ahead of those that it hands on, so that a face
which is found late is hidden from a little before, and gaps are filled."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.anonymizers.base import face_seed
from a3gan.errors import UserError
from a3gan.media.stages import SecondPass, Work, run_second_pass
from a3gan.media.threads import beside_stages

if TYPE_CHECKING:
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.media.settings import Settings
    from a3gan.media.track import Sighting, Track
    from a3gan.media.video import CameraReader, Frame

log = logging.getLogger(__name__)

STRIDE = 3  # frames from one search to the next
AHEAD, BEHIND = 18, 30  # frames known beyond the one handed on, and remembered before it
SAME = 0.3  # overlap from which faces of two windows are one


class Numbers:
    """Gives tracks of overlapping windows numbers that last."""

    def __init__(self) -> None:
        self.next = 0
        self.known: dict[int, dict[int, np.ndarray]] = {}  # frame -> number -> box

    def name(self, tracks: Iterable[Track], since: int) -> None:
        """Sets `number` of each track to that of the face it continues, else to a new one; forgets before `since`."""
        from a3gan.media.track_link import overlap

        taken: set[int] = set()
        for track in sorted(tracks, key=lambda t: -len(t.sightings)):
            votes: Counter = Counter()
            for frame, one in track.sightings.items():
                for number, box in self.known.get(frame, {}).items():
                    if number not in taken and overlap(one.box[None], box[None])[0, 0] >= SAME:
                        votes[number] += 1
            track.number = votes.most_common(1)[0][0] if votes else self.next
            self.next = max(self.next, track.number + 1)
            taken.add(track.number)
            for frame, one in track.sightings.items():
                self.known.setdefault(frame, {})[track.number] = one.box
        self.known = {frame: boxes for frame, boxes in self.known.items() if frame >= since}


def find_ahead(
    frames: Iterable[Frame], detector: Any, known: dict[int, list[tuple[Track, Sighting]]], settings: Settings
) -> Iterator[Frame]:
    """The frames, `AHEAD` later than they came; before each one, `known` is told its faces (to be taken out again)."""
    from a3gan.media.track import TrackConfig, link

    stride = 1 if not settings.track else settings.stride or STRIDE
    config = TrackConfig.of(settings.thresh, stride, max_gap=AHEAD)
    held: deque[Frame] = deque()
    found: dict[int, Any] = {}
    numbers, shape = Numbers(), None

    def ready(count: int) -> Iterator[Frame]:
        """Hands on the `count` oldest frames, by what is known now."""
        last = held[-1].index + 1
        tracks = link(found, last, (), config, shape)
        numbers.name(tracks, held[0].index - BEHIND)
        for frame in [held.popleft() for _ in range(count)]:
            known[frame.index] = [(t, t.sightings[frame.index]) for t in tracks if frame.index in t.sightings]
            yield frame
        for frame in [f for f in found if f < last - len(held) - BEHIND]:
            del found[frame]

    for frame in frames:
        image = frame.image
        shape = image.shape[1::-1]
        held.append(frame)
        if frame.index % stride == 0:
            found[frame.index] = detector.detect([image])[0]
        if len(held) >= AHEAD + stride:
            yield from ready(stride)
    if held:
        yield from ready(len(held))


class LivePass(SecondPass):
    """`SecondPass` over faces that become known as it goes. counts: faces by what became of them."""

    def __init__(self, anonymizer: Anonymizer, settings: Settings):
        super().__init__(anonymizer, [], {}, batch=None, alpha=settings.alpha)
        self.settings, self.pending, self.counts = settings, 4, Counter()
        self.passes = 1  # frames come no faster than they are shown
        self.hold, self.redact_unsure = 0, False  # what is seen of a track grows from frame to frame

    def align(self, frames: Iterable[Frame]) -> Iterator[Work]:
        """As `SecondPass.align`; what is known of a frame is forgotten after it."""

        def named() -> Iterator[Frame]:
            for frame in frames:
                for track, sighting in self.by_frame[frame.index]:
                    if track.number not in self.seeds:
                        self.seeds[track.number] = self._unlike(frame, sighting, self._seed(track.number))
                yield frame

        for work in super().align(named()):
            del self.by_frame[work.index]
            yield work

    def _unlike(self, frame: Frame, sighting: Sighting, seed: int) -> int:
        """Another seed where this one's face resembles the first sighting; later ones do not change it any more."""
        import torch

        from a3gan.data.ranges import to_float
        from a3gan.media.people import aligned

        method = self.anonymizer.method
        if not method.redraw or not self.settings.alpha:
            return seed
        crop = aligned(frame.image, sighting.landmarks, method.size, method.frame)
        if crop is None:
            return seed
        face = to_float(torch.from_numpy(crop).permute(2, 0, 1)[None].contiguous())
        return method.settle(face, [seed], self.policy or self.anonymizer.policy)[0]

    def _seed(self, number: int) -> int:
        import secrets

        if self.settings.identity == "random":
            return face_seed(secrets.token_hex(16), number)
        return face_seed(self.settings.secret, "fixed" if self.settings.identity == "fixed" else f"live {number}")

    def compose(self, works: Iterable[Work]) -> Iterator[Work]:
        """As `SecondPass.compose`, counting."""

        def counted() -> Iterator[Work]:
            for work in works:
                records.append([face.record for face in work.faces])
                yield work

        records: list = []
        for work in super().compose(counted()):
            for record in records.pop(0):
                self.counts[record.status] += 1
            yield work


@beside_stages()
def anonymize_camera(
    camera: CameraReader, output: Path | None, anonymizer: Anonymizer, settings: Settings, *,
    show: Callable[[np.ndarray], None] | None = None, seconds: float | None = None,
) -> dict[str, int]:  # fmt: skip
    """Anonymises a camera until it ends, `seconds` have passed or somebody presses Ctrl-C.

    Writes `output` (no sound) and calls `show` with every frame, about `AHEAD` frames late. A face that comes into
    sight is hidden from its first detection, and before as far as tracking reaches back; one never detected is not.

    Returns frames, faces, and of them replaced and fallback (redacted since they could not be replaced).
    """
    from contextlib import nullcontext

    from a3gan.media.video import VideoWriter

    if output is None and show is None:
        raise UserError("camera: nowhere to put the pictures; give -o FILE or --preview")
    stages = LivePass(anonymizer, settings)
    frames = 0
    writer = nullcontext() if output is None else VideoWriter(
        output, camera.info, None, codec=settings.codec, crf=settings.crf, preset=settings.preset
    )  # fmt: skip
    with writer:

        def write(image: np.ndarray, pts: int, *_stored: Any) -> None:
            nonlocal frames
            frames += 1
            if output is not None:
                writer.write(image, pts)

        source = find_ahead(_until(camera, seconds), anonymizer.detector, stages.by_frame, settings)
        try:
            run_second_pass(source, write, stages, show=show)
        except KeyboardInterrupt:
            log.info("stopped after %d frames", frames)
    counts = stages.counts
    replaced = counts["synthesised"] + counts["redacted"]
    return {"frames": frames, "faces": sum(counts.values()), "replaced": replaced, "fallback": counts["mosaicked"]}


def _until(frames: Iterable[Frame], seconds: float | None) -> Iterator[Frame]:
    tick = None
    for frame in frames:
        tick = frame.pts if tick is None else tick
        if seconds is not None and (frame.pts - tick) / 1e6 > seconds:
            return
        yield frame
