"""Augmentation on the device: mirror, small affine moves, colour; and T, the random transform of L_id.

Pictures are float [N, 3, S, S] in [-1, 1]; landmarks float [N, P, 2] in frame units. Every picture draws its own
values, from torch's global generator: on the CPU, so that one seed gives the same batch on every device (but for the
noise of T).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from a3gan.data.align import MIRROR


def _uniform(images: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """float [N] in [low, high), one for each picture."""
    return (low + (high - low) * torch.rand(len(images))).to(images.device)


def _chance(images: torch.Tensor, p: float) -> torch.Tensor:
    """bool [N, 1, 1, 1], true with probability p."""
    return (torch.rand(len(images)) < p).to(images.device)[:, None, None, None]


def augment(
    images: torch.Tensor,
    landmarks: torch.Tensor | None = None,
    *,
    flip: float = 0.5,
    rotate: float = 8.0,
    scale: tuple[float, float] = (0.92, 1.08),
    shift: float = 0.03,
    color: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mirror, move and recolour a batch.

    Args:
        images: float [N, 3, S, S] in [-1, 1]. landmarks: [N, 5, 2] in frame units, or None.
        flip: probability of a mirror image. rotate: degrees, drawn from [-rotate, rotate]. scale: range of the zoom.
        shift: in frame units, drawn from [-shift, shift] for x and y. color: strength of `jitter`, 0 = none.

    Returns:
        images and landmarks (None if none were given), same shapes; landmarks keep their meaning (left as seen in
        the picture).
    """
    if flip > 0:
        images, landmarks = mirror(images, landmarks, _chance(images, flip))
    if rotate > 0 or shift > 0 or scale != (1.0, 1.0):
        images, landmarks = affine(images, landmarks, rotate=rotate, scale=scale, shift=shift)
    if color > 0:
        images = jitter(images, color)
    return images, landmarks


def mirror(
    images: torch.Tensor, landmarks: torch.Tensor | None = None, which: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mirror the pictures that `which` (bool, N values) names, by default all; left and right points change names."""
    if which is None:
        which = torch.ones(len(images), dtype=torch.bool, device=images.device)
    which = which.reshape(-1, 1, 1, 1)
    images = torch.where(which, images.flip(-1), images)
    if landmarks is not None:
        flipped = landmarks[:, list(MIRROR)] * landmarks.new_tensor([-1.0, 1.0]) + landmarks.new_tensor([1.0, 0.0])
        landmarks = torch.where(which[..., 0].to(landmarks.device), flipped, landmarks)
    return images, landmarks


def affine(
    images: torch.Tensor,
    landmarks: torch.Tensor | None = None,
    *,
    rotate: float,
    scale: tuple[float, float],
    shift: float,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Turn, zoom and move each picture about its centre by its own amounts (see `augment`); reflected borders."""
    from kornia.geometry.transform import get_rotation_matrix2d, warp_affine

    side = images.shape[-1]
    angle, zoom = _uniform(images, -rotate, rotate), _uniform(images, *scale)
    center = images.new_full((len(images), 2), (side - 1) / 2)
    matrix = get_rotation_matrix2d(center, angle.to(images), zoom.to(images)[:, None].expand(-1, 2))
    move = torch.stack([_uniform(images, -shift, shift), _uniform(images, -shift, shift)], 1).to(images) * side
    matrix = torch.cat([matrix[..., :2], matrix[..., 2:] + move[..., None]], -1)
    # align_corners=True: kornia then takes the matrix in pixel-centre coordinates, which are ours.
    moved = warp_affine(images, matrix, (side, side), "bilinear", "reflection", align_corners=True)
    if landmarks is not None:
        pixels = landmarks * side - 0.5
        m = matrix.to(landmarks)
        landmarks = (pixels @ m[..., :2].transpose(1, 2) + m[:, None, :, 2] + 0.5) / side
    return moved, landmarks


def jitter(images: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """Random brightness (+-0.1), contrast (+-20 %), saturation (+-25 %) and hue (+-0.06 rad), all times `strength`."""
    from kornia import enhance

    x = (images + 1) / 2
    x = enhance.adjust_brightness(x, 0.1 * strength * _uniform(images, -1, 1).to(x))
    x = enhance.adjust_contrast_with_mean_subtraction(x, 1 + 0.2 * strength * _uniform(images, -1, 1).to(x))
    saturation, hue = 1 + 0.25 * strength * _uniform(images, -1, 1), 0.06 * strength * _uniform(images, -1, 1)
    return _saturation_hue(x, saturation.to(x), hue.to(x)).clamp(0, 1) * 2 - 1


def _saturation_hue(x: torch.Tensor, saturation: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """Scale and turn the chroma plane of YIQ: one 3x3 matrix a picture, much faster than a way through HSV."""
    to_yiq = x.new_tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    cos, sin = saturation * hue.cos(), saturation * hue.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return torch.einsum("nij,njhw->nihw", matrix, x)


def random_transform(images: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """T of L_id and L_div: what a changed face must survive (JPEG, blur, resize as in the method; move, loss of colour
    and all ranges are ours).

    Each picture, independently and with probability 1/2 for each step: moved (4 degrees, 5 % of zoom, 2 % of the side)
    as other aligners would, robbed of up to all its colour (recognisers are easily fooled by fringes of colour that no
    person takes for another face), resized to between half and all of its side and back, blurred (sigma up to S/80
    px), given noise (std up to 0.04 on the scale of [-1, 1]), compressed as JPEG of quality 50 to 95. `strength` scales
    ranges towards nothing (0) from these (1).

    Args:
        images: float [N, 3, S, S] in [-1, 1].

    Returns:
        Same shape and range. All but JPEG pass their true gradient; JPEG passes it straight through (Bengio et al.
        2013), as its own is zero nearly everywhere; the final clamp to [-1, 1] cuts it where noise leaves the range.
    """
    x = images.float()
    x = torch.where(_chance(x, 0.5), _moved(x, strength), x)
    x = torch.where(_chance(x, 0.5), _paled(x, strength), x)
    x = torch.where(_chance(x, 0.5), _resized(x, strength), x)
    x = torch.where(_chance(x, 0.5), _blurred(x, strength), x)
    std = _uniform(x, 0.0, 0.04 * strength)[:, None, None, None] * _chance(x, 0.5)
    x = x + std * torch.randn_like(x)  # on the device: this much noise from the CPU would cost more than all the rest
    x = torch.where(_chance(x, 0.5), straight_jpeg(x, 100 - strength * _uniform(x, 5.0, 50.0)), x)
    return x.clamp(-1, 1).to(images.dtype)


def _moved(images: torch.Tensor, strength: float) -> torch.Tensor:
    zoom = (1 - 0.05 * strength, 1 + 0.05 * strength)
    return affine(images, rotate=4.0 * strength, scale=zoom, shift=0.02 * strength)[0]


def _paled(images: torch.Tensor, strength: float) -> torch.Tensor:
    saturation = _uniform(images, 1 - strength, 1.0).to(images)
    return _saturation_hue(images, saturation, torch.zeros_like(saturation))  # grey stays grey in [-1, 1] too


def _resized(images: torch.Tensor, strength: float) -> torch.Tensor:
    # One factor for the batch: resampling each picture to its own side would cost a call for each.
    side = images.shape[-1]
    small = max(8, round(side * (1 - 0.5 * strength * float(torch.rand(())))))
    down = F.interpolate(images, size=(small, small), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(down, size=(side, side), mode="bilinear", align_corners=False)


def _blurred(images: torch.Tensor, strength: float) -> torch.Tensor:
    from kornia.filters import gaussian_blur2d

    # sigma = S/80: 0.8 px at 64, 1.6 px at 128. The kernel reaches three of them.
    top = max(0.11, strength * images.shape[-1] / 80)
    sigma = _uniform(images, 0.1, top).to(images)[:, None].expand(-1, 2)
    width = 2 * int(3 * top + 0.5) + 1
    return gaussian_blur2d(images, max(3, width), sigma, border_type="reflect")


def straight_jpeg(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """JPEG (kornia's codec, on the device) of quality [N] in [1, 100]; the gradient passes as if it did nothing."""
    from kornia.enhance import jpeg_codec_differentiable

    with torch.no_grad():
        x = ((images.detach().float() + 1) / 2).clamp(0, 1)
        coded = jpeg_codec_differentiable(x, quality.float().clamp(1, 100)) * 2 - 1
    return images + (coded.to(images.dtype) - images).detach()
