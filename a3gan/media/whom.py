"""Who is who in a run: persons over all its files, seeds of their new faces, and who is to be left alone.

A seed follows from the key and the person. Where the face that it gives resembles the person, another is drawn, which
the person then keeps for the whole run.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.anonymizers.base import face_seed

if TYPE_CHECKING:
    from a3gan.anonymizers.base import FaceAnonymizer
    from a3gan.anonymizers.records import FaceRecord
    from a3gan.data.attributes import Policy
    from a3gan.media.crops import Crops
    from a3gan.media.people import People, References
    from a3gan.media.settings import Settings
    from a3gan.media.track import Track

LOOKED_AT = 3  # sightings of a track by which a seed is judged


class Whom:
    """Persons and references of one run; the recogniser and the reference photos are loaded when first needed."""

    def __init__(self, settings: Settings, detector: Callable[[], Any]):
        self.settings, self._detector = settings, detector
        self._people: People | None = None
        self._references: References | None = None
        self._secret = secrets.token_hex(16)  # of identity 'random'
        self._settled: dict[int, int] = {}  # first seed -> the one in its place
        self._asked: list[int | None] = []  # first seeds of the photo that `photo_seeds` saw last

    @property
    def people(self) -> People:
        if self._people is None:
            from a3gan.media.people import People

            self._people = People()
        return self._people

    @property
    def references(self) -> References | None:
        """The photos of --keep-ref or --only-ref. UserError: see `References.load`."""
        folder = self.settings.keep_ref or self.settings.only_ref
        if folder is not None and self._references is None:
            from a3gan.media.people import References

            self._references = References.load(folder, self.people, self._detector())
        return self._references

    def name_tracks(
        self, frames: Callable[[], Iterable[Any]], tracks: Sequence[Track], always: bool = False,
        method: FaceAnonymizer | None = None, crops: Crops | None = None,
    ) -> None:  # fmt: skip
        """Sets `person` where identity is by person (or `always`) and tracks have none, and `keep` by references.

        method: also looks at the faces for `track_seeds`, where it may draw one anew.
        crops: of the faces, where pass 1 kept some; frames are only asked for what these lack.
        """
        known = bool(tracks) and all(track.person >= 0 for track in tracks)
        name = (always or self.settings.identity == "person") and not known
        draws = method is not None and method.redraw > 0
        if not tracks or not (name or draws or self.references is not None):
            return
        like = (method.frame, method.size) if draws else ("face", 64)
        embeddings = self.people.look(frames(), tracks, like, crops)
        if name:
            self.people.name(tracks, embeddings)
        if self.references is not None:
            from a3gan.media.people import keep_by_references

            given = {track.number for track in tracks if track.keep}  # by hand, in a file of detections
            keep_by_references(tracks, embeddings, self.references, self.settings.keep_ref is None)
            for track in tracks:
                track.keep = track.keep or track.number in given

    def seed(self, person: int, else_named: str) -> int:
        """Seed of a new face, as `Settings.identity` says; `else_named`: what it follows from if not from a person."""
        identity, secret = self.settings.identity, self.settings.secret
        if identity == "random":
            return face_seed(self._secret, else_named)
        if identity == "fixed":
            return face_seed(secret, "fixed")
        return face_seed(secret, f"person {person}" if identity == "person" and person >= 0 else else_named)

    def track_seeds(
        self, tracks: Sequence[Track], name: str, method: FaceAnonymizer | None = None, policy: Policy | None = None
    ) -> dict[int, int]:
        """Seed of each track's new face by its number. name: of the file, so that tracks 0 of two files differ.

        method: by which results are drawn and looked at (`FaceAnonymizer.settle`), on what `name_tracks` saw.
        """
        first = {track.number: self.seed(track.person, f"{name} track {track.number}") for track in tracks}
        if method is not None and method.redraw > 0:
            # Tracks that are not sure are redacted (`SecondPass`).
            self._settle([track for track in tracks if track.sure and not track.keep], first, method, policy)
        return {number: self._settled.get(seed, seed) for number, seed in first.items()}

    def _settle(
        self, tracks: Sequence[Track], first: dict[int, int], method: FaceAnonymizer, policy: Policy | None
    ) -> None:
        """Notes other seeds for those by which a person's results resemble the sharpest sightings."""
        import torch

        from a3gan.data.ranges import to_float
        from a3gan.media.threads import at_once, on_all_cores

        def settle(seeds: list[int]) -> list[tuple[int, int]]:
            rows = [seed for seed in seeds for _ in seen[seed]]
            faces = torch.from_numpy(np.stack([crop for seed in seeds for crop in seen[seed]])).permute(0, 3, 1, 2)
            return list(zip(rows, method.settle(to_float(faces.contiguous()), rows, policy, people=rows), strict=True))

        crops = {track.number: self.people.crops.get(track.number, [])[:LOOKED_AT] for track in tracks}
        seen: dict[int, list[np.ndarray]] = {}
        for number, own in crops.items():
            if own and first[number] not in self._settled:
                seen.setdefault(first[number], []).extend(own)
        parts = at_once() if method.concurrent else 1
        for pairs in on_all_cores(settle, [some for i in range(parts) if (some := list(seen)[i::parts])]):
            self._settled |= pairs

    def photo_seeds(self) -> Callable[[int, np.ndarray, list[FaceRecord]], list[int | None]] | None:
        """What `anonymize_photo` takes as `seeds`; None where its own rule for the identity will do."""
        if self.settings.identity != "person" and self.references is None:
            return None
        return self._of_photo

    def _of_photo(self, _number: int, image: np.ndarray, records: list[FaceRecord]) -> list[int | None]:
        from a3gan.media.people import KEEP, ONLY, aligned

        crops = [aligned(image, record.landmarks) for record in records]
        seen = [i for i, crop in enumerate(crops) if crop is not None]
        vectors = dict(zip(seen, self.people.embed([crops[i] for i in seen]), strict=True)) if seen else {}
        persons = self._persons(vectors)
        seeds: list[int | None] = []
        for i in range(len(records)):
            keep = False
            if self.references is not None and i in vectors:
                cosine = self.references.similarity(vectors[i][None])[0]
                keep = cosine >= KEEP if self.settings.keep_ref is not None else cosine < ONLY
            if i not in persons:  # too small or too far outside to say who it is
                persons[i] = self._new(None)
            seeds.append(None if keep else self.seed(persons[i], f"face {persons[i]} of the photos"))
        self._asked = seeds
        return [None if seed is None else self._settled.get(seed, seed) for seed in seeds]

    def note_photo(self, records: Sequence[FaceRecord]) -> None:
        """Keeps for its people the seeds that the photo just done ended with; call it where `photo_seeds` was used."""
        pairs = zip(self._asked, records, strict=True)
        self._settled |= {seed: one.seed for seed, one in pairs if seed is not None and one.status == "synthesised"}
        self._asked = []

    def _persons(self, vectors: dict[int, np.ndarray]) -> dict[int, int]:
        """Face of a photo -> person: the most alike known one that no other face of the photo is more alike, or new.

        Greedy, in one product: `People.name` compares all pairs, which is too much for thousands of photos.
        """
        from a3gan.media.people import Person

        found: dict[int, int] = {}
        persons = self.people.persons
        if persons and vectors:
            means = np.stack([p.mean / max(float(np.linalg.norm(p.mean)), 1e-9) for p in persons])
            rows = list(vectors)
            cosine = np.stack([vectors[i] for i in rows]) @ means.T
            for flat in np.argsort(-cosine, axis=None)[: 4 * len(rows)]:
                row, person = np.unravel_index(flat, cosine.shape)
                if cosine[row, person] < self.people.same:
                    break
                if rows[row] not in found and int(person) not in found.values():
                    found[rows[row]] = int(person)
        for i, vector in vectors.items():
            if i in found:
                old = persons[found[i]]
                persons[found[i]] = Person(old.mean + vector, old.tracks + 1)
            else:
                found[i] = self._new(vector)
        return found

    def _new(self, vector: np.ndarray | None) -> int:
        from a3gan.media.people import Person

        persons = self.people.persons
        if vector is None:
            vector = np.zeros_like(persons[0].mean) if persons else np.zeros(128)
        persons.append(Person(np.asarray(vector), 1))
        return len(persons) - 1
