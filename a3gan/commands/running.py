"""Commands that use weights: anonymize, models."""

from __future__ import annotations

import sys

import click

from a3gan.commands.common import debug_option
from a3gan.errors import UserError


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder for the anonymised photos.")
@click.option("--weights", help="Checkpoint or name of shipped weights (see `a3gan models`).")
@click.option("--policy", help="What stays and what changes: a preset, or 'keep=expression,eyes change=gender'.")
@click.option("--seed", default="0", show_default=True, help="A number or a word; another one gives other faces.")
@click.option("--alpha", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0 = no change, 1 = full.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@debug_option
def anonymize(
    photos: tuple[str, ...], output: str, weights: str | None, policy: str | None, seed: str, alpha: float, device: str
) -> int:
    """Replace every face in PHOTOS (files or folders). Exit status 1 when a photo could not be written."""
    from a3gan.media.images import anonymize_files

    report = anonymize_files(
        photos,
        output,
        weights=weights,
        policy=policy,
        seed=int(seed) if seed.lstrip("-").isdigit() else seed,
        alpha=alpha,
        device=device,
        progress=sys.stderr.isatty(),
    )
    for line in report.lines():
        click.echo(line)
    return 0 if report.ok else 1


@click.command()
@click.argument("name", required=False)
@debug_option
def models(name: str | None) -> None:
    """List the shipped weights, or show the card of one."""
    from a3gan import checkpoint

    if name:
        card = checkpoint.resolve(name).with_suffix(".md")
        if not card.is_file():
            raise UserError(f"{name}: has no card ({card.name} is missing beside the weights)")
        click.echo(card.read_text(encoding="utf-8"))
        return
    shipped = checkpoint.shipped()
    if not shipped:
        click.echo("no weights are shipped with this installation")
    for stem, path in shipped.items():
        meta = checkpoint.load_meta(path)
        size = f"{path.stat().st_size / 2**20:.1f} MiB"
        card = "card: a3gan models " + stem if path.with_suffix(".md").is_file() else "no card"
        click.echo(f"{stem:24} {meta.get('stage', '?'):11} {meta.get('size', '?')} px  {size:>9}  {card}")
