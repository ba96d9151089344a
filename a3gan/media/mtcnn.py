"""A lean runner of MTCNN (Zhang et al. 2016) for batches of equal-sized pictures.

The three networks' weights are those inside facenet-pytorch, and so are the rules and, to rounding, the results. What
differs is how they are computed: one summed-area table serves the pyramid and all crops of a batch, the first network's
pooling is folded into its first convolution, and a crop outside the picture is dropped rather than miscounted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import cv2  # OpenCV; comes with albumentations
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a3gan.media.mtcnn_nets import CropNet, convolutions, nms_operator, second_net, third_net, weights

FACTOR = 0.709  # of one level of the pyramid to the next: about the root of a half
BAND = 200_000  # pixels of a level that the first network takes at a time, on a CPU
PASS = 36_864  # pixels of crops per pass of the second and third network, on a CPU; a quarter takes a sixth longer
ROWS = 16  # of a level that are averaged at a time
_PIXEL = np.complex128  # any type of 16 bytes: NumPy copies its elements in one go, torch byte by byte
_SCALE = 0.0078125  # networks see (x - 127.5) / 128


@dataclass
class Found:
    """Faces of a batch: image int64 [n], boxes [n, 4], score [n], points [n, 5, 2]; numpy, pixels of the pictures."""

    image: np.ndarray
    boxes: np.ndarray
    score: np.ndarray
    points: np.ndarray


class MtcnnRunner:
    """detect(uint8 [N, H, W, 3]) -> Found. Threads may share one.

    min_face: smallest face looked for, in pixels; thresholds: of the three stages; apart: overlap up to which proposals
    of different levels of the pyramid are two.
    """

    apart = 0.7

    def __init__(self, device: torch.device | str, min_face: int, thresholds: tuple[float, float, float]):
        self.device, self.min_face, self.thresholds = torch.device(device), min_face, thresholds
        self.first = FirstNet(weights("pnet")).to(self.device)
        nets = (_folded(net()) for net in (second_net, third_net))
        self.second, self.third = (net.to(self.device, memory_format=torch.channels_last) for net in nets)

    def sibling(self, min_face: int, thresholds: tuple[float, float, float], apart: float) -> MtcnnRunner:
        """Another one with the same networks."""
        other = copy.copy(self)
        other.min_face, other.thresholds, other.apart = min_face, thresholds, apart
        return other

    @torch.inference_mode()
    def detect(self, images: np.ndarray | Tensor) -> Found:
        """Faces of at least `min_face` px."""
        pixels = torch.as_tensor(images).to(self.device)
        areas = Areas(pixels)
        return self._finish(areas, *self._refine(areas, *self._propose(areas, *pixels.shape[1:3])))

    def _propose(self, areas: Areas, height: int, width: int) -> tuple[Tensor, Tensor]:
        boxes, index = [torch.zeros(0, 5, device=self.device)], [torch.zeros(0, dtype=torch.long, device=self.device)]
        scale = 12 / self.min_face
        while min(height, width) * scale >= 12:
            size = (int(height * scale + 1), int(width * scale + 1))
            hit, score, move = self._hits(areas, size)
            if len(hit):
                corner = hit[:, 1:].flip(1)
                box = torch.cat((((2 * corner + 1) / scale).floor(), ((2 * corner + 12) / scale).floor()), 1)
                keep = _nms(box, score, hit[:, 0], 0.5)
                boxes.append(torch.cat((box, score[:, None], move), 1)[keep])
                index.append(hit[keep, 0])
            scale *= FACTOR
        if len(boxes) == 1:
            return boxes[0], index[0]
        boxes, index = torch.cat(boxes[1:]), torch.cat(index[1:])
        keep = _nms(boxes[:, :4], boxes[:, 4], index, self.apart)
        boxes, index = boxes[keep], index[keep]
        side = boxes[:, 2:4] - boxes[:, :2]
        moved = boxes[:, :4] + boxes[:, 5:9] * side.repeat(1, 2)
        return torch.cat((_square(moved), boxes[:, 4:5]), 1), index

    def _hits(self, areas: Areas, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """What the first network finds in one level: places [n, 3] (image, y, x), in that order, scores, moves [n, 4].

        Band by band: a band stays in the cache of a core, a level does not.
        """
        height, width = size
        rows = (height - 11 + 1) // 2  # of the result; ceil((height - 2) / 2) - 4
        step = max(16, BAND // (2 * width * len(areas.table))) if self.device.type == "cpu" else rows
        bands = []
        for top in range(0, rows, step):
            bottom = height if top + step >= rows else 2 * (top + step) + 10
            maps, score = self.first(areas.shrunk(size, (2 * top, bottom)))
            hit = (score >= self.thresholds[0]).nonzero()
            at = tuple(hit.unbind(1))
            bands.append((hit + hit.new_tensor([0, top, 0]), score[at], self.first.moves(maps[at])))
        if len(bands) == 1:
            return bands[0]
        hit, score, move = (torch.cat(parts) for parts in zip(*bands, strict=True))
        order = hit[:, 0].argsort(stable=True)
        return hit[order], score[order], move[order]

    def _refine(self, areas: Areas, boxes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        inside = areas.meets(boxes)
        boxes, index = boxes[inside], index[inside]
        if not len(boxes):
            return boxes, index
        move, score = _passes(self.second, areas, boxes, index, 24)
        score = score[:, 1]
        keep = score > self.thresholds[1]
        boxes = torch.cat((boxes[keep, :4], score[keep, None]), 1)
        index, move = index[keep], move[keep]
        keep = _nms(boxes[:, :4], boxes[:, 4], index, 0.7)
        boxes, index, move = boxes[keep], index[keep], move[keep]
        return torch.cat((_square(_moved(boxes, move)), boxes[:, 4:]), 1), index

    def _finish(self, areas: Areas, boxes: Tensor, index: Tensor) -> Found:
        inside = areas.meets(boxes)
        boxes, index = boxes[inside], index[inside]
        if not len(boxes):
            return Found(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
        move, points, score = _passes(self.third, areas, boxes, index, 48)
        score = score[:, 1]
        keep = score > self.thresholds[2]
        boxes, index, move, points, score = boxes[keep, :4], index[keep], move[keep], points[keep], score[keep]
        side = boxes[:, 2:] - boxes[:, :2] + 1
        points = points.view(-1, 2, 5).transpose(1, 2) * side[:, None] + boxes[:, None, :2] - 1
        boxes, index, score, points = (v.cpu().numpy() for v in (_moved(boxes, move), index, score, points))
        keep = _nms_of_smaller(boxes, score, index, 0.7)
        return Found(index[keep], boxes[keep], score[keep], points[keep])


class FirstNet(nn.Module):
    """The proposal network with its 2x2 pooling folded in: float [N, 4, h, w] in 0..255 -> last maps, scores.

    Its first convolution runs at stride 2 with a kernel of 4x4 and 40 channels, ten for each place of the pooling
    window; the pooling is then a maximum of planes. Three times as fast on a CPU as pooling after the fact. The fourth
    channel of the pictures (see `Areas`) counts for nothing. Moves are made of the last maps where something is found.
    """

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__()
        weight, bias = state["conv1.weight"], state["conv1.bias"]
        wide = torch.zeros(40, 4, 4, 4)
        for place, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            wide[10 * place : 10 * place + 10, :3, y : y + 3, x : x + 3] = weight
        self.register_buffer("weight", wide * _SCALE)
        self.register_buffer("bias", (bias - 127.5 * _SCALE * weight.sum((1, 2, 3))).repeat(4))
        self.register_buffer("slope", state["prelu1.weight"].repeat(4))
        self.body = nn.Sequential(*convolutions(state, {2: None, 3: None}))
        logits, bias = state["conv4_1.weight"].flatten(1), state["conv4_1.bias"]
        self.register_buffer("score", logits[1] - logits[0])  # softmax of two
        self.register_buffer("score_bias", bias[1] - bias[0])
        self.register_buffer("move", state["conv4_2.weight"].flatten(1))
        self.register_buffer("move_bias", state["conv4_2.bias"])
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last maps [N, h', w', 32] and scores [N, h', w']."""
        odd_y, odd_x = x.shape[2] % 2, x.shape[3] % 2
        if odd_y or odd_x:
            x = F.pad(x, (0, odd_x, 0, odd_y))
        x = F.prelu(F.conv2d(x, self.weight, self.bias, stride=2), self.slope)
        # What the padding gave is no value of the map: it must not win.
        if odd_y:
            x[:, 20:, -1] = -torch.inf
        if odd_x:
            x[:, 10:20, :, -1] = x[:, 30:, :, -1] = -torch.inf
        x = torch.maximum(torch.maximum(x[:, :10], x[:, 10:20]), torch.maximum(x[:, 20:30], x[:, 30:]))
        x = self.body(x).permute(0, 2, 3, 1)
        return x, (x @ self.score + self.score_bias).sigmoid()

    def moves(self, maps: Tensor) -> Tensor:
        """[n, 4] of some places of the last maps [n, 32]."""
        return F.linear(maps, self.move, self.move_bias)


def _folded(net: CropNet) -> CropNet:
    """Made for pixels in 0..255: the normalisation goes into the first convolution; the pooling is `Pool`."""
    first = net.body[0]
    weight = first.weight.detach()
    first.bias = nn.Parameter(first.bias.detach() - 127.5 * _SCALE * weight.sum((1, 2, 3)))
    first.weight = nn.Parameter(weight * _SCALE)
    for i, layer in enumerate(net.body):
        if isinstance(layer, nn.MaxPool2d) and (layer.kernel_size, layer.stride) == (3, 2):
            net.body[i] = Pool()
    return net.eval().requires_grad_(False)


class Pool(nn.Module):
    """Maximum pooling 3x3 by 2 with ragged ends as maxima of slices: four times as fast on a CPU as torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, C, ceil((h - 1) / 2), ceil((w - 1) / 2)]."""
        for dim in (2, 3):
            size = x.shape[dim]
            count, whole = size // 2, (size - 1) // 2  # windows; the last of an even size has two rows
            most = torch.maximum(_every_second(x, dim, 0, count), _every_second(x, dim, 1, count))
            inside = most.narrow(dim, 0, whole)
            torch.maximum(inside, _every_second(x, dim, 2, whole), out=inside)
            x = most
        return x


def _every_second(x: Tensor, dim: int, start: int, count: int) -> Tensor:
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, start + 2 * count - 1, 2)
    return x[tuple(index)]


class Areas:
    """Means over whole-pixel windows of byte pictures [N, H, W, 3], from their summed-area table (Crow 1984).

    Windows are those of adaptive average pooling, which facenet-pytorch shrinks by, so that results are equal. A pixel
    has a fourth channel of which nothing is read: elements of 16 bytes are picked three times as fast as of 12.
    """

    def __init__(self, pixels: Tensor):
        count, height, width, _ = pixels.shape
        # Sums may wrap around 32 bits; differences over a window of less than 8 million pixels are still right.
        self.table = torch.empty(count, height + 1, width + 1, 4, dtype=torch.int32, device=pixels.device)
        if pixels.device.type == "cpu":
            for picture, table in zip(pixels.numpy(), self.table.numpy(), strict=True):
                cv2.integral(cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA), table, sdepth=cv2.CV_32S)
        else:
            self.table[:, 0] = 0
            self.table[:, :, 0] = 0
            sums = torch.cumsum(pixels, 2, dtype=torch.int32).cumsum(1, dtype=torch.int32)
            self.table[:, 1:, 1:, :3] = sums

    def shrunk(self, size: tuple[int, int], rows: tuple[int, int] | None = None) -> Tensor:
        """The whole pictures at size (h, w), or only some of those rows: float [N, 4, rows, w], channels last."""
        (y0, y1), (x0, x1) = (
            _windows(torch.tensor([0]), torch.tensor([n - 1]), k)
            for n, k in zip(self.table.shape[1:3], size, strict=True)
        )
        y0, y1, x0, x1 = (v[0].to(self.table.device) for v in (y0, y1, x0, x1))
        if rows is not None:
            y0, y1 = y0[slice(*rows)], y1[slice(*rows)]
        weight = 1 / ((y1 - y0)[:, None] * (x1 - x0)[None]).float()
        if self.table.device.type == "cpu":
            edges = (v.numpy() for v in (y0, y1, x0, x1))
            return torch.from_numpy(_means(self.table.numpy(), *edges, weight.numpy())).permute(0, 3, 1, 2)
        high = self.table.index_select(1, y1) - self.table.index_select(1, y0)
        sums = high.index_select(2, x1) - high.index_select(2, x0)
        return (sums * weight[..., None]).permute(0, 3, 1, 2)

    def meets(self, boxes: Tensor) -> Tensor:
        """bool [n]: which of the boxes [n, 4+] have a part inside the pictures."""
        low, high = self._cut(boxes)
        return (high > low).all(1)

    def _cut(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        _, height, width, _ = self.table.shape
        low = boxes[:, :2].trunc().clamp(min=1).long() - 1
        return low, torch.minimum(
            boxes[:, 2:4].trunc().long(), torch.tensor([width - 1, height - 1], device=boxes.device)
        )

    def crops(self, boxes: Tensor, index: Tensor, size: int) -> Tensor:
        """Crops [n, 3, size, size] of boxes [n, 4+], which must meet their pictures [n], cut at the edges."""
        _, height, width, _ = self.table.shape
        low, high = self._cut(boxes)
        (x0, x1), (y0, y1) = (_windows(low[:, k], high[:, k], size) for k in (0, 1))
        top, bottom = ((index[:, None] * height + y) * width for y in (y0, y1))
        flat = self.table.view(-1, 4)

        def at(row: Tensor, x: Tensor) -> Tensor:
            return _picked(flat, (row[:, :, None] + x[:, None]).view(-1))

        sums = at(bottom, x1).sub_(at(top, x1)).sub_(at(bottom, x0)).add_(at(top, x0))
        crop = sums.view(-1, size, size, 4)[..., :3] / ((y1 - y0)[:, :, None] * (x1 - x0)[:, None]).float()[..., None]
        return crop.permute(0, 3, 1, 2)


def _means(
    table: np.ndarray, y0: np.ndarray, y1: np.ndarray, x0: np.ndarray, x1: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """float32 [N, h, w, 4]: sums between these edges of a table int32 [N, H, W, 4], times weight [h, w].

    A few rows at a time, which stay in the cache of a core: a fifth less time than all at once.
    """
    means = np.empty((len(table), len(y0), len(x0), 4), np.float32)
    for picture, mean in zip(table, means, strict=True):
        for start in range(0, len(y0), ROWS):
            rows = slice(start, start + ROWS)
            high = picture.take(y1[rows], 0)
            high -= picture.take(y0[rows], 0)
            whole = high.view(_PIXEL)[..., 0]
            sums = whole.take(x1, 1)[..., None].view(np.int32)
            sums -= whole.take(x0, 1)[..., None].view(np.int32)
            np.multiply(sums, weight[rows, :, None], out=mean[rows], casting="unsafe", dtype=np.float32)
    return means


def _picked(table: Tensor, index: Tensor) -> Tensor:
    """int32 [n, 4] of one [m, 4]."""
    if table.device.type != "cpu":
        return table.index_select(0, index)
    return torch.from_numpy(table.numpy().view(_PIXEL)[:, 0].take(index.numpy())[:, None].view(np.int32))


def _windows(low: Tensor, high: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Edges [n, count] of the windows that adaptive pooling cuts low..high [n] into."""
    step = torch.arange(count, device=low.device) * (high - low)[:, None]
    return low[:, None] + step // count, low[:, None] - (-(step + (high - low)[:, None]) // count)


def _passes(net: nn.Module, areas: Areas, boxes: Tensor, index: Tensor, size: int) -> list[Tensor]:
    step = PASS // size**2 if boxes.device.type == "cpu" else 1024
    results = []
    for start in range(0, len(boxes), 4 * step):
        crops = areas.crops(boxes[start : start + 4 * step], index[start : start + 4 * step], size)
        results += [net(crops[i : i + step]) for i in range(0, len(crops), step)]
    return [torch.cat(values) for values in zip(*results, strict=True)]


def _nms(boxes: Tensor, score: Tensor, index: Tensor, limit: float) -> Tensor:
    """Rows to keep, the highest score first; boxes [n, 4] of different pictures [n] never meet."""
    if not len(boxes):
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    apart = index.to(boxes) * (boxes.max() - boxes.min() + 1)  # each picture's boxes in a place of their own
    return nms_operator()(boxes + apart[:, None], score, limit)


def _square(boxes: Tensor) -> Tensor:
    """[n, 4]: the same centre, the longer side both ways."""
    side = boxes[:, 2:4] - boxes[:, :2]
    longest = side.amax(1, keepdim=True)
    low = boxes[:, :2] + side / 2 - longest / 2
    return torch.cat((low, low + longest), 1)


def _moved(boxes: Tensor, move: Tensor) -> Tensor:
    side = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return boxes[:, :4] + move * side


def _nms_of_smaller(boxes: np.ndarray, score: np.ndarray, index: np.ndarray, limit: float) -> np.ndarray:
    """Rows kept when overlap is measured against the smaller box, so that a box inside a surer one goes; per image."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, 1)
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        others = [j for j in kept if index[j] == index[i]]
        low, high = np.maximum(boxes[i, :2], boxes[others, :2]), np.minimum(boxes[i, 2:], boxes[others, 2:])
        inter = np.prod(np.maximum(high - low + 1, 0), 1)
        if not (inter > limit * np.minimum(area[i], area[others])).any():
            kept.append(int(i))
    return np.array(kept, np.int64)
