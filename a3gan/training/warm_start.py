"""Where a run's weights begin when not from random ones: a whole A3GAN, or its parts from files of their own.

The parts: a generator of ours or of the public, an encoder of another A3GAN, a discriminator that learned beside the
generator. A discriminator that starts from nothing would first unlearn what a trained generator knows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a3gan import checkpoint
from a3gan.config import check, flatten
from a3gan.errors import UserError
from a3gan.models import public_weights

if TYPE_CHECKING:
    from torch import nn

    from a3gan.config import Config
    from a3gan.models.a3gan import A3GAN
    from a3gan.models.stylegan2 import Generator

logger = logging.getLogger(__name__)
# What decides the tensors of a network, by section of the config; the rest may differ between the file and the run.
_GENERATOR = ("data.size", "data.frame", "model.generator.")
_ENCODER = ("data.size", "data.frame", "model.encoder.", "model.scu.")
_DISCRIMINATOR = ("data.size", "data.frame", "model.discriminator.")
_WHOLE = (*_GENERATOR, "model.encoder.", "model.scu.", "model.ainet.")
_PARTS = ("model.generator.weights", "model.encoder.weights", "model.discriminator.weights")
_SWITCHES = ("model.scu.enabled", "model.scu.filler", "model.ainet.policy")  # false = that part of A3GAN is left out
_NOT_SHAPE = (*_PARTS, "model.generator.freeze")


def begin_model(model: A3GAN, cfg: Config) -> str | None:
    """Loads what model.weights, or model.generator.weights and model.encoder.weights, name into the model.

    Returns the sha256 of the whole model's or the generator's file, or None. A whole model brings its parts along, so
    the keys of the parts may not be given beside it; suppressive units, fillers and the policy may be left out of it
    (ablations of a trained model). The fusion starts at the mean code of a loaded generator; its
    heads are new then, for they point into the W+ of one generator.

    Raises:
        UserError: missing, cut or foreign file; a file of another frame, size or architecture (its keys are named).
    """
    whole, part = cfg.model.weights, cfg.model.generator.weights
    if whole:
        for name in ("generator", "encoder"):
            if getattr(cfg.model, name).weights:
                raise UserError(f"model.weights holds the {name} as well: leave model.{name}.weights=null beside it")
        return _load_whole(model, cfg, whole)
    if cfg.model.encoder.weights:
        _load_encoder(model, cfg, cfg.model.encoder.weights)
    if part:
        digest = begin_generator(model.generator, cfg)
        model.fusion.w_start.copy_(model.generator.w_mean.expand_as(model.fusion.w_start))
        return digest
    return None


def begin_generator(generator: Generator, cfg: Config) -> str | None:
    """Loads model.generator.weights, where given, into the generator; returns the file's sha256.

    The file: a checkpoint or carry of stage stylegan2 or a3gan, or public StyleGAN2 weights (see
    `models.public_weights`), which want data.frame=ffhq. Raises as `begin_model`.
    """
    name = cfg.model.generator.weights
    if name is None:
        return None
    path = checkpoint.resolve(name)
    if is_public(path):
        _load_public(generator, cfg, path)
    else:
        tensors, meta = checkpoint.load(path)
        _same(meta, cfg, path, _GENERATOR)
        checkpoint.load_into(generator, tensors, generator_prefix(tensors), path)
    logger.info("generator: weights of %s", path)
    return checkpoint.sha256(path)


def begin_discriminator(net: nn.Module, cfg: Config) -> float | None:
    """Loads model.discriminator.weights, where given: a carry of stage stylegan2 or a3gan (run.carry).

    Returns the augmentation's probability that goes with it (ADA), None without a file. Raises as `begin_model`.
    """
    name = cfg.model.discriminator.weights
    if name is None:
        return None
    path = checkpoint.resolve(name)
    tensors, meta = checkpoint.load(path)
    if meta.get("kind") != "carry" or not any(key.startswith("net/discriminator.") for key in tensors):
        raise UserError(f"model.discriminator.weights: {path} is no carry that holds a discriminator; see run.carry")
    _same(meta, cfg, path, _DISCRIMINATOR)
    checkpoint.load_into(net, tensors, "net/discriminator", path)
    logger.info("discriminator: weights of %s", path)
    return float(meta["plain"].get("augment_p", 0.0))


def generator_prefix(names: Iterable[str]) -> str:
    """What stands before a generator's tensors in a file of ours: averaged weights, of either stage."""
    known = ("generator", "ema/generator", "ema/model.generator")
    found = {prefix for prefix in known for name in names if name.startswith(f"{prefix}.")}
    return next(iter(found), "model.generator")


def missing(cfg: Config) -> list[str]:
    """One line for each key whose file is not there (dry runs)."""
    wanted: dict[str, str | Path | None] = {"model.weights": cfg.model.weights}
    for name in ("generator", "encoder", "discriminator"):
        wanted[f"model.{name}.weights"] = getattr(cfg.model, name).weights
    return checkpoint.missing(wanted)


def inherited_scorers(cfg: Config) -> list[str]:
    """Fingerprints of the scorers that the files of model.weights, model.generator.weights, model.encoder.weights and
    run.begin were trained against, sorted: what taught a parent taught its child, and may not judge it either."""
    named = (cfg.model.weights, cfg.model.generator.weights, cfg.model.encoder.weights, cfg.run.begin)
    ours = [path for path in map(checkpoint.resolve, filter(None, named)) if not is_public(path)]
    return sorted({one for path in ours for one in checkpoint.load_meta(path).get("scorers") or ()})


def is_public(path: Path) -> bool:
    """Whether a file is to be read as public weights: no safetensors, or one without our header."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(str(path), framework="pt") as file:
            return "a3gan" not in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False  # reading it as ours says that it is cut


def _load_public(generator: Generator, cfg: Config, path: Path) -> None:
    if cfg.data.frame != public_weights.FRAME:
        raise UserError(
            f"{path}: public StyleGAN2 weights draw faces aligned as FFHQ's, and data.frame is '{cfg.data.frame}'; "
            f"set data.frame={public_weights.FRAME} and prepare the faces with --frame {public_weights.FRAME}"
        )
    state, shape = public_weights.convert(public_weights.read_file(path), path)
    values = flatten(cfg.model_dump(mode="json"))
    wrong = public_weights.mismatch(shape, values)
    if not cfg.model.generator.noise:
        wrong.append("model.generator.noise=true (is false)")
    if wrong:
        raise UserError(f"{path}: a generator of {shape.size} px in {shape.layout}'s layout wants {', '.join(wrong)}")
    checkpoint.load_into(generator, {f"generator.{k}": v for k, v in state.items()}, "generator", path)


def _load_encoder(model: A3GAN, cfg: Config, name: str) -> None:
    path = checkpoint.resolve(name)
    tensors, meta = checkpoint.load(path)
    known = ("model.encoder", "ema/model.encoder")  # of a checkpoint, of a carry
    prefix = next((one for one in known if any(key.startswith(f"{one}.") for key in tensors)), None)
    if prefix is None:
        raise UserError(f"model.encoder.weights: {path} holds no encoder of stage a3gan")
    _same(meta, cfg, path, _ENCODER)
    checkpoint.load_into(model.encoder, tensors, prefix, path)
    logger.info("encoder: weights of %s", path)


def _load_whole(model: A3GAN, cfg: Config, name: str) -> str:
    path = checkpoint.resolve(name)
    tensors, meta = checkpoint.load(path)
    if meta.get("stage") != "a3gan" or not any(key.startswith("model.") for key in tensors):
        raise UserError(
            f"{path}: a checkpoint of stage {meta.get('stage')!r}, not of a3gan; "
            "a generator alone goes to model.generator.weights"
        )
    _same(meta, cfg, path, _WHOLE, ablated=True)
    own = {f"model.{name}" for name in model.state_dict()}
    left = [name for name in tensors if name.startswith("model.encoder.units.") and name not in own]
    checkpoint.load_into(model, {name: value for name, value in tensors.items() if name not in left}, "model", path)
    logger.info("model: weights of %s, after %s images", path, meta.get("images_seen", "?"))
    if left:
        logger.warning("model: the run has less of the suppressive units: %d tensors of %s left out", len(left), path)
    return checkpoint.sha256(path)


def _only_less(key: str, was: Any, now: Any) -> bool:
    """Whether a key of the config takes a part of the file's A3GAN away and adds none: an ablation."""
    if key == "model.scu.levels":
        return set(now) < set(was)
    return key in _SWITCHES and bool(was) and not now


def _same(
    meta: dict[str, Any], cfg: Config, path: Path, sections: tuple[str, ...], *, ablated: bool = False
) -> None:
    """UserError that names the keys in which a checkpoint's networks or frame differ from the run's.

    ablated: the run may lack parts of A3GAN that the file has.
    """
    for key in ("frame", "size"):  # of the data it saw; in every checkpoint, whatever its config
        own = getattr(cfg.data, key)
        if meta.get(key, own) != own:
            raise UserError(f"{path}: made for data.{key}={meta[key]}, and the config has data.{key}={own}")
    try:
        was = flatten(check(meta["config"], source=str(path)).model_dump(mode="json"))  # new keys get their defaults
    except (KeyError, UserError):
        return  # no readable config: shapes decide
    now = flatten(cfg.model_dump(mode="json"))
    keys = [k for k in now if k.startswith(sections) and k not in _NOT_SHAPE]
    keys = [k for k in keys if k in was and was[k] != now[k] and not (ablated and _only_less(k, was[k], now[k]))]
    differ = [f"{k}={was[k]} (is {now[k]})" for k in keys]
    if differ:
        raise UserError(f"{path}: its networks were built with {', '.join(differ)}; give the run the same")
