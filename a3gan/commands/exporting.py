"""The command that writes programs: export."""

from __future__ import annotations

import click

from a3gan.commands.common import debug_option


@click.command()
@click.argument("checkpoint")
@click.option("--format", "kind", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True,
              help="onnx: runs on onnxruntime, and as --weights FILE.onnx. torch: a program of torch.export (.pt2).")
@click.option("-o", "--output", type=click.Path(), help="File to write. Default: named after CHECKPOINT, here.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16"]), default="fp32", show_default=True,
              help="Of the feature maps; inputs and outputs stay float32. bf16: format torch only.")
@click.option("-v", "--verbose", is_flag=True, help="Print the parity of every case.")
@debug_option
def export(checkpoint: str, kind: str, output: str | None, precision: str, verbose: bool) -> None:
    """Write CHECKPOINT (a file or shipped name) as one program: faces, policy, z and alpha in, faces out.

    It is compared with the eager model over batch sizes, alphas and policies; where they differ, nothing is written.
    """
    from a3gan.export import export as run

    path, parity = run(checkpoint, output, kind=kind, precision=precision)
    for line in parity.lines if verbose else ():
        click.echo(line)
    click.echo(
        f"parity with the eager model over {parity.cases} cases: largest difference {parity.largest:.1e}, "
        f"largest mean {parity.mean:.1e} (of a range of 2)"
    )
    click.echo(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {kind}, {precision}")
