"""What a run of the pipeline was asked for: one frozen, JSON-able record, stored in every account."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from a3gan.errors import UserError

IDENTITIES = ("track", "person", "random", "fixed")
METADATA = ("strip", "safe", "all")


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a result looks like; what does not (threads, progress) is an argument elsewhere.

    method, weights     as `anonymizers.methods.METHODS`; a checkpoint's path or shipped name, None = the default
    options             of the method itself (`methods.options_of`); what is not named has its default
    policy, alpha       as `Anonymizer.process`
    seed                a number or a word; another one, other faces
    key                 in place of the seed, and kept out of accounts
    identity            whose faces are one: of a 'person' (over the gaps, cuts and files of a run), of a 'track', all
                        ('fixed'); 'random' = of a track, and never to be had again
    thresh              score from which a face starts a track; None = the tracker's own
    scale               (width, height) at most, in pixels, in which faces are looked for; None = the scan's own
    stride              every how many frames faces are looked for; None = the scan's own
    mask_scale          size of what is replaced against this tool's own; new faces end where their frame does
    track               False: every frame by itself, no gaps filled
    boxes               redact whole boxes in place of ovals
    start, end          seconds of a video; None = from its start, to its end
    audio, metadata     keep sound and subtitles; 'strip', 'safe' (no place, serial, thumbnail) or 'all'
    codec, crf, preset  of the encoder; None = the writer's own
    detections          file of `a3gan detect` whose tracks are used in place of a search
    keep_ref, only_ref  folders with photos of people to leave alone, or of the only ones to anonymise
    """

    method: str = "a3gan"
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    policy: str | None = None
    alpha: float = 1.0
    seed: int | str = 0
    key: str | None = None
    identity: str = "person"
    thresh: float | None = None
    scale: tuple[int, int] | None = None
    stride: int | None = None
    mask_scale: float = 1.0
    track: bool = True
    boxes: bool = False
    start: float | None = None
    end: float | None = None
    audio: bool = True
    metadata: str = "safe"
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    detections: str | None = None
    keep_ref: str | None = None
    only_ref: str | None = None

    def __post_init__(self) -> None:
        if self.identity not in IDENTITIES:
            raise UserError(f"identity {self.identity!r}: must be one of {', '.join(IDENTITIES)}")
        if self.metadata not in METADATA:
            raise UserError(f"metadata {self.metadata!r}: must be one of {', '.join(METADATA)}")
        if self.thresh is not None and not 0 < self.thresh < 1:
            raise UserError(f"thresh {self.thresh}: must be between 0 and 1")
        if not 0.5 <= self.mask_scale <= 3:
            raise UserError(f"mask_scale {self.mask_scale}: must be from 0.5 to 3")
        if self.keep_ref is not None and self.only_ref is not None:
            raise UserError("keep_ref and only_ref: choose one; the one's rest is the other's choice")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise UserError(f"start time {self.start} s is not before end time {self.end} s")

    @property
    def secret(self) -> int | str:
        """What seeds are made from."""
        return self.seed if self.key is None else self.key

    def record(self) -> dict[str, Any]:
        """As JSON can hold it; without the key, and of a random identity without the seed: there is none to repeat."""
        values = asdict(self) | {"key": None if self.key is None else "not stored"}
        if self.identity == "random" or self.key is not None:
            values["seed"] = None
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def stamp(self, *more: str) -> str:
        """Twelve hex digits that differ when any setting (or `more`, such as the hash of the weights) does.

        The files that settings name count by what is in them: an edited file of detections is another one.
        Stamps stand in accounts, so the key goes in through scrypt: trying words against a stamp is slow.
        """
        key = "" if self.key is None else hashlib.scrypt(self.key.encode(), salt=b"a3gan", n=2**14, r=8, p=1).hex()
        named = [name for name in (self.detections, self.keep_ref, self.only_ref) if name is not None]
        named += [value for value in self.options.values() if isinstance(value, str) and Path(value).is_file()]
        files = [_fingerprint(name) for name in named]
        text = json.dumps([self.record(), key, *files, *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _fingerprint(name: str) -> list[Any]:
    """Of a file its hash, of a folder names, sizes and times; empty for what is not there, which fails later."""
    path = Path(name)
    if path.is_file():
        return [hashlib.sha256(path.read_bytes()).hexdigest()]
    stats = [(p, p.stat()) for p in sorted(path.rglob("*")) if p.is_file()] if path.is_dir() else []
    return [[p.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns] for p, stat in stats]
