"""Commands that make weights: prepare, train."""

from __future__ import annotations

import click

from a3gan.commands.common import debug_option
from a3gan.errors import UserError


@click.command()
@click.argument("file", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option(
    "--dry-run", is_flag=True, help="Build everything, print shapes, parameters, memory, missing weights; stop."
)
@click.option("--max-minutes", type=click.FloatRange(min=0), help="Save and stop after this many minutes.")
@click.option("--fresh", is_flag=True, help="Move an earlier run of the same folder aside instead of going on with it.")
@debug_option
def train(file: str, overrides: tuple[str, ...], dry_run: bool, max_minutes: float | None, fresh: bool) -> None:
    """Train what the YAML FILE says; go on where an earlier run of it stopped.

    Any key can be overridden: a3gan train FILE train.lr=2e-4 data.path=faces.zip
    """
    from a3gan.config import load_config
    from a3gan.evaluation import protocol

    if protocol.is_evaluation(file):
        if not dry_run:
            raise UserError(f"{file}: the config of an evaluation; run `a3gan evaluate {file}`")
        click.echo(protocol.dry_run(protocol.load(file, overrides)))
        return
    cfg = load_config(file, overrides)
    if dry_run:
        from a3gan.training.dryrun import dry_run as look

        click.echo(look(cfg))
        return
    from a3gan.training.summary import summary
    from a3gan.training.trainer import train as run

    click.echo(summary(run(cfg, max_minutes=max_minutes, fresh=fresh)))


@click.command()
@click.argument("source", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Archive to write (a zip).")
@click.option("--size", default=128, show_default=True, help="Side of the aligned faces in pixels.")
@click.option("--frame", type=click.Choice(["face", "ffhq"]), default="face", show_default=True,
              help="face: eyes a third of the width apart; ffhq: a quarter.")  # fmt: skip
@click.option("--table", type=click.Path(), help="CSV with labels, splits and landmarks for a zip's or folder's files.")
@debug_option
def prepare(source: str, output: str, size: int, frame: str, table: str | None) -> None:
    """Align the faces of SOURCE (a folder, a zip, or a CSV table) into one archive for training."""
    from a3gan.data.prepare import prepare as run

    result = run(source, output, size=size, frame=frame, table=table)
    if result is not None:
        click.echo(str(result))
