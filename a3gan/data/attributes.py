"""Attributes of a face: which there are (schema), how they are coded (flat code), which may change (policy).

The flat code is one row [N, D] of logits in schema order: a binary or continuous attribute takes one column (the
logit of its value in (0, 1)), a categorical one a column per class (softmax logits). Every function takes the schema,
so another one (CelebA's 40, say) needs no change here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from a3gan.errors import UserError

EPS = 2.5e-3
"""Values live in (EPS, 1 - EPS), so that a logit is at most about 6 away from 0."""


@dataclass(frozen=True)
class Attribute:
    """One attribute of a face.

    name     unique in its schema
    kind     'binary', 'categorical' or 'continuous' (a value in (0, 1))
    classes  names of the classes: 2 for binary (index 1 is the positive one), n for categorical, none for continuous
    group    name under which a policy may address it together with others
    source   where the value of an image comes from: 'head:<output of the attribute network>', 'landmarks' or 'colour'
    column   label column of the data set's table, '' if there is none
    values   pairs (entry of that column, class index); the entry '*' stands for any other non-empty one
    span     for measured attributes: the raw measurements that map to the logits -2 and +2 (values .12 and .88)
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()
    group: str = ""
    source: str = ""
    column: str = ""
    values: tuple[tuple[str, int], ...] = ()
    span: tuple[float, float] | None = None

    @property
    def width(self) -> int:
        """Columns it takes in the flat code."""
        return len(self.classes) if self.kind == "categorical" else 1


Schema = tuple[Attribute, ...]

# Spans: about the 5th and 95th percentile of LFW, all splits (docs/RESULTS.md). The measurements are defined in
# scorers/landmarks.py and measured.py.
SCHEMA: Schema = (
    Attribute("expression", "categorical", ("neutral", "happiness", "other"), "expression", "head:expression",
              "expression", (("neutral", 0), ("happiness", 1), ("*", 2))),
    Attribute("gender", "binary", ("female", "male"), "gender", "head:gender", "gender", (("female", 0), ("male", 1))),
    Attribute("yawning", "binary", ("no_yawn", "yawn"), "mouth", "head:yawning", "label",
              (("no_yawn", 0), ("yawn", 1))),
    Attribute("eyes_closed", "binary", ("open", "closed"), "eyes", "head:eyes_closed", "label",
              (("open", 0), ("closed", 1))),
    Attribute("eye_opening", "continuous", group="eyes", source="head:eyes_closed"),
    Attribute("mouth_opening", "continuous", group="mouth", source="head:yawning"),
    Attribute("yaw", "continuous", group="pose", source="landmarks", span=(-0.30, 0.30)),
    Attribute("pitch", "continuous", group="pose", source="landmarks", span=(0.37, 0.71)),
    Attribute("roll", "continuous", group="pose", source="landmarks", span=(-0.12, 0.12)),
    Attribute("nose_length", "continuous", group="face_shape", source="landmarks", span=(0.42, 0.78)),
    Attribute("mouth_width", "continuous", group="face_shape", source="landmarks", span=(0.73, 1.06)),
    Attribute("eye_mouth_ratio", "continuous", group="face_shape", source="landmarks", span=(0.91, 1.28)),
    Attribute("skin_tone", "continuous", group="tone", source="colour", span=(42.0, 79.0)),
    Attribute("hair_tone", "continuous", group="tone", source="colour", span=(22.0, 74.0)),
)

# CelebA's attributes, in the order of list_attr_celeba.txt (Liu et al., "Deep Learning Face Attributes in the Wild",
# ICCV 2015), by the part of the face that a policy may name.
_CELEBA_GROUPS: dict[str, str] = {
    "mouth": "Big_Lips Mouth_Slightly_Open Wearing_Lipstick",
    "eyes": "Arched_Eyebrows Bags_Under_Eyes Bushy_Eyebrows Eyeglasses Narrow_Eyes",
    "hair": "Bald Bangs Black_Hair Blond_Hair Brown_Hair Gray_Hair Receding_Hairline Straight_Hair Wavy_Hair",
    "beard": "5_o_Clock_Shadow Goatee Mustache No_Beard Sideburns",
    "expression": "Smiling",
    "gender": "Male",
    "face_shape": "Big_Nose Chubby Double_Chin High_Cheekbones Oval_Face Pointy_Nose",
    "tone": "Pale_Skin Rosy_Cheeks",
    "worn": "Heavy_Makeup Wearing_Earrings Wearing_Hat Wearing_Necklace Wearing_Necktie",
    "look": "Attractive Blurry Young",
}
CELEBA_NAMES: tuple[str, ...] = tuple(
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young".split()
)
CELEBA: Schema = tuple(
    Attribute(name, "binary", (f"no {name}", name), group, f"head:celeba:{name}", name, (("0", 0), ("1", 1)))
    for name in CELEBA_NAMES
    for group in (next(g for g, names in _CELEBA_GROUPS.items() if name in names.split()),)
)
"""CelebA's 40 as a schema of their own: `targets(faces, CELEBA)` reads them from an archive that `prepare` made."""

# name -> (kept, may change); attributes or groups. What a preset does not name stays: a policy must ask for a change.
PRESETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "verification": (("pose",), ("gender", "tone", "face_shape")),
    "detection": ((), ("*",)),
    # Pose is kept too: the new face is pasted into the old head, and a turned one would not fit.
    "expression": (("expression", "mouth", "eyes", "pose"), ("gender", "tone", "face_shape")),
    # The mouth's width as well: yawn meters divide the mouth's opening by it.
    "fatigue": (("expression", "mouth", "eyes", "pose", "mouth_width"),
                ("gender", "tone", "nose_length", "eye_mouth_ratio")),
    "everything": ((), ("*",)),
}
DEFAULT_PRESET = "expression"


def widths(schema: Schema = SCHEMA) -> list[int]:
    """Columns of each attribute in the flat code; their sum is D."""
    return [attribute.width for attribute in schema]


def slices(schema: Schema = SCHEMA) -> dict[str, slice]:
    """Columns of each attribute in the flat code, by name."""
    result, start = {}, 0
    for attribute in schema:
        result[attribute.name] = slice(start, start + attribute.width)
        start += attribute.width
    return result


def position(name: str, schema: Schema = SCHEMA) -> int:
    """Index of an attribute in the schema (its column in c); UserError with the nearest name if there is none."""
    names = [attribute.name for attribute in schema]
    if name not in names:
        raise UserError(f"attribute {name!r} is not in the schema{_nearest(name, names)}")
    return names.index(name)


def expand(c: Tensor, schema: Schema = SCHEMA) -> Tensor:
    """Repeat every attribute's entry over its columns: [N, K] -> [N, D]."""
    if c.shape[-1] != len(schema):
        raise ValueError(f"c has {c.shape[-1]} columns, the schema {len(schema)} attributes")
    return torch.cat([c[..., k : k + 1].expand(*c.shape[:-1], a.width) for k, a in enumerate(schema)], dim=-1)


def to_values(logits: Tensor, schema: Schema = SCHEMA) -> Tensor:
    """Flat logits [N, D] -> values [N, D] in (0, 1): sigmoid, or softmax over a categorical attribute's columns."""
    return _by_kind(logits, schema, torch.sigmoid, lambda part: part.softmax(dim=-1))


def to_logits(values: Tensor, schema: Schema = SCHEMA, eps: float = EPS) -> Tensor:
    """Values [N, D] -> flat logits [N, D], clamped to (eps, 1 - eps) first; categorical ones are log p less its mean.

    Inverse of `to_values` up to the clamp and, for categorical attributes, the constant that softmax ignores.
    """
    def log_centred(part: Tensor) -> Tensor:
        log_p = part.clamp(eps, 1 - eps).log()
        return log_p - log_p.mean(dim=-1, keepdim=True)

    return _by_kind(values, schema, lambda part: part.clamp(eps, 1 - eps).logit(), log_centred)


def _by_kind(flat: Tensor, schema: Schema, single: Any, categorical: Any) -> Tensor:
    """Apply `single` to the one-column attributes (in runs, to launch little), `categorical` to each of the others."""
    if flat.shape[-1] != sum(widths(schema)):
        raise ValueError(f"a flat code of {flat.shape[-1]} columns, the schema has {sum(widths(schema))}")
    parts, start, end = [], 0, 0
    for attribute in schema:
        if attribute.kind == "categorical":
            if end > start:
                parts.append(single(flat[..., start:end]))
            parts.append(categorical(flat[..., end : end + attribute.width]))
            start = end + attribute.width
        end += attribute.width
    if end > start:
        parts.append(single(flat[..., start:end]))
    return torch.cat(parts, dim=-1)


def decode(flat: Tensor, schema: Schema = SCHEMA) -> dict[str, list]:
    """Flat logits [N, D] in words: name -> N class names, or N values in (0, 1) rounded to 3 digits."""
    values = to_values(flat.detach().float().cpu(), schema)
    result: dict[str, list] = {}
    for attribute, columns in zip(schema, slices(schema).values(), strict=True):
        part = values[:, columns]
        if attribute.kind == "categorical":
            result[attribute.name] = [attribute.classes[i] for i in part.argmax(dim=1).tolist()]
        elif attribute.kind == "binary":
            result[attribute.name] = [attribute.classes[v > 0.5] for v in part[:, 0].tolist()]
        else:
            result[attribute.name] = [round(v, 3) for v in part[:, 0].tolist()]
    return result


def targets(faceset: Any, schema: Schema = SCHEMA) -> dict[str, Tensor]:
    """What a data set knows of its faces: name -> float [N], NaN = missing.

    Binary and categorical attributes: the class index from the label column. Others, and rows without a label: the
    numeric ground truth of that name, where the data set (rendered faces) has it.
    """
    count = len(faceset.files)
    result = {}
    for attribute in schema:
        table = dict(attribute.values)
        entries = faceset.columns.get(attribute.column) if attribute.column else None
        labels = torch.full((count,), float("nan"))
        if entries is not None:
            found = [_class_index(entry, table) for entry in entries]
            labels = torch.tensor(found, dtype=torch.float32).reshape(count)
        truth = (getattr(faceset, "truth", None) or {}).get(attribute.name)
        if truth is not None and truth.shape == labels.shape:
            labels = torch.where(labels.isnan(), truth.detach().float().cpu(), labels)
        result[attribute.name] = labels
    return result


def _class_index(entry: str, table: Mapping[str, int]) -> float:
    """Class index of a table entry; NaN for an empty or foreign one (columns are shared between data sets)."""
    entry = entry.strip().lower()
    return float(table.get(entry, table.get("*", float("nan")))) if entry else float("nan")


@dataclass(frozen=True)
class Policy:
    """What may change: a preset, and the attributes or groups that differ from it.

    Written `preset=expression keep=expression,eyes change=gender,skin_tone` (any part may be missing); `str` and
    `parse` are inverse.
    """

    preset: str = DEFAULT_PRESET
    keep: tuple[str, ...] = ()
    change: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str = "", preset: str = DEFAULT_PRESET, schema: Schema = SCHEMA) -> Policy:
        """Read and check a policy. A bare word is a preset's name; a `preset=` in the text overrides the argument.

        UserError: a word that is neither, an unknown name (the nearest is named), an attribute both kept and changed.
        """
        named: dict[str, list[str]] = {"keep": [], "change": [], "preset": []}
        for word in re.sub(r"\s*([,=])\s*", r"\1", text).replace(";", " ").split():
            key, _, names = word.partition("=") if "=" in word else ("preset", "=", word)
            if key not in named:
                hint = _nearest(key, named)
                raise UserError(f"policy {text!r}: {word!r} is not keep=..., change=... or preset=...{hint}")
            named[key] += [name for name in names.split(",") if name]
        if len(set(named["preset"])) > 1:
            raise UserError(f"policy {text!r}: more than one preset: {', '.join(named['preset'])}; name one")
        policy = cls(
            (named["preset"] or [preset])[0], tuple(dict.fromkeys(named["keep"])), tuple(dict.fromkeys(named["change"]))
        )
        policy.vector(schema)
        return policy

    def __str__(self) -> str:
        words = [f"preset={self.preset}"]
        words += [f"keep={','.join(self.keep)}"] if self.keep else []
        words += [f"change={','.join(self.change)}"] if self.change else []
        return " ".join(words)

    def vector(self, schema: Schema = SCHEMA) -> Tensor:
        """c: float [K], 1 = may change, 0 = must stay. UserError as in `parse`."""
        if self.preset not in PRESETS:
            raise UserError(f"policy preset {self.preset!r} is unknown{_nearest(self.preset, PRESETS)}")
        kept, changed = _resolve(self.keep, schema), _resolve(self.change, schema)
        both = [a.name for k, a in enumerate(schema) if k in kept and k in changed]
        if both:
            raise UserError(f"policy '{self}': {', '.join(both)} in both keep and change; decide for one")
        preset_kept, preset_changed = (_resolve(names, schema, strict=False) for names in PRESETS[self.preset])
        free = ((preset_changed - preset_kept) | changed) - kept
        return torch.tensor([float(k in free) for k in range(len(schema))])

    def describe(self, schema: Schema = SCHEMA) -> dict[str, str]:
        """name -> 'change' or 'keep', for people and accounts."""
        bits = self.vector(schema).tolist()
        return {a.name: "change" if bit else "keep" for a, bit in zip(schema, bits, strict=True)}


def _resolve(names: Sequence[str], schema: Schema, strict: bool = True) -> set[int]:
    """Indices of the attributes behind names of attributes or groups ('*' = all); unknown ones raise if `strict`."""
    found: set[int] = set()
    for name in names:
        hits = {k for k, a in enumerate(schema) if name in ("*", a.name, a.group)}
        if not hits and strict:
            known = [a.name for a in schema] + [a.group for a in schema if a.group]
            raise UserError(f"policy: {name!r} is no attribute or group of the schema{_nearest(name, known)}")
        found |= hits
    return found


def _nearest(name: str, known: Any) -> str:
    """', did you mean X?' or the list of all known names."""
    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def random_policies(
    n: int, attributes: int | Schema = SCHEMA, generator: torch.Generator | None = None, device: Any = None
) -> Tensor:
    """Policies for training, float [n, K]: the first n // 2 rows share one random c, the others have a fresh one each.

    Of all rows 10 % are 0 (nothing may change) and 10 % are 1, in expectation; they are taken from the second half so
    that the first keeps one c. Given a schema rather than its length, attributes read from one head of the attribute
    network (eyes_closed and eye_opening) share their bit: one cannot change while the other stays.
    """
    if isinstance(attributes, int):
        tie = list(range(attributes))
    else:
        keys = [a.source if a.source.startswith("head:") else a.name for a in attributes]
        tie = [keys.index(key) for key in keys]
    where = generator.device if generator is not None else torch.device("cpu")
    c = (torch.rand(n, len(tie), generator=generator, device=where) < 0.5).float()[:, tie]
    half = n // 2
    c[:half] = c[:1]
    draw = torch.rand(n, 1, generator=generator, device=where)
    share = 0.1 * n / max(1, n - half)
    fresh = torch.arange(n, device=where)[:, None] >= half
    c = torch.where(fresh & (draw < share), torch.zeros_like(c), c)
    c = torch.where(fresh & (draw >= 1 - share), torch.ones_like(c), c)
    return c if device is None else c.to(device)


def random_alpha(n: int, generator: torch.Generator | None = None, device: Any = None) -> Tensor:
    """Suppression dials for training, float [n]: 0 with probability 0.2, 1 with 0.3, else uniform in (0, 1)."""
    where = generator.device if generator is not None else torch.device("cpu")
    draw = torch.rand(n, generator=generator, device=where)
    alpha = ((draw - 0.2) / 0.5).clamp(0.0, 1.0)  # what remains between 0.2 and 0.7 is uniform already
    return alpha if device is None else alpha.to(device)
