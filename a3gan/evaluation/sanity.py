"""Does the measuring itself work? Lines that say where it does not, for the head of every report.

A judge that does not recognise originals proves nothing about results (P0); `identity` must be recognised as the
originals are; a face detector must find the originals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from a3gan.evaluation.listing import figures

# Known on LFW's test people at a false match rate of 1e-3: MobileFaceNet b 98.9 %. Well below that a judge is too weak
# to be believed, whoever it is.
LEAST = {"tar": (0.9, "true matches among originals"), "rank1": (0.9, "right first names among originals")}
LEAST_FOUND = 0.95
SAME = 0.02  # by how much the row of identity may differ from that of the originals


def warnings(results: Mapping[str, Any]) -> list[str]:
    """One line for everything that makes the figures doubtful; [] where the measuring works."""
    table = {(f.name, f.method): f.value for f in figures(dict(results)) if f.degradation == "none"}
    lines = []
    for judge in results.get("judges", {}):
        for part, leaf in (("verification", "tar"), ("identification", "rank1")):
            value, (least, what) = table.get((f"{part}.{judge}.{leaf}", "original")), LEAST[leaf]
            if value is not None and value < least:
                lines.append(
                    f"judge {judge} reaches only {100 * value:.1f} % {what} (P0), less than {100 * least:.0f} %: "
                    "that it recognises few results says little"
                )
        before, after = (table.get((f"verification.{judge}.tar", m)) for m in ("original", "identity"))
        if before is not None and after is not None and abs(before - after) > SAME:
            lines.append(
                f"judge {judge}: identity has {100 * after:.1f} % true matches, originals {100 * before:.1f} %: "
                "something between picture and judge changes pictures"
            )
    found = table.get(("detection.picture.found", "original"))
    if found is not None and found < LEAST_FOUND:
        lines.append(f"the detector finds only {100 * found:.1f} % of the originals' faces: what it loses says little")
    return lines
