"""Commands that measure: evaluate, bench."""

from __future__ import annotations

import click

from a3gan.commands.common import debug_option


@click.command()
@click.argument("config", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option("--method", help="Short for method=...: a3gan,blur,pixelate,solid,identity.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would run and what is missing; stop.")
@debug_option
def evaluate(config: str, overrides: tuple[str, ...], method: str | None, dry_run: bool) -> None:
    """Measure anonymizers as the YAML CONFIG says: who is still recognised, what is still found, what it shows."""
    overrides = (*overrides, f"method={method}") if method else overrides
    if dry_run:
        from a3gan.evaluation import protocol

        click.echo(protocol.dry_run(protocol.load(config, overrides)))
        return
    from a3gan.evaluation.run import evaluate as run

    click.echo(str(run(config, list(overrides))))


@click.group()
def bench() -> None:
    """Measure speed, as ratios within one run."""


@bench.command("train")
@click.argument("file", type=click.Path(), default="a3gan/faces_64")
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@debug_option
def bench_train(file: str, overrides: tuple[str, ...]) -> None:
    """Images a second of each phase of a training config, against the machine's matrix rate."""
    from a3gan.bench.training import bench_train as run
    from a3gan.config import load_config

    for line in run(load_config(file, overrides)):
        click.echo(line)


@bench.command("layers")
@debug_option
def bench_layers() -> None:
    """Our layers against the library's own."""
    from a3gan.bench.layers import bench_layers as run

    for line in run():
        click.echo(line)
