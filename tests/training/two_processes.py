"""Tiny runs of every stage, for tests that compare one process with two; run as a script it is one of the two.

python two_processes.py FOLDER RANK PORT,PORT...
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from a3gan import checkpoint, sweep
from a3gan.config import Config, load_config, save_config
from a3gan.data.archive import FaceSet
from a3gan.data.synthetic import synthetic_faces
from a3gan.training import trainer
from a3gan.training.stage import Batch, Stage, Turn

BASE = [
    "run.device=cpu", "run.tensorboard=false", "run.log_every=4", "run.sheet_every=0", "run.validate_first=false",
    "model.generator.channels_base=256", "model.generator.channels_max=8", "model.generator.w_dim=16",
    "model.generator.z_dim=16", "model.generator.mapping_layers=1", "model.discriminator.channels_base=256",
    "model.discriminator.channels_max=8", "model.encoder.widths=[8,8,8,8]", "model.encoder.lateral=8",
    "model.ainet.hidden=16", "model.ainet.code=16", "model.ainet.z_dim=8", "model.attributes.width=8",
    "model.identity.width=8", "model.identity.dim=16", "loss.r1_every=2", "train.batch_size=4",
    "train.total_images=12", "train.lr=1e-3", "train.lr_generator=1e-3", "train.lr_discriminator=1e-3",
]  # fmt: skip
STAGES: dict[str, list[str]] = {
    # Path length and ADA move numbers of their own, which must agree too.
    "stylegan2": ["train.augment=ada", "train.grad_clip=0.5", "loss.path_length=2", "model.generator.noise=true"],
    "a3gan": ["train.phases.reconstruct=4", "train.phases.suppress=4", "train.grad_clip=0.5"],  # one step a phase
    "attributes": ["train.grad_clip=0.5"],
    "identity": ["train.grad_clip=0.5", "train.identities_per_batch=2", "train.images_per_identity=2"],
}


class Plain(Stage):
    """No random draws and nothing that looks at the whole batch, so that only the order of sums differs."""

    name = "identity"
    ema_names = clipped = ("net",)
    trouble: tuple[str, int, int] | None = None  # what happens, to which rank, at which number of images

    def __init__(self, cfg: Config, data: FaceSet, val: FaceSet | None, device: torch.device) -> None:
        super().__init__(cfg, data, val, device)
        self.networks = {"net": nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.Conv2d(4, 3, 1))}
        self.optimizers = {"net": torch.optim.Adam(self.networks["net"].parameters(), lr=cfg.train.lr)}

    def happens(self, what: str, images_seen: int) -> bool:
        return Plain.trouble == (what, int(os.environ.get("RANK", 0)), images_seen)

    def turns(self, batch: Batch, images_seen: int) -> Iterator[Turn]:
        x = F.avg_pool2d(batch.images, 2)
        loss = F.mse_loss(self.networks["net"](batch.images), x)
        if self.happens("nan", images_seen) or self.cfg.run.name == "broken":
            loss = loss * float("nan")
        if self.happens("crash", images_seen):
            raise RuntimeError("out of memory")
        if self.happens("stop", images_seen):
            stops[-1].asked = True
        yield Turn("net", loss, {"copy": loss})

    def validate(self, nets: dict[str, nn.Module]) -> dict[str, float]:
        if self.happens("validate", 0):
            raise ValueError("no such thing")
        return {"one": 1.0}


stops: list[trainer.StopSignal] = []


def faces() -> FaceSet:
    return synthetic_faces(12, 64, 0, identities=4)


def scorers(folder: Path) -> list[str]:
    """Untrained scorers on disk, and the overrides that name them."""
    from a3gan.scorers.attributes import AttributeNetwork
    from a3gan.scorers.small_identity import SmallIdentity

    where = folder.as_posix()
    if not (folder / "identity.safetensors").is_file():
        torch.manual_seed(0)
        attributes, identity = AttributeNetwork("plain", 8).eval(), SmallIdentity(8, 16).eval()
        meta = {"stage": "attributes", "backbone": "plain", "width": 8}
        checkpoint.save(folder / "attributes.safetensors", checkpoint.prefixed({"attributes": attributes}), meta)
        meta = {"stage": "identity", "width": 8, "dim": 16}
        checkpoint.save(folder / "identity.safetensors", checkpoint.prefixed({"identity": identity}), meta)
    return [
        f"scorers.attributes='{where}/attributes.safetensors'",
        f"scorers.recognisers=[{{path: '{where}/identity.safetensors', kind: small}}]",
    ]


def config(folder: Path, stage: str, name: str, *overrides: str) -> Config:
    words = [f"stage={stage}", f"run.dir='{(folder / name).as_posix()}'", *BASE, *STAGES[stage]]
    return load_config(None, [*words, *(scorers(folder) if stage == "a3gan" else []), *overrides])


@contextmanager
def patched(data: FaceSet, plain: bool) -> Iterator[list]:
    """The trainer on these faces, with stage Plain where asked; gives the list of stage and averages that it builds."""
    kept: list = []
    original = trainer.build_stage

    def build(*arguments: object) -> tuple:
        kept[:] = original(*arguments)
        return tuple(kept)

    class Signal(trainer.StopSignal):
        def __init__(self) -> None:
            super().__init__()
            stops.append(self)

    before = trainer.build_stage, trainer.build_data, trainer.stage_class, trainer.StopSignal
    trainer.build_stage, trainer.build_data, trainer.StopSignal = build, lambda cfg, device: (data, data), Signal
    if plain:
        trainer.stage_class = lambda name: Plain
    try:
        yield kept
    finally:
        trainer.build_stage, trainer.build_data, trainer.stage_class, trainer.StopSignal = before


def run(cfg: Config, data: FaceSet, plain: bool = False) -> dict[str, Tensor]:
    """Trains; returns this process's networks, averages and plain numbers at the end."""
    with patched(data, plain) as kept:
        trainer.train(cfg)
    stage, ema = kept
    numbers = {f"plain.{k}": torch.tensor(float(v), dtype=torch.float64) for k, v in stage.plain_state().items()}
    averages = {f"ema.{name}": net for name, net in ema.nets.items()}
    return checkpoint.prefixed({**stage.networks, **averages}) | numbers


def run_sweep(folder: Path, data: FaceSet) -> str:
    """Three variants of stage Plain, of which the second is never finite on process 1; their ends in words."""
    cfg = config(folder, "identity", "unused", "train.identities_per_batch=0", "train.total_images=16")
    path = folder / f"sweep.{os.environ['RANK']}.yaml"
    save_config(cfg, path.with_suffix(".training.yaml"))
    variants = {"one": {}, "broken": {"run.name": "broken"}, "two": {"loss.keep": 2}}
    values = {"config": str(path.with_suffix(".training.yaml")), "dir": str(folder / "sweep"), "variants": variants}
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    with patched(data, True):
        _, ended, text = sweep.run(path)
    return " ".join(variant.status for variant in ended) + (" with a table" if text else "")


TROUBLES = {
    "fine": None,
    "resumed": None,
    "stop": ("stop", 1, 4),
    "nan": ("nan", 1, 4),
    "crash": ("crash", 1, 4),
    "validate": ("validate", 0, 0),
    "batch": None,
}


def main(folder: Path, rank: int, ports: list[str]) -> None:
    torch.set_num_threads(1)
    data, told = faces(), {}
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")

    def one(name: str, number: int, cfg: Config, plain: bool = False) -> None:
        os.environ["MASTER_PORT"] = ports[number]  # a group of its own for each run
        try:
            checkpoint.save(folder / f"{name}.{rank}.safetensors", run(cfg, data, plain), {})
            told[name] = "done"
        except BaseException as error:  # noqa: BLE001  (what a process ends with is what is tested)
            told[name] = f"{type(error).__name__}: {error}"

    for number, stage in enumerate(STAGES):
        one(stage, number, config(folder, stage, f"{stage}-two"))
    for number, (name, trouble) in enumerate(TROUBLES.items(), start=len(STAGES)):
        Plain.trouble = trouble
        extra = ["train.batch_size=6", "train.accumulate=2"] if name == "batch" else ["data.flip=false"]
        extra += ["train.identities_per_batch=0", f"train.total_images={16 if name == 'resumed' else 12}"]
        where = "fine-two" if name == "resumed" else f"{name}-two"
        one(name, number, config(folder, "identity", where, *extra), plain=True)
    Plain.trouble, os.environ["MASTER_PORT"] = None, ports[-1]
    told["sweep"] = run_sweep(folder, data)
    (folder / f"told.{rank}.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","))
