"""Commands that measure: evaluate, bench."""

from __future__ import annotations

from typing import Any

import click

from a3gan.commands.common import debug_option
from a3gan.errors import UserError


@click.command()
@click.argument("config", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option("--method", help="Short for method=..., such as a3gan,falco,blur.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="A quick look: about N pictures of each set.")
@click.option("--gate", type=click.Path(), metavar="FILE", help="YAML with limits: on figures; status 1 if broken.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would run and what is missing; stop.")
@debug_option
def evaluate(
    config: str, overrides: tuple[str, ...], method: str | None, limit: int | None, gate: str | None, dry_run: bool
) -> int:
    """Measure anonymizers as the YAML CONFIG says: who is still recognised, what is still found, what it shows.

    CONFIG may also be the results.json of an earlier run, to check it with --gate; or name a face generator
    (eval/generator_128), which is then measured by itself.
    """
    from a3gan.evaluation import generator_protocol, limits

    if not config.endswith(".json") and generator_protocol.is_generator(config):
        if method or gate:
            raise UserError(f"{config}: measures a generator, which has no --method and no --gate")
        return evaluate_generator(config, overrides, limit, dry_run)
    overrides = (*overrides, f"method={method}") if method else overrides
    overrides = (*overrides, f"data.max_images={limit}") if limit else overrides
    if config.endswith(".json"):
        return say_limits(limits.check_file(config, gate))
    if dry_run:
        from a3gan.evaluation import protocol
        from a3gan.evaluation.dryrun import dry_run as look

        click.echo(look(protocol.load(config, [*overrides, *limits.as_override(gate)])))
        return 0
    from a3gan.evaluation.run import evaluate as run

    results = run(config, [*overrides, *limits.as_override(gate)])
    click.echo(str(results))
    return say_limits(results["limits"])


def evaluate_generator(config: str, overrides: tuple[str, ...], limit: int | None, dry_run: bool) -> int:
    """`a3gan evaluate` of a generator's config; returns the exit status."""
    from a3gan.evaluation import generator_protocol

    cfg = generator_protocol.load(config, overrides, limit)
    if dry_run:
        click.echo(generator_protocol.dry_run(cfg))
        return 0
    from a3gan.evaluation.generator import evaluate as run

    few = [] if limit is None else ["--limit", str(limit)]
    click.echo(str(run(cfg, ["a3gan", "evaluate", config, *overrides, *few])))
    return 0


def say_limits(checked: list[dict[str, Any]]) -> int:
    """Prints the limits that are broken, or that all are kept; returns the exit status."""
    broken = [one for one in checked if not one["kept"]]
    for one in broken:
        click.echo(f"limit broken: {one['text']}")
    if checked and not broken:
        click.echo(f"limits: all {len(checked)} kept")
    return 1 if broken else 0


@click.group()
def bench() -> None:
    """Measure speed, as ratios within one run."""


@bench.command("train")
@click.argument("file", type=click.Path(), required=False)
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option("--peer/--no-peer", default=None, help="Beside the usual StyleGAN2 design [stylegan2: yes].")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1), help="Steps behind a median.")
@debug_option
def bench_train(file: str | None, overrides: tuple[str, ...], peer: bool | None, repeats: int) -> None:
    """Images a second of a training config's phases, their share of the machine's matrix rate, where the time goes.

    Without FILE: one config of every stage.
    """
    from a3gan.bench import training
    from a3gan.bench.peer import bench_peer
    from a3gan.config import load_config

    for name in (file,) if file else training.ALL:
        cfg = load_config(name, overrides)
        click.echo(name)
        for line in training.bench_train(cfg, repeats):
            click.echo(line)
        if peer or (peer is None and cfg.stage == "stylegan2"):
            for line in bench_peer(cfg, repeats):
                click.echo(line)


@bench.command("layers")
@debug_option
def bench_layers() -> None:
    """Our layers against the library's own."""
    from a3gan.bench.layers import bench_layers as run

    for line in run():
        click.echo(line)


@bench.command("faces")
@click.argument("weights", default="a3gan_64")
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(min=1), default=(1, 4, 16, 32),
              show_default=True, help="Faces a pass; may be given again.")  # fmt: skip
@click.option("--backend", "backends", multiple=True, type=click.Choice(["eager", "onnx", "torch"]),
              help="May be given again. Default: all.")  # fmt: skip
@click.option("--precision", "precisions", multiple=True, type=click.Choice(["fp32", "bf16", "fp16"]),
              default=("fp32", "bf16"), show_default=True, help="May be given again.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: torch's choice.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1), help="Passes behind a median.")
@click.option("--json", "json_path", type=click.Path(), help="Also write the figures here.")
@debug_option
def bench_faces(
    weights: str, overrides: tuple[str, ...], batches: tuple[int, ...], backends: tuple[str, ...],
    precisions: tuple[str, ...], device: str,
    threads: int | None, repeats: int, json_path: str | None,
) -> None:  # fmt: skip
    """Faces a second of one pass, and its share of the machine's matrix rate.

    WEIGHTS: a checkpoint, a shipped name, or a training config, whose model is measured untrained.
    """
    from a3gan.bench import faces

    set_threads(threads)
    report = faces.bench_faces(
        weights, overrides, batches=batches, backends=backends or faces.BACKENDS, precisions=precisions, device=device,
        repeats=repeats,
    )  # fmt: skip
    say(report, json_path)


@bench.command("methods")
@click.argument("names", nargs=-1, metavar="[METHOD]...")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: torch's choice.")
@click.option("--json", "json_path", type=click.Path(), help="Also write the figures here.")
@debug_option
def bench_methods(names: tuple[str, ...], device: str, threads: int | None, json_path: str | None) -> None:
    """Seconds a face of every METHOD (none named: all) on the same faces, its steps and the size of its networks."""
    from a3gan.bench import methods

    set_threads(threads)
    say(methods.bench_methods(names, device), json_path)


@bench.command("video")
@click.argument("clips", nargs=-1, required=True, type=click.Path())
@click.option("--method", "methods", multiple=True, type=click.Choice(["a3gan", "blur", "pixelate", "solid"]),
              default=("blur", "a3gan"), show_default=True, help="May be given again.")  # fmt: skip
@click.option("--weights", help="Of a3gan: checkpoint, ONNX export or shipped name.")
@click.option("--against", type=click.Choice(["deface"]), help="Also run this tool on each clip, in turn with ours.")
@click.option("--deface", "program", type=click.Path(), help="Its command, where it is not on PATH.")
@click.option("--deface-backend", "backend", type=click.Choice(["auto", "onnxrt", "opencv"]), default="auto",
              show_default=True, help="What it runs its network on.")  # fmt: skip
@click.option("--pairs", default=5, show_default=True, type=click.IntRange(min=1), help="Of commands in turn.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Of our own run.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of our own run. Default: torch's choice.")
@click.option("--json", "json_path", type=click.Path(), help="Also write the figures here.")
@click.option("--plot", "plot_path", type=click.Path(), help="Also draw them here (PNG).")
@debug_option
def bench_video(
    clips: tuple[str, ...], methods: tuple[str, ...], weights: str | None, against: str | None, program: str | None,
    backend: str, pairs: int, repeats: int, device: str, threads: int | None, json_path: str | None,
    plot_path: str | None,
) -> None:  # fmt: skip
    """Frames a second of each stage of `a3gan anonymize` on CLIPS, and end to end; against deface if asked."""
    from a3gan.bench import clips as module

    set_threads(threads)
    report = module.bench_clips(
        clips, methods=methods, weights=weights, device=device, against=against or ("deface" if program else None),
        program=program, backend=backend, pairs=pairs, repeats=repeats,
    )  # fmt: skip
    if plot_path:
        module.plot(report, plot_path)
    say(report, json_path)


def set_threads(threads: int | None) -> None:
    """torch's threads, where a number is given."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def say(report: Any, json_path: str | None) -> None:
    """Prints a report's lines and writes its record as JSON where asked."""
    import json

    for line in report.lines():
        click.echo(line)
    if json_path:
        from a3gan.files import replacing

        with replacing(json_path) as temporary:
            temporary.write_text(json.dumps(report.record(), indent=1) + "\n", encoding="utf-8")
