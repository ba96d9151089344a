"""Reading and writing configs: `base:` inheritance, `key=value` overrides, errors that name the key.

The keys themselves stand in `a3gan/schema.py`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from a3gan.errors import UserError
from a3gan.files import replacing
from a3gan.schema import Config, Section, phase_images

__all__ = [
    "Config", "all_keys", "check", "find_config", "flatten", "load_as", "load_config", "parse_yaml", "phase_images",
    "read", "save_config",
]
AnyConfig = TypeVar("AnyConfig", bound=Section)


# --- reading ------------------------------------------------------------------------------------------------------
class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two repairs: 1e-4 is a number, a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set = set()
        for key_node, _ in node.value:
            name = self.construct_object(key_node, deep=True)
            if name in seen:
                problem = f"the key {name!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the words that `_Loader` would read as numbers."""


def _repair_numbers(*kinds: type) -> None:
    pattern = re.compile(r"^[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$")
    for kind in kinds:
        kind.add_implicit_resolver("tag:yaml.org,2002:float", pattern, list("-+.0123456789"))


_repair_numbers(_Loader, _Dumper)


def load_config(path: str | Path | None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Reads a YAML with its chain of `base:` files, applies ``key=value`` overrides, checks everything.

    `path`: a file, or the name of a shipped one such as ``a3gan/quick``; None = defaults only. Raises UserError that
    names the file (or override), the full key and, for an unknown key, the nearest valid one.
    """
    return load_as(Config, path, overrides)


def load_as(kind: type[AnyConfig], path: str | Path | None, overrides: list[str] | tuple[str, ...] = ()) -> AnyConfig:
    """:func:`load_config` for any schema, such as an evaluation's."""
    values, origins = read(path)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            example = next(key for key, field in all_keys(kind).items() if isinstance(field.default, float))
            raise UserError(f"override {override!r}: write key=value, for example {example}=1e-4")
        _set(values, name.strip(), parse_yaml(text, f"override {override!r}"), override)
        origins[name.strip()] = f"override {override!r}"
    return check(values, origins, str(path or "defaults"), kind)


def read(path: str | Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """A file over its bases, unchecked: (nested values, dotted key -> file that set it). None: nothing."""
    origins: dict[str, str] = {}
    return ({} if path is None else _read_chain(find_config(path), origins, ())), origins


def check(
    values: dict[str, Any], origins: dict[str, str] | None = None, source: str = "config",
    kind: type[AnyConfig] = Config,
) -> AnyConfig:
    """A nested dict -> Config (or another schema); UserError as in :func:`load_config`."""
    try:
        return kind.model_validate(_without_empty_sections(values, kind))
    except ValidationError as error:
        problems = [_explain(problem, origins or {}, source, kind) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more) from error


def find_config(path: str | Path) -> Path:
    """The file itself, or a shipped one by name (``a3gan/quick`` or ``configs/a3gan/quick.yaml``)."""
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_absolute():
        parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
        here = Path(__file__).resolve().parent
        for folder in (here / "configs", here.parent / "configs"):
            for candidate in (folder.joinpath(*parts), folder.joinpath(*parts).with_suffix(".yaml")):
                if candidate.is_file():
                    return candidate
    raise UserError(f"{path}: no such config file; `configs/` has examples")


def _read_chain(path: Path, origins: dict[str, str], above: tuple[Path, ...]) -> dict[str, Any]:
    """One file over its bases; `origins` learns which file set each key."""
    if path.resolve() in above:
        raise UserError(f"{path}: base: leads back to this file; a chain of bases must end")
    if not path.is_file():
        raise UserError(f"{above[-1]}: base: {path}: no such file (base is relative to the file that names it)")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    values = parse_yaml(text, str(path))
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold `key: value` lines, holds a {type(values).__name__}")
    base = values.pop("base", None)
    merged: dict[str, Any] = {}
    if base is not None:
        if not isinstance(base, str):
            raise UserError(f"{path}: base: must be one file name, is {base!r}")
        merged = _read_chain(path.parent / base, origins, (*above, path.resolve()))
    _merge(merged, values)
    origins.update(dict.fromkeys(flatten(values), str(path)))
    return merged


def parse_yaml(text: str, source: str) -> Any:
    """What a YAML text says; UserError names the source."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def _merge(into: dict[str, Any], over: dict[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        elif not (value is None and isinstance(into.get(name), dict)):  # an empty section takes nothing back
            into[name] = value


def _set(values: dict[str, Any], dotted: str, value: Any, override: str) -> None:
    *sections, last = dotted.split(".")
    for name in sections:
        if values.get(name) is None:
            values[name] = {}
        values = values[name]
        if not isinstance(values, dict):
            raise UserError(f"override {override!r}: {name} is no section; set the whole value")
    values[last] = value


def _without_empty_sections(values: dict[str, Any], kind: type[Section]) -> dict[str, Any]:
    """`train:` with nothing below it is YAML's null; it means the defaults."""
    clean = {}
    for name, value in values.items():
        child = _section_type(kind.model_fields.get(name))
        if child is None:
            clean[name] = value
        elif value is not None:
            clean[name] = _without_empty_sections(value, child) if isinstance(value, dict) else value
    return clean


# --- keys and errors ----------------------------------------------------------------------------------------------
def _section_type(field: FieldInfo | None) -> type[Section] | None:
    kind = field.annotation if field else None
    return kind if _is_section(kind) else None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def all_keys(kind: type[Section] = Config, prefix: str = "") -> dict[str, FieldInfo]:
    """Every key that holds a value, by its dotted name."""
    keys: dict[str, FieldInfo] = {}
    for name, field in kind.model_fields.items():
        child = _section_type(field)
        keys.update(all_keys(child, f"{prefix}{name}.") if child else {prefix + name: field})
    return keys


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dict -> {dotted key: value}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _entry(location: Sequence[str | int], schema: type[Section]) -> tuple[str, type[Section]]:
    """The innermost list's or dict's entry on the way to `location` that is a section: its dotted name with a dot
    behind (`judges.0.`), and its kind; '' and `schema` where there is none."""
    prefix, kind, found = "", schema, ("", schema)
    parts = iter(location)
    for part in parts:
        prefix += f"{part}."
        field = kind.model_fields.get(str(part))
        child = _section_type(field)
        if child is None and field is not None:
            child = next((a for a in get_args(field.annotation) if _is_section(a)), None)
            if child is None or (number := next(parts, None)) is None:
                break
            prefix += f"{number}."
            found = (prefix, child)
        if child is None:
            break
        kind = child
    return found


def nearest_key(dotted: str, kind: type[Section] = Config, prefix: str = "") -> str:
    """The valid key most like `dotted`, by its full name or by its last word. prefix: where `kind` stands."""
    leaf = dotted.rsplit(".", 1)[-1]

    def likeness(candidate: str) -> float:
        full = difflib.SequenceMatcher(None, dotted, candidate).ratio()
        last = difflib.SequenceMatcher(None, leaf, candidate.rsplit(".", 1)[-1]).ratio()
        # learning_rate means lr
        initials = "".join(word[:1] for word in leaf.split("_")) == candidate.rsplit(".", 1)[-1]
        return full + last + initials

    return max(all_keys(kind, prefix), key=likeness)


def _explain(problem: dict[str, Any], origins: dict[str, str], source: str, schema: type[Section] = Config) -> str:
    parts = [str(part) for part in problem["loc"]]
    prefix, section = _entry(problem["loc"], schema)
    dotted, kind, keys = ".".join(parts), problem["type"], all_keys(schema) | all_keys(section, prefix)
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        where = _origin(dotted, origins, source)
        return f"{where}: unknown key {dotted}; the nearest valid key is {nearest_key(dotted, section, prefix)}"
    if kind == "missing":
        return f"{_origin(dotted, origins, source)}: the key {dotted} is missing"
    if kind == "value_error" and "=" in message:  # a check over a whole section names its key itself
        name = f"{dotted}.{message.split('=', 1)[0]}"
        inside = [file for key, file in origins.items() if key.startswith(dotted + ".")]
        return f"{origins.get(name) or (inside or [source])[-1]}: {dotted}.{message}"
    if kind in ("model_type", "model_attributes_type"):
        return f"{_origin(dotted, origins, source)}: {dotted}: a section of keys is expected, got {problem['input']!r}"
    # unions add the name of the branch to the location; the key is the longest part that exists
    while parts and ".".join(parts) not in keys and not parts[-1].isdigit() and len(parts) > 1:
        if any(name.startswith(".".join(parts[:-1]) + ".") for name in keys):
            break
        if ".".join(p for p in parts if not p.isdigit()).startswith("scorers.recognisers."):
            break
        parts.pop()
    dotted = ".".join(parts)
    return f"{_origin(dotted, origins, source)}: {dotted}: {message}, got {problem['input']!r}"


def _origin(dotted: str, origins: dict[str, str], source: str) -> str:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if name in origins:
            return origins[name]
    below = [file for name, file in origins.items() if name.startswith(dotted + ".")]
    return below[-1] if below else source


# --- writing ------------------------------------------------------------------------------------------------------
def to_yaml(cfg: Config, comments: bool = True) -> str:
    """The whole config as YAML, one key a line with its description as a comment."""
    return "\n".join(_lines(cfg, 0, comments)) + "\n"


def _lines(part: Section, depth: int, comments: bool) -> list[str]:
    lines = []
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Section):
            lines += ["", f"{'  ' * depth}{name}:" + (f"  # {field.description}" if comments else "")][depth > 0 :]
            lines += _lines(value, depth + 1, comments)
            continue
        plain = part.model_dump(mode="json")[name]
        text = yaml.dump(plain, Dumper=_Dumper, default_flow_style=True, width=10**6, allow_unicode=True)
        text = text.removesuffix("...\n").strip()
        lines.append(f"{'  ' * depth}{name}: {text}" + (f"  # {field.description}" if comments else ""))
    return lines


def save_config(cfg: Config, path: Path) -> None:
    """Writes the resolved config; atomic. NotWritten where the folder takes no file."""
    with replacing(path) as temporary:
        temporary.write_text(to_yaml(cfg), encoding="utf-8")


if __name__ == "__main__":
    import sys

    sys.stdout.write(
        "# Every key, its default and its unit; the only complete list. Written by `python -m a3gan.config`.\n"
    )
    sys.stdout.write(to_yaml(Config()))
