"""Small pictures of the faces that pass 1 meets, so that telling people apart need not decode the clip once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from a3gan.media.people import LEAST_EYES, aligned
from a3gan.media.track_link import overlap

if TYPE_CHECKING:
    from a3gan.media.detect import Faces
    from a3gan.media.track import Track

MOST = 512  # crops of a clip, of 12 KiB each
SAME_PLACE = 0.5  # overlap with the box of a crop from which a face counts as cut out already
RAREST = 16  # steps from crop to crop of a face that stays, at most
WEAKEST = 0.3  # score; what is below continues no track
NEAR = 0.5  # of the eye distance: farthest from a track's points to those of its detection, which are not smoothed


@dataclass
class _Crop:
    """One face: box [4] and landmarks [5, 2] as detected; pixels: `people.aligned`, frame `face`, 64 px."""

    box: np.ndarray
    landmarks: np.ndarray
    pixels: np.ndarray | None


@dataclass(eq=False)
class _Place:
    """Where a face was cut out last: frame, box [4], and the number of crops that it had there."""

    frame: int
    box: np.ndarray
    crops: int


class Crops:
    """Crops of a clip's faces, each known by its frame and place; add frames in their order.

    A face is cut out when it comes to a place, and there again after 1, 2, 3 ... `RAREST`, `RAREST` ... steps: often
    enough where it is seen for a moment only, and not in vain where it stays. A step is one frame, until `most` crops
    are kept. Then steps are made twice as long, as often as it takes, and crops that would not have been made with them
    are dropped, so that all parts of the clip are thinned out alike. The same faces give the same crops.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most, self.step = most, 1
        self._kept: dict[int, list[_Crop]] = {}  # by frame, rising
        self._places: list[_Place] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, frame: int, faces: Faces, image: Callable[[], np.ndarray]) -> None:
        """The faces of a frame, in pixels of its picture uint8 [H, W, 3], which is only made where it is needed."""
        picture = None
        for box, landmarks, score in zip(faces.boxes, faces.landmarks, faces.probability, strict=True):
            box, landmarks = box.astype(np.float64), landmarks.astype(np.float64)
            large = np.linalg.norm(landmarks[1] - landmarks[0]) >= LEAST_EYES
            if not large or score < WEAKEST:
                continue
            if self._count >= self.most:
                self._thin()
            if not self._due(frame, box):
                continue
            picture = image() if picture is None else picture
            self._note(frame, _Crop(box, landmarks, aligned(picture, landmarks)))

    def of(self, track: Track) -> dict[int, np.ndarray | None]:
        """Frame -> crop of those of the track's detections that are kept; None for one that lies half outside."""
        found: dict[int, np.ndarray | None] = {}
        for frame in sorted(track.sightings.keys() & self._kept.keys()):
            one = track.sightings[frame]
            if one.source != "detected":
                continue
            apart = [np.linalg.norm(crop.landmarks - one.landmarks, axis=1).mean() for crop in self._kept[frame]]
            nearest = int(np.argmin(apart))
            if apart[nearest] <= NEAR * one.eye_distance:
                found[frame] = self._kept[frame][nearest].pixels
        return found

    def _note(self, frame: int, crop: _Crop) -> None:
        self._kept.setdefault(frame, []).append(crop)
        self._count += 1

    def _due(self, frame: int, box: np.ndarray) -> bool:
        """Whether to cut out a face; takes note of it then."""
        self._places = [place for place in self._places if frame - place.frame < 2 * RAREST * self.step]
        earlier = [place for place in self._places if place.frame < frame]
        shared = overlap(box[None], np.stack([place.box for place in earlier]))[0] if earlier else np.zeros(1)
        crops = 0
        if shared.max() >= SAME_PLACE:
            last = earlier[int(shared.argmax())]
            if frame - last.frame < self.step * min(last.crops, RAREST):
                return False
            self._places.remove(last)
            crops = last.crops
        self._places.append(_Place(frame, box, crops + 1))
        return True

    def _thin(self) -> None:
        """Makes room for a quarter of `most` at least."""
        while self._count > self.most * 3 // 4:
            before = self._count
            self.step *= 2
            old = [(frame, crop) for frame, crops in self._kept.items() for crop in crops]
            self._kept, self._places, self._count = {}, [], 0
            for frame, crop in old:
                if self._due(frame, crop.box):
                    self._note(frame, crop)
            if self._count == before:  # one crop a place by now, and still too many places
                self._kept, self._count = {}, 0
                for frame, crop in old[::2]:
                    self._note(frame, crop)
