"""A photo, file to file: its faces hidden from people, with a key file, and recovered with it."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a3gan.anonymizers.hiding_keys import PictureKey, read_key, refuse_existing, write_key
from a3gan.errors import UserError
from a3gan.files import not_written

if TYPE_CHECKING:
    from a3gan.anonymizers.diff_privacy_backbone import Backbone
    from a3gan.anonymizers.hiding import Hiding

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hidden:
    """What `hide_photo` did: the files, faces hidden, and faces that could only be mosaicked (no key holds those)."""

    output: Path
    key: Path
    faces: int
    mosaicked: int


def hide_photo(
    source: str | Path, key: str | Path, output: str | Path | None, method: Hiding, *, detector: Any = None,
    seed: int | str = 0, overwrite: bool = False,
) -> Hidden:  # fmt: skip
    """Hides every face of a photo; writes the protected photo and its key file, both or none.

    output: None = <name>_hidden beside the source. detector: as `Anonymizer` takes it. overwrite: both files.
    Raises UserError: no face that can be hidden, a file that exists, and what `anonymize_photo` raises.
    """
    from a3gan.anonymizers.anonymizer import Anonymizer
    from a3gan.data.align import similarity
    from a3gan.media.images import anonymize_photo

    source, key = Path(source), Path(key)
    output = _target(source, output, "_hidden", overwrite)
    refuse_existing(key, overwrite)
    if key.resolve() in (output.resolve(), source.resolve()):
        raise UserError(f"{key}: the key needs a file of its own")
    anonymizer = Anonymizer(method, detector, seed=seed, batch_size=1)
    with _beside(output) as folder:
        made = Path(folder) / output.name
        method.keys.clear()
        result = anonymize_photo(source, made, anonymizer)
        records = [record for record in result.records if record.status == "synthesised"]
        if not records:
            why = "; ".join(record.reason for record in result.records) or "none was found"
            raise UserError(f"{source}: has no face that can be hidden ({why})")
        matrices = [similarity(r.landmarks[None], method.frame, method.size)[0] for r in records]
        secret = PictureKey(
            [method.keys[record.seed] for record in records], matrices, method.frame, method.size, method.steps,
            Path(method.path).name, method.backbone.digest, _digest(made), result.width, result.height,
        )  # fmt: skip
        # The key first: a protected picture without its key is of no use, and a key without its picture harms nobody
        # who still has the original.
        write_key(key, secret, overwrite)
        os.replace(made, output)
    return Hidden(output, key, len(records), result.mosaicked)


def recover_photo(
    source: str | Path, key: str | Path, output: str | Path | None, backbone: Backbone, *, overwrite: bool = False
) -> Path:
    """Puts the faces that a key holds back into the protected photo; returns the file written.

    output: None = <name>_recovered beside it. A photo of another size is refused. Another one of that size, or the same
    with its pixels changed (saved anew), is only warned about: recovery reads nothing of the face there.
    Raises UserError: a key that is not whole, of other weights, a photo of another size, an output that exists.
    """
    from a3gan.anonymizers.hiding import recover
    from a3gan.media.images import anonymize_photo

    source, secret = Path(source), read_key(key)
    output = _target(source, output, "_recovered", overwrite)
    if (secret.digest, secret.frame, secret.size) != (backbone.digest, backbone.frame, backbone.size):
        raise UserError(f"{key}: was made with other weights ({secret.weights}); give those with --weights")
    if _digest(source) != secret.picture:
        log.warning("%s: not the picture that %s was made with, or saved anew since", source, key)
    try:
        faces = recover(backbone, secret.faces, secret.steps)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{key}: its tensors do not fit the weights ({error})") from error
    with _beside(output) as folder:
        made = Path(folder) / output.name
        anonymize_photo(source, made, _Recovering(secret, faces, source))
        os.replace(made, output)
    return output


class _Recovering:
    """Stands in for an `Anonymizer`: pastes known faces at known places."""

    seed = 0

    def __init__(self, secret: PictureKey, faces: Any, source: Path) -> None:
        self.secret, self.faces, self.source = secret, faces, source

    def process(self, picture: Any, **_options: Any) -> Any:
        from a3gan.anonymizers.records import Result
        from a3gan.media.compose import paste

        height, width = picture.rgb.shape[:2]
        if (width, height) != (self.secret.width, self.secret.height):
            wanted = f"{self.secret.width}x{self.secret.height}"
            raise UserError(f"{self.source}: {width}x{height} pixels; the key is of a picture of {wanted}")
        for face, matrix in zip(self.faces, self.secret.matrices, strict=True):
            paste(picture.rgb, face, None, matrix, self.secret.frame, match=False, top=picture.top)
        return Result(picture)


def _digest(path: Path) -> str:
    """sha256 of a picture's pixels, upright: the same after its metadata was stripped."""
    from PIL import Image

    from a3gan.media.images import reason
    from a3gan.media.pictures import opened

    try:
        with Image.open(path) as image:
            pixels = opened(image).rgb
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: {reason(error)}") from error
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _target(source: Path, output: str | Path | None, suffix: str, overwrite: bool) -> Path:
    output = source.with_name(f"{source.stem}{suffix}{source.suffix}") if output is None else Path(output)
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    if output.is_dir():
        output = output / f"{source.stem}{suffix}{source.suffix}"
    if output.resolve() == source.resolve():
        raise UserError(f"{output}: would replace the photo itself; name another file")
    if output.exists() and not overwrite:
        raise UserError(f"{output}: exists; name another file or give --overwrite")
    return output


def _beside(output: Path) -> tempfile.TemporaryDirectory:
    """A folder on the output's disk, for a file to become it at once."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".a3gan-", dir=output.parent)
    except OSError as error:
        raise not_written(output, error) from error
