"""Every stage by name. Adding one: write the module, add a line here and a YAML under configs/<stage>/."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.training.stage import Stage

STAGES: dict[str, tuple[str, str]] = {  # stage -> (module, class); imported only when trained
    "stylegan2": ("a3gan.training.gan_stage", "StyleGan2Stage"),
    "identity": ("a3gan.training.identity_stage", "IdentityStage"),
    "attributes": ("a3gan.training.attributes_stage", "AttributesStage"),
    "a3gan": ("a3gan.training.a3gan_stage", "A3GanStage"),
    "falco": ("a3gan.training.falco_stage", "FalcoStage"),
    "facemae": ("a3gan.training.facemae_stage", "FaceMaeStage"),
    "diffusion": ("a3gan.training.diffusion_stage", "DiffusionStage"),
    "msi": ("a3gan.training.msi_stage", "MsiStage"),
}


def stage_class(name: str) -> type[Stage]:
    """The class of a stage; UserError for an unknown name."""
    if name not in STAGES:
        raise UserError(f"stage: {name!r} is unknown; choose one of {', '.join(STAGES)}")
    module, class_name = STAGES[name]
    return getattr(import_module(module), class_name)
