"""Commands that hide faces from people, and bring them back: hide, recover."""

from __future__ import annotations

from collections.abc import Callable

import click

from a3gan.commands.common import debug_option

_SHARED = (
    click.argument("photo", type=click.Path()),
    click.option("--key", required=True, type=click.Path(dir_okay=False), help="The key file: the secret."),
    click.option("--weights", default="diff_privacy_64", show_default=True,
                 help="Checkpoint, name of shipped weights, or a local folder of Stable Diffusion."),
    click.option("--tower", type=click.Path(file_okay=False),
                 help="Local folder of CLIP's image tower, for a Stable Diffusion that has none."),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
    debug_option,
)  # fmt: skip


def _shared(function: Callable) -> Callable:
    for decorate in reversed(_SHARED):
        function = decorate(function)
    return function


@click.command()
@_shared
@click.option("-o", "--output", type=click.Path(), help="The protected photo. Default: <name>_hidden beside it.")
@click.option("--seed", default="0", show_default=True, help="A number or a word; another one gives other faces.")
@click.option("--msi-steps", type=click.IntRange(min=0), default=200, show_default=True,
              help="Steps in which each face's conditions are fitted; more recover better.")
@click.option("--overwrite", is_flag=True, help="Replace the photo AND the key; what the old key held is lost.")
def hide(
    photo: str, key: str, weights: str, tower: str | None, device: str, output: str | None, seed: str, msi_steps: int,
    overwrite: bool,
) -> None:  # fmt: skip
    """Make the faces of PHOTO look like others to people, not to machines, and write the key that brings them back.

    This is no anonymization: face recognition still finds the person. The key file IS the face.
    """
    from a3gan.anonymizers.hiding import Hiding
    from a3gan.anonymizers.hiding_keys import WARNING
    from a3gan.commands.running import _seed
    from a3gan.media.hide import hide_photo

    method = Hiding(weights, device, msi_steps=msi_steps, tower=tower)
    done = hide_photo(photo, key, output, method, seed=_seed(seed), overwrite=overwrite)
    some = f", {done.mosaicked} mosaicked for good" if done.mosaicked else ""
    click.echo(f"{done.output}: {done.faces} face{'s' if done.faces != 1 else ''} hidden{some}")
    click.echo(f"{done.key}: keep it secret and do not lose it; {WARNING}")


@click.command()
@_shared
@click.option("-o", "--output", type=click.Path(), help="The recovered photo. Default: <name>_recovered beside it.")
@click.option("--overwrite", is_flag=True, help="Replace the output where it exists.")
def recover(
    photo: str, key: str, weights: str, tower: str | None, device: str, output: str | None, overwrite: bool
) -> None:
    """Put the faces that the key holds back into PHOTO, which `a3gan hide` made."""
    from a3gan.anonymizers.base import pick_device
    from a3gan.anonymizers.diff_privacy_backbone import load_backbone
    from a3gan.media.hide import recover_photo

    backbone = load_backbone(weights, pick_device(device), tower)
    click.echo(f"{recover_photo(photo, key, output, backbone, overwrite=overwrite)}: recovered")
