"""Figures in words: title, unit and better direction from the catalogue, and numbers as people read them."""

from __future__ import annotations

from typing import Any

from a3gan.evaluation import catalogue
from a3gan.evaluation.catalogue import Meaning
from a3gan.evaluation.listing import Figure, apart

PER_CENT = "\u00a0%"  # never broken from its number
NARROW = "\u202f"  # between thousands
SMALLEST = 0.001  # what is smaller is not written out
BASELINES = ("original", "identity")  # hide nothing by definition: never marked as the best


def meaning(figure: Figure | str) -> Meaning:
    """From the catalogue; a figure that it does not know gets its name as title."""
    name = figure if isinstance(figure, str) else figure.name
    known = catalogue.meaning(name)
    if known is None:
        share = isinstance(figure, Figure) and figure.low is not None
        return Meaning(name.rsplit(".", 1)[-1].replace("_", " "), "share" if share else "")
    return known


def number(value: float | None, unit: str = "") -> str:
    """One value; shares in per cent. Other units stand in the title."""
    if value is None:
        return "–"
    if unit == "share":
        return f"{100 * value:.{_digits(value)}f}{PER_CENT}" if value not in (0, 1) else f"{100 * value:.0f}{PER_CENT}"
    if value == 0:
        return "0"
    if abs(value) < SMALLEST:
        return f"< {SMALLEST}" if value > 0 else f"> -{SMALLEST}"
    if abs(value) >= 1000 or (abs(value) >= 10 and float(value).is_integer()):
        return f"{value:,.0f}".replace(",", NARROW)
    return f"{value:.3g}"


def title(figure: Figure | str) -> str:
    """The figure's title, with its unit unless that is a share."""
    known = meaning(figure)
    return known.title if known.unit in ("", "share") else f"{known.title}, in {known.unit}"


def _digits(share: float) -> int:
    # Small shares are where the differences lie.
    return 2 if 0 < abs(share) < 0.095 else 1


def brackets(figure: Figure, unit: str = "share") -> str:
    """The interval alone: `1.12 – 2.74`; nothing or everything seen: the bound on the open side."""
    if figure.value is None or figure.low is None or figure.high is None or figure.low == figure.high:
        return ""
    if unit == "share" and figure.value == 0:
        return f"< {number(figure.high, unit)}"
    if unit == "share" and figure.value == 1:
        return f"> {number(figure.low, unit)}"
    if unit == "share":
        digits = _digits(figure.value)
        return f"{100 * figure.low:.{digits}f} – {100 * figure.high:.{digits}f}"
    return f"{figure.low:.3g} – {figure.high:.3g}"


def value(figure: Figure, unit: str = "share") -> str:
    """The value as a table says it; `0 of n` where nothing was seen."""
    if figure.value == 0 and unit == "share" and figure.count and figure.high:
        return f"0 of {figure.count:,}".replace(",", NARROW)
    return number(figure.value, unit)


def sentence(figure: Figure, unit: str = "share") -> str:
    """`1.81 % (1.12 – 2.74)`."""
    inside = brackets(figure, unit)
    return f"{value(figure, unit)} ({inside})" if inside else value(figure, unit)


def best(figures: dict[str, Figure], better: str | None) -> str | None:
    """The method whose interval lies wholly on the better side of every other one's; None where there is none."""
    rivals = [f for name, f in figures.items() if name not in BASELINES and f.value is not None]
    if len(rivals) < 2 or better not in ("lower", "higher"):
        return None
    sign = 1 if better == "lower" else -1
    first = min(rivals, key=lambda f: sign * f.value)
    return first.method if all(apart(first, f) for f in rivals if f is not first) else None


def as_json(value: Any) -> str:
    """A setting as one short line."""
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
