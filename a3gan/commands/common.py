"""What several commands share."""

from __future__ import annotations

from collections.abc import Callable

import click


def debug_option(function: Callable) -> Callable:
    """Adds --debug to a command; the last line of defence in `a3gan.cli.main` reads it."""

    def note(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.find_root().obj["debug"] = True

    text = "Show the traceback of an error."
    return click.option("--debug", is_flag=True, expose_value=False, is_eager=True, callback=note, help=text)(function)
