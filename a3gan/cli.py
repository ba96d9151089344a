"""The console command `a3gan`. Every command parses, calls one function of the package and prints what it says."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from a3gan import __version__
from a3gan.commands import exporting, hiding, measuring, running, training
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


def console() -> NoReturn:
    """The command as a process of its own: runs it and ends the process.

    Once everything that asked to be told of the end has been told (`atexit`) and no thread runs, Python is not asked to
    take its modules apart: with torch's half a million objects that takes a quarter of a second.
    """
    status = main()
    if threading.active_count() > 1:
        sys.exit(status)
    atexit._run_exitfuncs()  # logging's among them
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # no stream, or nobody reads it any more
            status = status or 1
    os._exit(status)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# Both --max-minutes and --max_minutes: people bring either habit from other tools.
_SETTINGS = {"token_normalize_func": lambda name: name.replace("_", "-"), "help_option_names": ["-h", "--help"]}


@click.group(context_settings=_SETTINGS)
@click.version_option(__version__)
def cli() -> None:
    """Train, run and prove face anonymizers."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("a3gan").setLevel(logging.INFO)


for _command in (
    running.anonymize,
    training.prepare,
    training.train,
    training.sweep,
    measuring.evaluate,
    measuring.bench,
    exporting.export,
    running.models,
    running.doctor,
    running.detect,
    hiding.hide,
    hiding.recover,
):
    cli.add_command(_command)


if __name__ == "__main__":
    console()
