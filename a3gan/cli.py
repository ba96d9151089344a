"""The console command `a3gan`. Every command parses, calls one function of the package and prints what it says."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import click

from a3gan import __version__
from a3gan.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0 done, 1 an error in one line, 2 wrong usage, 130 interrupted."""
    state: dict[str, Any] = {"debug": False}
    try:
        args = None if argv is None else list(argv)
        status = cli.main(args, prog_name="a3gan", obj=state, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("a3gan: interrupted", err=True)
        return 130
    except Exception as error:  # noqa: BLE001  (the last line of defence: one line instead of a traceback)
        if state["debug"]:
            traceback.print_exc()
        elif isinstance(error, UserError):
            click.echo(f"a3gan: {_one_line(error)}", err=True)
        else:
            click.echo(f"a3gan: {type(error).__name__}: {_one_line(error)} (--debug shows where)", err=True)
        return 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _debug(function: Callable) -> Callable:
    def note(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.find_root().obj["debug"] = True

    text = "Show the traceback of an error."
    return click.option("--debug", is_flag=True, expose_value=False, is_eager=True, callback=note, help=text)(function)


# Both --max-minutes and --max_minutes: people bring either habit from other tools.
_SETTINGS = {"token_normalize_func": lambda name: name.replace("_", "-"), "help_option_names": ["-h", "--help"]}


@click.group(context_settings=_SETTINGS)
@click.version_option(__version__)
def cli() -> None:
    """Train, run and prove face anonymizers."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("a3gan").setLevel(logging.INFO)


@cli.command()
@click.argument("file", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option(
    "--dry-run", is_flag=True, help="Build everything, print shapes, parameters, memory, missing weights; stop."
)
@click.option("--max-minutes", type=click.FloatRange(min=0), help="Save and stop after this many minutes.")
@click.option("--fresh", is_flag=True, help="Move an earlier run of the same folder aside instead of going on with it.")
@_debug
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


@cli.command()
@click.argument("source", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Archive to write (a zip).")
@click.option("--size", default=128, show_default=True, help="Side of the aligned faces in pixels.")
@click.option("--frame", type=click.Choice(["face", "ffhq"]), default="face", show_default=True,
              help="face: eyes a third of the width apart; ffhq: a quarter.")  # fmt: skip
@click.option("--table", type=click.Path(), help="CSV with labels, splits and landmarks for a zip's or folder's files.")
@_debug
def prepare(source: str, output: str, size: int, frame: str, table: str | None) -> None:
    """Align the faces of SOURCE (a folder, a zip, or a CSV table) into one archive for training."""
    from a3gan.data.prepare import prepare as run

    result = run(source, output, size=size, frame=frame, table=table)
    if result is not None:
        click.echo(str(result))


@cli.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder for the anonymised photos.")
@click.option("--weights", help="Checkpoint or name of shipped weights (see `a3gan models`).")
@click.option("--policy", help="What stays and what changes: a preset, or 'keep=expression,eyes change=gender'.")
@click.option("--seed", default="0", show_default=True, help="A number or a word; another one gives other faces.")
@click.option("--alpha", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0 = no change, 1 = full.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@_debug
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


@cli.command()
@click.argument("config", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option("--method", help="Short for method=...: a3gan,blur,pixelate,solid,identity.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would run and what is missing; stop.")
@_debug
def evaluate(config: str, overrides: tuple[str, ...], method: str | None, dry_run: bool) -> None:
    """Measure anonymizers as the YAML CONFIG says: who is still recognised, what is still found, what it shows."""
    overrides = (*overrides, f"method={method}") if method else overrides
    if dry_run:
        from a3gan.evaluation import protocol

        click.echo(protocol.dry_run(protocol.load(config, overrides)))
        return
    from a3gan.evaluation.run import evaluate as run

    click.echo(str(run(config, list(overrides))))


@cli.group()
def bench() -> None:
    """Measure speed, as ratios within one run."""


@bench.command("train")
@click.argument("file", type=click.Path(), default="a3gan/faces_64")
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@_debug
def bench_train(file: str, overrides: tuple[str, ...]) -> None:
    """Images a second of each phase of a training config, against the machine's matrix rate."""
    from a3gan.bench import bench_train as run
    from a3gan.config import load_config

    for line in run(load_config(file, overrides)):
        click.echo(line)


@bench.command("layers")
@_debug
def bench_layers() -> None:
    """Our layers against the library's own."""
    from a3gan.bench import bench_layers as run

    for line in run():
        click.echo(line)


@cli.command()
@click.argument("name", required=False)
@_debug
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


if __name__ == "__main__":
    sys.exit(main())
