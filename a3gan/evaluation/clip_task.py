"""The clips of an evaluation: all methods through the video pipeline, then what a fatigue meter and detectors see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from a3gan.evaluation import clips
from a3gan.evaluation.detection import several_faces
from a3gan.evaluation.fatigue import clips as fatigue_figures
from a3gan.evaluation.gather import ORIGINAL

if TYPE_CHECKING:
    from a3gan.evaluation.tasks import Bench


def clip_figures(bench: Bench) -> dict[str, dict[str, Any]]:
    """By method: `clips` (all of them), `each` (list, a record a track), and `frames_with_several` by detector."""
    from tqdm import tqdm

    cfg, folder = bench.cfg, bench.cfg.run_dir / "clips"
    # Frames are shrunk for them, and faces with these.
    detectors = {name: make(max(24, cfg.min_face // 2)) for name, make in bench.detectors.items()}
    first, *_ = detectors.values()
    opened = [
        clips.open_clip(path, folder, lambda: first, cfg.data.clip_seconds, cfg.data.clip_frames)
        for path in cfg.data.clips
    ]
    result: dict[str, dict[str, Any]] = {}
    originals: list[Any] = []
    with tqdm(total=len(opened) * len(bench.names), desc="clips", unit="clip", dynamic_ncols=True) as bar:
        for name in bench.names:
            made = []
            for clip in opened:
                made.append(_features(bench, clip, name, detectors, folder))
                bar.update(1)
            if name == ORIGINAL:
                originals = made
            result[name] = _figures(bench, opened, originals, made, list(detectors))
    bench.about["clips"] = [
        {"name": clip.name, "tracks": len(clip.tracks), "read": len(clips.long_tracks(clip)), "rate": clip.rate}
        for clip in opened
    ]
    if not any(clips.long_tracks(clip) for clip in opened):
        bench.off.append("task fatigue: clips off: no face that is large and lasts two seconds")
    if not any(clip.sampled for clip in opened):
        bench.off.append("task detection: frames with several faces off: none in the clips")
    return result


def _features(bench: Bench, clip: clips.Clip, name: str, detectors: dict[str, Any], folder: Any) -> Any:
    cfg, gather = bench.cfg, bench.gather
    network = bench.attributes.network
    if name == ORIGINAL:
        return clips.collect(clip, None, {}, network, detectors, folder, None, 1.0, cfg.seed, gather.device)
    policy = gather.policy(name)
    return clips.collect(
        clip, gather.methods[name], gather.key(name, policy), network, detectors, folder, policy, gather.alpha(name),
        cfg.seed, gather.device,
    )  # fmt: skip


def _figures(
    bench: Bench, opened: list[clips.Clip], originals: list[Any], made: list[Any], detectors: list[str]
) -> dict[str, Any]:
    before = [one for clip, f in zip(opened, originals, strict=True) for one in clips.readings(clip, f)]
    after = [one for clip, f in zip(opened, made, strict=True) for one in clips.readings(clip, f)]
    total, each = fatigue_figures(before, after, bench.temperatures)
    result: dict[str, Any] = {"clips": total, "each": each}
    if any(clip.sampled for clip in opened):
        result["frames_with_several"] = {
            detector: several_faces(
                [faces for f in made for faces in clips.found(f, detector)],
                [boxes for f in originals for boxes in clips.references(f, detectors[0])],
            )
            for detector in detectors
        }
    return result
