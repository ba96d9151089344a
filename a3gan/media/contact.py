"""The contact sheet of a video: every track before and after, side by side. It shows original faces: keep it apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from a3gan.data.ranges import to_pil
from a3gan.media.account import SHEET_SIDE, Entry, Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = 6  # samples of a track
LABEL, GAP = 14, 4  # px
TRACKS = 60  # at most on a sheet, the longest ones


def contact_sheet(ledger: Ledger, path: Path) -> bool:
    """Writes the PNG, whole or not at all; False, and no file, where no track has a sample."""
    entries = [entry for entry in ledger.entries.values() if any(s.sheet for s in entry.samples)]
    if not entries:
        return False
    longest = sorted(entries, key=lambda e: -len(e.track.sightings))[:TRACKS]
    rows = [_row(entry) for entry in sorted(longest, key=lambda e: e.track.number)]
    height = sum(row.height + GAP for row in rows)
    sheet = Image.new("RGB", (rows[0].width, height + LABEL), (24, 24, 24))
    note = "original above, result below; SHOWS ORIGINAL FACES" + _left_out(entries, longest)
    ImageDraw.Draw(sheet).text((GAP, 1), note, fill=(255, 180, 90))
    top = LABEL
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + GAP
    from a3gan.media.images import save

    save(sheet, path, "PNG")
    return True


def _left_out(entries: Sequence[Entry], shown: Sequence[Entry]) -> str:
    return f"; {len(entries) - len(shown)} shorter tracks are left out" if len(shown) < len(entries) else ""


def _row(entry: Entry) -> Image.Image:
    samples = [s for s in sorted(entry.samples, key=lambda s: s.frame) if s.sheet]
    if len(samples) > COLUMNS:
        samples = [samples[int((i + 0.5) * len(samples) / COLUMNS)] for i in range(COLUMNS)]
    width = COLUMNS * (SHEET_SIDE + GAP) + GAP
    row = Image.new("RGB", (width, LABEL + 2 * SHEET_SIDE + GAP), (48, 48, 48))
    draw = ImageDraw.Draw(row)
    for column, sample in enumerate(samples):
        left = GAP + column * (SHEET_SIDE + GAP)
        person = f"p{entry.track.person} " if entry.track.person >= 0 else ""
        draw.text((left, 1), f"{person}track {entry.track.number} frame {sample.frame}", fill=(220, 220, 220))
        for picture, top in zip(sample.sheet, (LABEL, LABEL + SHEET_SIDE), strict=True):
            row.paste(to_pil(picture), (left, top))
    return row
