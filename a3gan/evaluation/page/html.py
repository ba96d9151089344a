"""A few lines that build HTML and SVG with everything escaped: text is text unless it came from `tag`."""

from __future__ import annotations

from html import escape
from typing import Any

VOID = frozenset(("br", "hr", "img", "meta", "line", "path", "circle", "rect", "polyline"))


class Html(str):
    """Markup that is ready to be written; any other string is escaped when it is put into a tag."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """One element. Attribute names: a trailing `_` is dropped, other `_` become `-`; None leaves one out.

    Children: Html as it is, None nothing, lists flattened, everything else escaped text.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{escape(_text(value), quote=True)}"')
    if name in VOID and not children:
        return Html(f"<{' '.join(words)}/>")
    return Html(f"<{' '.join(words)}>{join(children)}</{name}>")


def join(children: Any) -> Html:
    """Several children one after another."""
    parts = []
    for child in children:
        if isinstance(child, list | tuple):
            parts.append(join(child))
        elif isinstance(child, Html):
            parts.append(child)
        elif child is not None:
            parts.append(escape(_text(child), quote=False))
    return Html("".join(parts))


def _text(value: Any) -> str:
    # Fixed digits, so that coordinates give the same bytes everywhere.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
