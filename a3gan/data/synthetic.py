"""Rendered faces: a parametric painter in torch with exact ground truth (ours).

A pseudo-3D head (`synthetic_head`) is seen by a camera; each pixel of the aligned frame looks up the point of the head
behind it, and layers (`synthetic_paint`, `synthetic_features`) are laid over one another. People and moments come from
`synthetic_params`. Nothing is read from disk; the same seed gives the same faces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from a3gan.data import align
from a3gan.data import synthetic_features as features
from a3gan.data import synthetic_head as head
from a3gan.data import synthetic_paint as paint
from a3gan.data.ranges import to_uint8
from a3gan.data.synthetic_params import EXPRESSIONS, sample_identities, sample_states

if TYPE_CHECKING:
    from a3gan.data.archive import FaceSet

__all__ = ["EXPRESSIONS", "landmarks", "render", "sample_identities", "sample_states", "synthetic_faces"]

PIXELS_AT_ONCE = 16 * 64 * 64  # chunk of `render`: 256 KB per mask, so that layers stay in the processor's cache


def render(
    identity: dict[str, Tensor],
    state: dict[str, Tensor],
    size: int,
    frame: str = "face",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Paint N faces: row i of `identity` in row i of `state`.

    Args:
        identity, state: dicts of [N, ...] tensors as `sample_identities` and `sample_states` return them.
        size: side S of the pictures in pixels, at least 16.
        frame: 'face' or 'ffhq' (aligned: the five points of `landmarks` fit the frame by a similarity), or 'photo' (not
            aligned: the head rolls, a third of the width, with room around it; the same camera for all expressions).
        device: where to paint.

    Returns:
        float32 [N, 3, S, S] RGB in [-1, 1], on `device`. No row depends on the others.
    """
    count = len(identity["gender"])
    chunk = max(1, PIXELS_AT_ONCE // (size * size))

    def one(start: int) -> Tensor:
        rows = slice(start, start + chunk)
        who, how = ({k: v[rows].to(device) for k, v in d.items()} for d in (identity, state))
        return _paint(head.pose_face(who, how), size, frame)

    if torch.device(device).type == "cpu":
        parts = _in_threads(one, range(0, count, chunk))
    else:
        parts = [one(start) for start in range(0, count, chunk)]
    return torch.cat(parts) if parts else torch.empty(0, 3, size, size, device=device)


def _in_threads(work: Callable[[int], Tensor], items: Sequence[int]) -> list[Tensor]:
    """Chunks side by side, each on one core: a chunk is a thousand small operations, too small to split one by one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


def landmarks(identity: dict[str, Tensor], state: dict[str, Tensor], frame: str = "face") -> Tensor:
    """Where `render` puts the five points (order of `align.POINTS`): float32 [N, 5, 2], frame units."""
    p = head.pose_face(identity, state)
    points = head.camera_landmarks(p)
    return align.transform_points(points, _camera_to_frame(p, points, frame))


def _camera_to_frame(p: SimpleNamespace, points: Tensor, frame: str) -> Tensor:
    """Similarity [N, 2, 3] from camera coordinates (head units) to frame units."""
    if frame == "photo":
        scale = (p.photo_scale / head.PHOTO_WIDTH).reshape(-1)
        zero = torch.zeros_like(scale)
        shift = 0.5 + p.photo_shift * 0.2
        rows = [torch.stack([scale, zero, shift[:, 0]], -1), torch.stack([zero, scale, shift[:, 1]], -1)]
        return torch.stack(rows, 1)
    return align.fit_similarity(points, align.template(frame).to(points).expand_as(points))


def _camera(p: SimpleNamespace, size: int, frame: str) -> tuple[SimpleNamespace, Tensor, Tensor]:
    """What the layers need to know of the pixels: camera coordinates, pixel size, light in the axes of the picture."""
    matrix = _camera_to_frame(p, head.camera_landmarks(p), frame)
    back = align.invert(matrix)
    centre = (torch.arange(size, device=back.device, dtype=back.dtype) + 0.5) / size
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    m = back.view(-1, 2, 3, 1, 1)
    x, y = m[:, 0, 0] * u + m[:, 0, 1] * v + m[:, 0, 2], m[:, 1, 0] * u + m[:, 1, 1] * v + m[:, 1, 2]
    px, py = head.roll_points(p, x, y, back=True)
    zoom = torch.linalg.vector_norm(back[:, :, 0], dim=1).view(-1, 1, 1)  # head units per frame width
    lx, ly = p.light_x, p.light_y
    norm = (lx * lx + ly * ly + 0.64).rsqrt()
    lx, ly, lz = lx * norm, ly * norm, 0.8 * norm
    cos, sin = m[:, 0, 0] / zoom, m[:, 1, 0] / zoom  # picture axes in camera axes
    hx, hy = head.roll_points(p, lx, ly, back=True)
    camera = SimpleNamespace(
        x=x,
        y=y,
        px=px,
        py=py,
        pixel=zoom / size,
        light=(lx * cos + ly * sin, ly * cos - lx * sin, lz),
        light_head=(hx, hy, lz),
    )
    return camera, u, v


def _paint(p: SimpleNamespace, size: int, frame: str) -> Tensor:
    """One chunk of `render`."""
    c, u, v = _camera(p, size, frame)
    p.exposure_shade = 0.80 + 0.25 * p.light_hard * (0.5 - 0.5 * p.light_y)
    p.exposure_light = p.light_colour * (0.75 + 0.25 * p.light_hard.view(-1, 1))
    image = paint.paint_background(p, u, v)
    image = features.paint_back_hair(p, image, c)
    image = paint.paint_body(p, image, c)
    image = paint.paint_ears(p, image, c, front=False)
    x, y, depth, inside = head.hit_head(p, c.px, c.py)
    mask = paint.cover(0.55 * inside, c.pixel)
    image = paint.paint_skin(p, image, x, y, depth + paint.relief(p, x, y), mask, c)
    image = paint.paint_beard(p, image, x, y, mask, c)
    image = features.paint_mouth(p, image, x, y, c)
    image = features.paint_eyes(p, image, x, y, c)
    image = features.paint_brows(p, image, x, y, c)
    image = features.paint_glasses(p, image, x, y, mask, c)
    image = paint.paint_ears(p, image, c, front=True)
    image = features.paint_hair(p, image, c)
    return _develop(p, image)


def _develop(p: SimpleNamespace, image: Tensor) -> Tensor:
    """Exposure, contrast, film grain; 0..1 to [-1, 1]."""
    exposure, contrast = p.exposure.unsqueeze(1), p.contrast.unsqueeze(1)
    image = ((image * exposure - 0.5) * contrast + 0.5).clamp(0, 1)
    size = image.shape[-1]
    # One fixed noise picture, shifted per face: the same grain on every device and in every chunk.
    table = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(7)).to(image.device)
    at = (p.grain_shift * 128).long()
    steps = torch.arange(size, device=image.device)
    rows, columns = (steps + at[:, :1]) % 128, (steps + at[:, 1:]) % 128
    grain = table[:, rows.unsqueeze(2), columns.unsqueeze(1)].transpose(0, 1)
    return (image + grain * p.grain.unsqueeze(1)).clamp(0, 1) * 2 - 1


def synthetic_faces(
    count: int,
    size: int,
    seed: int,
    frame: str = "face",
    identities: int | None = None,
    per_identity: int = 4,
    device: torch.device | str = "cpu",
) -> FaceSet:
    """A data set of rendered faces with labels and ground truth.

    Args:
        count: pictures.
        size, frame, device: as in `render`.
        seed: same seed, same faces (to one grey level across devices).
        identities: people; None: one for every `per_identity` pictures. Pictures of one person stand side by side.

    Returns:
        FaceSet in memory. Splits are by person: the first 80 % 'train', then 10 % 'val', 10 % 'test' (from 3 people on,
        each split has one). Columns `expression`, `gender` and `label`: half of the pictures say 'yawn' or 'no_yawn'
        there, the other half 'closed' or 'open', '' in between. `truth` [count] has eye_opening and mouth_opening
        (0..1), yawning and eyes_closed (0, 1, NaN in between), smile, gaze_x, gaze_y, yaw_degrees, pitch_degrees,
        roll_degrees (of the head before alignment), glasses, skin_darkness, hair_lightness.
    """
    people = max(1, min(count, identities or -(-count // per_identity)))
    generator = torch.Generator().manual_seed(seed)
    who = sample_identities(people, generator)
    how = sample_states(count, generator)
    index = torch.arange(count) * people // max(1, count)
    who = {k: v[index] for k, v in who.items()}
    parts = []
    for start in range(0, count, 256):  # floats of 256 pictures at a time, bytes of all
        who_part, how_part = ({k: v[start : start + 256] for k, v in d.items()} for d in (who, how))
        parts.append(to_uint8(render(who_part, how_part, size, frame, device)).cpu())
    images = torch.cat(parts) if parts else torch.empty(0, 3, size, size, dtype=torch.uint8)
    return _face_set(images, who, how, index, people, frame, size, seed)


def _face_set(
    images: Tensor,
    who: dict[str, Tensor],
    how: dict[str, Tensor],
    index: Tensor,
    people: int,
    frame: str,
    size: int,
    seed: int,
) -> FaceSet:
    from a3gan.data.archive import FaceSet

    count = len(images)
    held = max(1, people // 10) if people >= 3 else 0
    split = ["test" if i >= people - held else "val" if i >= people - 2 * held else "train" for i in index.tolist()]
    yawning = _decided(how["mouth_opening"], 0.40, 0.60)
    closed = 1 - _decided(how["eye_opening"], 0.15, 0.45)
    label = []
    for i in range(count):
        value = (closed if i % 2 else yawning)[i].item()
        names = ("open", "closed") if i % 2 else ("no_yawn", "yawn")
        label.append("" if value != value else names[int(value)])
    truth = {k: how[k].clone() for k in ("eye_opening", "mouth_opening", "smile", "gaze_x", "gaze_y", "glasses")}
    truth |= {f"{k}_degrees": how[k].clone() for k in ("yaw", "pitch", "roll")}
    truth |= {
        "yawning": yawning,
        "eyes_closed": closed,
        "skin_darkness": who["skin_tone"],
        "hair_lightness": who["hair_tone"],
    }
    return FaceSet(
        images=images,
        files=[f"rendered/{seed}_{i:06d}.png" for i in range(count)],
        landmarks=landmarks(who, how, frame).float(),
        identity=index,
        identity_names=[f"rendered-{seed}-{i}" for i in range(people)],
        split=split,
        columns={
            "expression": [EXPRESSIONS[e] for e in how["expression"].tolist()],
            "gender": ["male" if g > 0.5 else "female" for g in who["gender"].tolist()],
            "label": label,
        },
        outside=torch.zeros(count),
        frame=frame,
        size=size,
        truth=truth,
    )


def _decided(value: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, NaN between."""
    return torch.where(value > high, 1.0, torch.where(value < low, 0.0, torch.full_like(value, float("nan"))))
