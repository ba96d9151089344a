"""What five points say about pose and the shape of a face. Ours; all but roll are free of position, size and rotation.

The points are read in the coordinates of the eyes: origin midway between them, x along the line from the left to the
right eye ("left" as seen in the picture), y downwards at a right angle, unit = the distance of the eyes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def eye_distance(landmarks: Tensor) -> Tensor:
    """Distance of the eyes [N] for points [N, 5, 2], in their unit; never below 1e-6."""
    return (landmarks[:, 1] - landmarks[:, 0]).square().sum(-1).clamp_min(1e-12).sqrt()


def measure(landmarks: Tensor) -> dict[str, Tensor]:
    """Pose and shape of faces, raw: points [N, 5, 2] in any unit -> name -> [N], differentiable.

    yaw              sideways offset of the nose from midway between the eyes' and the mouth's middle; positive = it
                     points to the right of the picture; a frontal face has 0
    pitch            height of the nose between the eyes (0) and the mouth (1); larger = looking down
    roll             angle of the eye line, radians, positive = the right eye lower
    nose_length      distance from the eyes' middle to the nose, over the eye distance
    mouth_width      distance of the mouth's corners, over the eye distance
    eye_mouth_ratio  distance from the eyes' middle to the mouth's middle, over the eye distance

    Nose length and pitch depend on each other, as they must: five points do not tell a short nose from a raised head.
    """
    left, right, nose, mouth_left, mouth_right = landmarks.unbind(1)
    distance = eye_distance(landmarks)
    x_axis = (right - left) / distance[:, None]
    y_axis = torch.stack((-x_axis[:, 1], x_axis[:, 0]), dim=1)
    origin = (left + right) / 2

    def in_eyes(point: Tensor) -> tuple[Tensor, Tensor]:
        offset = (point - origin) / distance[:, None]
        return (offset * x_axis).sum(1), (offset * y_axis).sum(1)

    nose_x, nose_y = in_eyes(nose)
    mouth_x, mouth_y = in_eyes((mouth_left + mouth_right) / 2)
    return {
        "yaw": nose_x - mouth_x / 2,
        "pitch": nose_y / mouth_y.clamp_min(0.1),  # a mouth beside the eyes is no face; the bound keeps this finite
        "roll": torch.atan2(right[:, 1] - left[:, 1], right[:, 0] - left[:, 0]),
        "nose_length": _norm(nose_x, nose_y),
        "mouth_width": _norm(*((mouth_right - mouth_left) / distance[:, None]).unbind(1)),
        "eye_mouth_ratio": _norm(mouth_x, mouth_y),
    }


def _norm(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean length with a finite gradient at 0."""
    return (x.square() + y.square() + 1e-12).sqrt()
