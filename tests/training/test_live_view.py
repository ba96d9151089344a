"""What TensorBoard shows of a run of stage `a3gan`, read back from the events."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a3gan import checkpoint
from a3gan.config import load_config
from a3gan.data.synthetic import synthetic_faces
from a3gan.errors import UserError
from a3gan.losses.total import WEIGHTS
from a3gan.scorers.small_identity import SmallIdentity
from a3gan.training.a3gan_stage import A3GanStage
from a3gan.training.loss_scorers import load_watcher
from a3gan.training.summary import summary
from a3gan.training.trainer import train

TINY = [
    "stage=a3gan", "run.device=cpu", "run.log_every=4", "run.sheet_every=8", "run.validate_every=8",
    "model.generator.channels_base=256", "model.generator.channels_max=8", "model.generator.w_dim=16",
    "model.generator.z_dim=16", "model.generator.mapping_layers=1", "model.discriminator.channels_base=256",
    "model.discriminator.channels_max=8", "model.encoder.widths=[8,8,8,8]", "model.encoder.lateral=8",
    "model.ainet.hidden=16", "model.ainet.code=16", "model.ainet.z_dim=8", "train.batch_size=4",
    "train.total_images=16", "train.phases.reconstruct=4", "train.phases.suppress=4", "data.synthetic_count=16",
    "scorers.recognisers=[{path: identity_small, kind: small}]",
]  # fmt: skip


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("watcher") / "watcher.safetensors"
    tensors = checkpoint.prefixed({"identity": SmallIdentity(8, 16).eval()})
    checkpoint.save(path, tensors, {"stage": "identity", "width": 8, "dim": 16})
    return f"scorers.watcher={{path: '{path.as_posix()}', kind: small}}"


def test_everything_is_in_the_events(watcher: str, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = train(load_config(None, [*TINY, watcher, f"run.dir='{(tmp_path / 'run').as_posix()}'"]))
    events = accumulator.EventAccumulator(str(folder / "events"))
    events.Reload()
    scalars, pictures = set(events.Tags()["scalars"]), set(events.Tags()["images"])
    assert {f"train/loss/{name}" for name in {*WEIGHTS, "total"}} <= scalars
    assert {f"train/gate/level_{level}" for level in (1, 2, 3)} <= scalars
    assert {"train/images_per_second", "train/discriminator/real", "train/discriminator/fake"} <= scalars
    cosines = ("reconstructed", "anonymised", "strangers")
    assert {f"val/identity_{name}" for name in cosines} | {f"val/watched_{name}" for name in cosines} <= scalars
    assert "sheet" in pictures and {e.step for e in events.Images("sheet")} == {8, 16}
    assert {e.step for e in events.Scalars("val/watched_anonymised")} == {0, 8, 16}
    assert "the watcher's cosine, original and anonymised" in summary(folder)
    # It only watches: no loss used it, so it may judge later.
    _, meta = checkpoint.load(folder / "checkpoint.safetensors")
    used = load_watcher(load_config(None, [*TINY, watcher]), [], torch.device("cpu")).fingerprint
    assert used not in meta["scorers"] and len(meta["scorers"]) == 2


def test_a_watcher_that_trains_is_refused_and_a_missing_one_named() -> None:
    same = load_config(None, [*TINY, "scorers.watcher={path: identity_small, kind: small}"])
    with pytest.raises(UserError, match="scorers.watcher: identity_small is also in scorers.recognisers"):
        A3GanStage(same, synthetic_faces(2, 64, 0), None, torch.device("cpu"))
    absent = load_config(None, [*TINY, "scorers.watcher={path: absent.safetensors, kind: small}"])
    assert A3GanStage.missing_weights(absent)[0].startswith("scorers.watcher.path: absent.safetensors")
    assert load_watcher(load_config(None, TINY), [], torch.device("cpu")) is None
