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
    from a3gan.evaluation.generator_protocol import is_generator
    from a3gan.sweep import is_sweep

    if is_sweep(file):
        raise UserError(f"{file}: the config of a sweep; run `a3gan sweep {file}`")
    if protocol.is_evaluation(file) or is_generator(file):
        raise UserError(f"{file}: the config of an evaluation; run `a3gan evaluate {file}`")
    cfg = load_config(file, overrides)
    if dry_run:
        from a3gan.training.dryrun import dry_run as look

        click.echo(look(cfg))
        return
    from a3gan.training.distributed import is_first
    from a3gan.training.summary import summary
    from a3gan.training.trainer import train as run

    folder = run(cfg, max_minutes=max_minutes, fresh=fresh)
    if is_first():  # under torchrun one process speaks for all
        click.echo(summary(folder))


@click.command()
@click.argument("source", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Archive to write (a zip).")
@click.option("--size", default=128, show_default=True, help="Side of the aligned faces in pixels.")
@click.option("--frame", type=click.Choice(["face", "ffhq"]), default="face", show_default=True,
              help="face: eyes a third of the width apart; ffhq: a quarter.")  # fmt: skip
@click.option("--table", type=click.Path(), help="CSV with labels, splits and landmarks for a zip's or folder's files.")
@click.option("--layout", type=click.Choice(["auto", "plain", "celeba", "ffhq", "folders"]), default="auto",
              show_default=True, help="auto: CelebA, FFHQ and folders named train, happy, yawn are known.")  # fmt: skip
@debug_option
def prepare(source: str, output: str, size: int, frame: str, table: str | None, layout: str) -> None:
    """Align the faces of SOURCE (a folder, a zip, a CSV table, a copy of CelebA or FFHQ) into one archive."""
    from a3gan.data.prepare import prepare as run

    result = run(source, output, size=size, frame=frame, table=table, layout=layout)
    if result is not None:
        click.echo(str(result))


@click.command()
@click.argument("file", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option("--dry-run", is_flag=True, help="Check every variant, list them and what is done; stop.")
@click.option("--max-minutes", type=click.FloatRange(min=0), help="Save and stop after this many minutes.")
@debug_option
def sweep(file: str, overrides: tuple[str, ...], dry_run: bool, max_minutes: float | None) -> int:
    """Train the variants of the YAML FILE in turn with equal budget, and compare them in a table.

    Keys of the training can be overridden for all: a3gan sweep FILE train.total_images=100000 dir=runs/mine
    """
    from a3gan import sweep as sweeping
    from a3gan.training.distributed import is_first

    if dry_run:
        click.echo(sweeping.dry_run(file, overrides))
        return 0
    folder, variants, text = sweeping.run(file, overrides, max_minutes=max_minutes)
    if is_first():  # under torchrun one process speaks for all
        click.echo(text)
        click.echo(f"tables, bars and faces in {folder}")
        waiting = [v.name for v in variants if v.status in ("waiting", "stopped")]
        if waiting:
            click.echo(f"to do: {', '.join(waiting)}; the same command goes on")
    return 1 if any(v.status == "failed" for v in variants) else 0
