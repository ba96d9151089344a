"""Persons: which tracks, of one file or several, show the same one, and who is on reference photos.

Tracks are compared by our small recogniser (`identity_small`), which is weak: several sharp sightings of a track are
averaged, tracks seen at the same time are never joined, and doubt always ends in anonymising.

Cosines of means of about four photos, people of LFW `val` and `train` (26 and 96 of them):

    threshold                    others taken for one     same person not recognised
    0.45  ONLY                   4 - 5 %                  0 %
    0.55  SAME                   1 - 2 %                  0 %
    0.75  SAME_FILES             0 - 0.01 %               20 - 50 %
    0.80  KEEP                   0 of 9,770 pairs         32 - 58 %

(`val` the worse; the network was trained on `train`.) One camera makes strangers look more alike than that: see
SAME_FILES.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.media.crops import Crops
    from a3gan.media.detect import Mtcnn
    from a3gan.media.track import Sighting, Track

log = logging.getLogger(__name__)

SAME = 0.55  # mean cosine from which tracks of one file are one person
SAME_FILES = 0.75  # and of different files: two drivers filmed by one camera, different people, come to 0.74
KEEP = 0.80  # to leave a face alone (--keep-ref): a mistake shows a face that should be hidden
ONLY = 0.45  # to anonymise (--only-ref): a mistake hides a face too many
SIGHTINGS = 6  # per track, averaged
CANDIDATES = 15  # per track, looked at for the sharpest
ENOUGH = 3  # crops from pass 1 with which the clip is not decoded for a track
LEAST_EYES = 8.0  # px between the eyes: smaller faces say nothing of who it is
FEW = 100  # vectors that are clustered without scipy
NEVER = 1e3  # distance of tracks that cannot be one person

PLAIN = ("face", 64)  # frame and side of the crops that are compared

Embeddings = dict[int, np.ndarray]  # track number -> unit embeddings [n, E] of its sightings


@dataclass
class Person:
    """mean: sum of the unit embeddings of its tracks; tracks: how many."""

    mean: np.ndarray
    tracks: int = 1


class People:
    """The persons of a run, over all its files; numbers go on from file to file.

    crops: what `look` saw last, by the track's number, the sharpest first, without those that no new
    face is drawn for (`media.fit.unfit`): uint8 [S, S, 3].

    Args:
        recogniser: as `scorers.identity.load_recogniser`; None = identity_small, loaded when first needed.
        same: cosine from which two tracks are one person.
    """

    def __init__(self, recogniser: Any = None, same: float = SAME) -> None:
        self._recogniser, self.same = recogniser, same
        self.persons: list[Person] = []
        self.crops: dict[int, list[np.ndarray]] = {}

    @property
    def recogniser(self) -> Any:
        if self._recogniser is None:
            from a3gan.scorers.identity import small_recogniser

            self._recogniser = small_recogniser()
        return self._recogniser

    def look(
        self, frames: Iterable[Any], tracks: Sequence[Track], like: tuple[str, int] = ("face", 64),
        kept: Crops | None = None,
    ) -> Embeddings:  # fmt: skip
        """Embeddings of the sharpest sightings of each track; tracks without a usable one are missing.

        like: frame and side of what is kept of them in `crops`.
        frames: with `index` and `image` (only those needed are asked for their image), e.g. a `VideoReader`; taken in a
        thread of their own, some ahead. Not even begun where `kept` has enough of every track, in the frame `like`.
        """
        from a3gan.media.threads import on_all_cores

        wanted: dict[int, list[Track]] = {}
        seen: dict[int, _Sharpest] = {track.number: _Sharpest() for track in tracks}
        for track in tracks:
            at_hand = kept.of(track) if kept is not None and like == PLAIN else {}
            if len(usable(track, at_hand)) >= min(ENOUGH, (len(usable(track)) + 1) // 2):
                for frame in candidates(track, at_hand):
                    seen[track.number].note(track.sightings[frame], at_hand[frame], at_hand[frame])
            else:
                for frame in candidates(track):
                    wanted.setdefault(frame, []).append(track)
        if wanted:
            self._decode(frames, wanted, like, seen)
        best = {number: one.best for number, one in seen.items() if one.best}
        self.crops = {n: [own for _, _, own in some if own is not None] for n, some in best.items()}
        if not best:
            return {}
        _ = self.recogniser  # not loaded by two threads at once
        chosen = [[crop for _, crop, _ in some] for some in best.values()]
        return dict(zip(best, on_all_cores(self.embed, chosen), strict=True))

    def _decode(
        self, frames: Iterable[Any], wanted: dict[int, list[Track]], like: tuple[str, int], seen: dict[int, _Sharpest]
    ) -> None:
        """Notes in `seen`, by the track's number, the sightings of these tracks in these frames."""
        from a3gan.media.flow import Flow

        with Flow() as flow:
            ahead = flow.ahead("decode", _wanted(frames, set(wanted)))
            _ = self.recogniser  # loaded while the first frames are decoded
            for frame in ahead:
                for track in wanted[frame.index]:
                    points = track.sightings[frame.index].landmarks
                    crop = aligned(frame.image, points)
                    own = crop if like == PLAIN else aligned(frame.image, points, like[1], like[0])
                    seen[track.number].note(track.sightings[frame.index], crop, own)

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Unit embeddings [n, E] of aligned crops uint8 [S, S, 3] (frame `face`)."""
        import torch

        from a3gan.data.ranges import to_float

        with torch.inference_mode():
            return self.recogniser(to_float(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))).cpu().numpy()

    def name(self, tracks: Sequence[Track], embeddings: Embeddings) -> None:
        """Sets `Track.person`: known persons are found again, new ones get the next numbers.

        Average linkage (Sokal and Michener 1958) on 1 - cosine; tracks that overlap in time stay apart, and so do
        persons known before. A track without embedding is a person of its own.
        """
        known = [t for t in tracks if t.number in embeddings]
        vectors = [_unit(p.mean) for p in self.persons] + [_unit(embeddings[t.number].mean(0)) for t in known]
        old = len(self.persons)
        # The stricter threshold between files is had by making those distances longer.
        stretch = np.ones((len(vectors),) * 2)
        stretch[:old, old:] = stretch[old:, :old] = (1 - self.same) / (1 - max(self.same, SAME_FILES))
        labels = cluster(vectors, self._apart(known), 1 - self.same, stretch)
        numbers: dict[int, int] = {int(label): i for i, label in enumerate(labels[: len(self.persons)])}
        for track, label, vector in zip(
            known, labels[len(self.persons) :], vectors[len(self.persons) :], strict=True
        ):
            if int(label) not in numbers:
                numbers[int(label)] = len(self.persons)
                self.persons.append(Person(np.zeros_like(vector), 0))
            track.person = numbers[int(label)]
            person = self.persons[track.person]
            person.mean, person.tracks = person.mean + vector, person.tracks + 1
        size = len(self.persons[0].mean) if self.persons else 1
        for track in tracks:
            if track.number not in embeddings:
                track.person = len(self.persons)
                self.persons.append(Person(np.zeros(size), 0))

    def _apart(self, tracks: Sequence[Track]) -> np.ndarray:
        """bool [m, m] over persons and tracks: pairs that cannot be one."""
        old = len(self.persons)
        apart = np.zeros((old + len(tracks),) * 2, bool)
        apart[:old, :old] = True
        real = [{f for f, s in t.sightings.items() if s.source in ("detected", "given")} for t in tracks]
        for i in range(len(tracks)):
            for j in range(i):
                apart[old + i, old + j] = apart[old + j, old + i] = not real[i].isdisjoint(real[j])
        return apart


class _Sharpest:
    """best: up to `SIGHTINGS` of one track: sharpness, crop, and the crop to draw a new face for or None."""

    def __init__(self) -> None:
        self.best: list[tuple[float, np.ndarray, np.ndarray | None]] = []

    def note(self, sighting: Sighting, crop: np.ndarray | None, own: np.ndarray | None) -> None:
        """crop, own: of that sighting, in the frames that are compared and drawn; crop None = nothing to see."""
        from a3gan.media.fit import unfit

        if crop is None:
            return
        self.best.append((sharpness(crop), crop, None if unfit(sighting.box, sighting.landmarks) else own))
        self.best.sort(key=lambda one: -one[0])
        del self.best[SIGHTINGS:]


def cluster(
    vectors: Sequence[np.ndarray], apart: np.ndarray, distance: float, stretch: np.ndarray | None = None
) -> np.ndarray:
    """Labels [n] of unit vectors joined up to a mean cosine distance; pairs marked in `apart` never share one.

    stretch: factors [n, n] of the distances. A vector of zeros (nothing known) joins nothing.
    """
    if len(vectors) < 2:
        return np.arange(len(vectors))
    stack = np.stack(vectors)
    far = np.maximum(1 - stack @ stack.T, 0) * (1.0 if stretch is None else stretch)
    # Complete linkage would keep pairs apart as well, but splits people whose pose changes; a mean with so large a
    # term stays above any threshold for thousands of tracks.
    far = np.where(apart, NEVER * len(vectors) ** 2, (far + far.T) / 2)
    if len(vectors) <= FEW:
        return _linked(far, distance)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    np.fill_diagonal(far, 0)
    return fcluster(linkage(squareform(far, checks=False), "average"), distance, "distance")


def _linked(far: np.ndarray, distance: float) -> np.ndarray:
    """Average linkage as scipy's, for as few vectors as most clips have: that one takes a third of a second to import.

    far: [n, n], symmetric, overwritten. Time grows with the cube of n.
    """
    np.fill_diagonal(far, np.inf)
    label, size = np.arange(len(far)), np.ones(len(far))
    while True:
        i, j = np.unravel_index(far.argmin(), far.shape)
        if not far[i, j] <= distance:
            return label
        far[i] = far[:, i] = (size[i] * far[i] + size[j] * far[j]) / (size[i] + size[j])
        far[j] = far[:, j] = far[i, i] = np.inf
        size[i] += size[j]
        label[label == j] = i


def _wanted(frames: Iterable[Any], numbers: set[int]) -> Iterator[Any]:
    """Those frames, with their image made, up to the last of them."""
    last = max(numbers)
    for frame in frames:
        if frame.index in numbers:
            _ = frame.image  # made when first asked for: here, where others need not wait for it
            yield frame
        if frame.index >= last:
            return


def candidates(track: Track, among: Collection[int] | None = None) -> list[int]:
    """Frames whose sighting is worth a look: `usable`, upright enough, large; spread over the track."""
    frames = usable(track, among)
    if len(frames) <= CANDIDATES:
        return frames
    # Of each stretch of the track the best: large and seen from the front.
    parts = np.array_split(np.array(frames), CANDIDATES)
    return [int(max(part, key=lambda f: _front(track.sightings[int(f)]))) for part in parts]


def usable(track: Track, among: Collection[int] | None = None) -> list[int]:
    """Frames, of those in `among`, in which the track was detected large enough, in order; doubtful ones only where
    there are no others."""
    frames = sorted(f for f, s in track.sightings.items() if _usable(s) and (among is None or f in among))
    return [f for f in frames if f not in track.doubtful] or frames


def _usable(sighting: Sighting) -> bool:
    return (
        sighting.source in ("detected", "given")
        and sighting.landmarks is not None
        and sighting.eye_distance >= LEAST_EYES
    )


def _front(sighting: Sighting) -> float:
    """Eye distance, less by how far the nose is off the middle."""
    points = sighting.landmarks
    middle = (points[0] + points[1]) / 2
    along = (points[1] - points[0]) / max(sighting.eye_distance, 1e-6)
    turn = abs(float((points[2] - middle) @ along)) / max(sighting.eye_distance, 1e-6)
    return sighting.eye_distance * max(0.0, 1 - turn)


def aligned(
    image: np.ndarray, landmarks: np.ndarray | None, size: int = 64, frame: str = "face"
) -> np.ndarray | None:
    """Crop uint8 [S, S, 3] of that frame; None where the points allow none or half of it lies outside."""
    from a3gan.data.align import similarity_of, warp

    if landmarks is None:
        return None
    matrix = similarity_of(landmarks, frame, size)
    if not np.isfinite(matrix).all():
        return None
    try:
        crop, outside = warp(image, matrix, size)
    except (ValueError, RuntimeError):
        return None
    return None if outside > 0.5 else crop


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian of the grey crop, relative to its contrast."""
    gray = crop.astype(np.float32).mean(2)
    laplace = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1] - 4 * gray[1:-1, 1:-1]
    return float(laplace.var() / (gray.var() + 1))


@dataclass
class References:
    """People on photos: unit embeddings [n, E] and the file of each."""

    embeddings: np.ndarray
    files: list[str]

    @classmethod
    def load(cls, folder: str | Path, people: People, detector: Mtcnn) -> References:
        """The largest face of every photo below a folder.

        Raises UserError: no such folder, a photo without a face (with --keep-ref and --only-ref alike the user counts
        on every photo), or one that cannot be read.
        """
        from a3gan.media.pictures import to_array

        folder = Path(folder)
        files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"{folder}: no reference photos there ({', '.join(sorted(SUFFIXES))})")
        crops = []
        for path in files:
            image = to_array(_open(path))
            faces = detector.detect([image])[0]
            crop = aligned(image, faces.landmarks[0]) if len(faces) else None
            if crop is None:
                raise UserError(f"{path}: no face found on this reference photo; remove it, or take a clearer one")
            crops.append(crop)
        return cls(people.embed(crops), [str(p) for p in files])

    def similarity(self, embeddings: np.ndarray) -> tuple[float, float]:
        """Best cosine of the track's mean with a photo, or with the mean of all photos of its folder, and the least
        cosine of any one sighting with that."""
        by_folder: dict[str, list[int]] = {}
        for i, file in enumerate(self.files):
            by_folder.setdefault(str(Path(file).parent), []).append(i)
        targets = np.concatenate(
            (self.embeddings, [_unit(self.embeddings[rows].mean(0)) for rows in by_folder.values()])
        )
        mean = targets @ _unit(embeddings.mean(0))
        best = int(mean.argmax())
        return float(mean[best]), float((embeddings @ targets[best]).min())


SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def keep_by_references(
    tracks: Sequence[Track], embeddings: Embeddings, references: References, only: bool
) -> dict[int, float]:
    """Sets `Track.keep` by reference photos; the cosine of each track, by its number (NaN = nothing to go by).

    only=False (--keep-ref): people on the photos stay as they are; asks for `KEEP`, and that no single sighting falls
    below half of it, since a track may have slipped to another face. only=True (--only-ref): all others stay as they
    are; those at or above `ONLY` are anonymised. Tracks with nothing to go by are anonymised either way.
    """
    cosines: dict[int, float] = {}
    for track in tracks:
        known = embeddings.get(track.number)
        if known is None:
            cosines[track.number], track.keep = float("nan"), False
            continue
        best, least = references.similarity(known)
        cosines[track.number] = best
        track.keep = best < ONLY if only else best >= KEEP and least >= KEEP / 2
    return cosines


def residual(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """How alike a track's faces are before and after: mean and highest cosine of unit embeddings [n, E]."""
    cosine = np.sum(before * after, 1)
    return {"mean": float(cosine.mean()), "highest": float(cosine.max())}


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _open(path: Path) -> Any:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from error
