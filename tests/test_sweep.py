"""`a3gan sweep`: equal budget, skipping and going on, a table, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from a3gan import cli, sweep, sweep_report
from a3gan.config import Config
from a3gan.errors import NotWritten, UserError
from a3gan.training import trainer
from a3gan.training.distributed import Group

TINY = [
    "run.device=cpu", "run.tensorboard=false", "data.synthetic_count=16", "train.batch_size=4", "train.total_images=12",
    "model.generator.channels_base=256", "model.generator.channels_max=8", "model.generator.w_dim=16",
    "model.generator.z_dim=16", "model.discriminator.channels_base=256", "model.discriminator.channels_max=8",
    "model.encoder.widths=[8,8,8,8]", "model.encoder.lateral=8", "model.ainet.hidden=16", "model.ainet.code=16",
    "model.ainet.z_dim=8", "train.phases.reconstruct=0.3", "train.phases.suppress=0.3",
]  # fmt: skip


def write(folder: Path, variants: dict, **keys: object) -> Path:
    path = folder / "mine.yaml"
    values = {"config": "a3gan/quick", "dir": (folder / "out").as_posix(), "variants": variants, **keys}
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return path


def fake_train(made: list[str], *, stop_after: int = 99, fail: str = "") -> object:
    def run(cfg: Config, max_minutes: float | None = None, group: Group | None = None) -> Path:
        folder = cfg.run_dir
        made.append(folder.name)
        if folder.name == fail:
            raise UserError(f"{folder}: not finite")
        trainer.save_config(cfg, folder / "config.yaml")
        if len(made) <= stop_after:
            (folder / "sheets").mkdir(exist_ok=True)
            Image.new("RGB", (102 + 640, 384), (len(made) * 40, 0, 0)).save(folder / "sheets" / "000000012.png")
            metrics = {"reconstruction_l1": 0.5, "identity_anonymised": 0.1 * len(made), "identity_strangers": 0.3}
            record = {"stage": "a3gan", "images_seen": cfg.train.total_images, "metrics": metrics}
            (folder / "metrics.json").write_text(json.dumps(record))
        return folder

    return run


def test_done_is_skipped_and_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"full": {}, "no_scu": {"model.scu.enabled": False}, "no_id": {"loss.identity": 0}})
    made: list[str] = []
    monkeypatch.setattr(trainer, "train", fake_train(made, stop_after=1))
    _, variants, text = sweep.run(path, TINY)
    assert made == ["full", "no_scu"] and [v.status for v in variants] == ["done", "stopped", "waiting"]
    assert "| no_scu  | stopped |" in text
    monkeypatch.setattr(trainer, "train", fake_train(made))
    folder, variants, text = sweep.run(path, TINY)
    assert made == ["full", "no_scu", "no_scu", "no_id"] and all(v.status == "done" for v in variants)
    assert made == made and sweep.run(path, TINY)[1][2].metrics["identity_anonymised"] == 0.4 and len(made) == 4
    # what is there to look at
    results = json.loads((folder / "results.json").read_text())
    assert [r["name"] for r in results] == ["full", "no_scu", "no_id"] and results[1]["metrics"]["reconstruction_l1"]
    assert (folder / "table.md").read_text(encoding="utf-8") == text and "id left at 1" in text
    assert "model.scu.enabled=false" in text
    with Image.open(folder / "faces.png") as faces, Image.open(folder / "bars.png") as bars:
        assert faces.height == 64 * 7 and bars.width > 400  # originals, two rows a variant
    # another budget is another run: nothing counts as done
    made.clear()
    sweep.run(path, [*TINY, "train.total_images=16"])
    assert len(made) == 3


def test_one_failure_does_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"a": {}, "b": {"loss.keep": 2}, "c": {"loss.keep": 3}})
    made: list[str] = []
    monkeypatch.setattr(trainer, "train", fake_train(made, fail="b"))
    _, variants, text = sweep.run(path, TINY)
    assert [v.status for v in variants] == ["done", "failed", "done"] and "b failed:" in text
    assert cli.main(["sweep", str(path), *TINY]) == 1

    def full_disk(*_: object, **__: object) -> None:
        raise NotWritten("no room")

    monkeypatch.setattr(trainer, "train", full_disk)
    with pytest.raises(NotWritten):
        sweep.run(path, [*TINY, "train.seed=3"])


def test_minutes_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"a": {}, "b": {"loss.keep": 2}})
    made: list[str] = []
    monkeypatch.setattr(trainer, "train", fake_train(made))
    _, variants, _ = sweep.run(path, TINY, max_minutes=0)
    assert not made and {v.status for v in variants} == {"waiting"}


@pytest.mark.parametrize(
    ("variants", "keys", "overrides", "words"),
    [
        ({"a": {"model.scu.enbled": False}}, {}, [], "variant a: override 'model.scu.enbled=false'"),
        ({"a": {}, "b": {"train.total_images": 40}}, {}, [], "train.total_images is 12 in variant a and 40 in b"),
        ({"a": {}, "b": {"data.size": 128}}, {}, [], "data.size"),
        ({"a/b": {}}, {}, [], "becomes a folder"),
        ({}, {}, [], "variants"),
        ({"a": {}}, {"config": "nothing"}, [], "no such config"),
        ({"a": {}}, {}, ["only=[z]"], "no variant 'z'"),
        ({"a": {}}, {"set": {"train.lerning_rate": 1}}, [], "train.lr"),
        ({"a": {"scorers.attributes": "absent"}}, {}, [], "variant a: scorers.attributes: absent"),
    ],
)
def test_what_is_refused(tmp_path: Path, variants: dict, keys: dict, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        sweep.run(write(tmp_path, variants, **keys), [*TINY, *overrides])
    assert words in str(caught.value)


def test_a_file_that_is_no_whole_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a3gan/quick: names no variants.*a3gan train"):
        sweep.load("a3gan/quick")
    path = tmp_path / "mine.yaml"
    path.write_text("variants: {a: {}}", encoding="utf-8")
    with pytest.raises(UserError, match=r"^\S*mine.yaml: the key config is missing$"):
        sweep.load(path)


def test_the_order_of_what_sets_a_key(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": {}, "b": {"loss.keep": 3}}, set={"loss.keep": 1, "loss.code": 7})
    _, variants = sweep.load(path, ["loss.keep=2", f"dir={tmp_path.as_posix()}/there"])
    assert [v.cfg.loss.keep for v in variants] == [2, 3] and variants[0].cfg.loss.code == 7
    assert variants[1].folder == tmp_path / "there" / "b"
    assert [v.name for v in sweep.load(path, ["only=[b]"])[1]] == ["b"]


def test_the_shipped_ablation_is_whole(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["sweep", "ablation", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "no_scu" in out and "missing" not in out
    assert cli.main(["train", "ablation"]) == 1 and "a3gan sweep" in capsys.readouterr().err
    _, variants = sweep.load("ablation")
    assert len({json.dumps(v.cfg.model_dump(mode="json", exclude={"run"})) for v in variants}) == len(variants)


def test_two_real_variants(tmp_path: Path) -> None:
    """The trainer behind it: tiny networks, twelve images each."""
    torch.manual_seed(0)
    path = write(tmp_path, {"full": {}, "no_scu": {"model.scu.enabled": False}})
    folder, variants, _ = sweep.run(path, TINY)
    assert all(v.status == "done" for v in variants) and (folder / "faces.png").is_file()
    assert sweep_report.metric_names(variants)[0] == "reconstruction_l1"
