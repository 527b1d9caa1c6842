"""The reference page of the configuration, made from the models so that it can not go out of date.

Called by `ztproxy schema --markdown` and by the test that compares docs/reference/configuration.md with it.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from ztproxy.config.schema import json_schema

INTRODUCTION: Final = """\
# Configuration

One YAML file, read strictly: an unknown key, a wrong type, a name that means nothing or a file that is not
there is an error, and `ztproxy check --config FILE` tells all of them at once with line and remedy. The
complete example is [config/ztproxy.yaml](../../config/ztproxy.yaml); `ztproxy init DIRECTORY` writes one to
start from, with certificates and policies. `ztproxy schema` prints the JSON Schema for editors.
(This page is made by `ztproxy schema --markdown`.)

- **Paths** are absolute or start at the directory of the file.
- **Durations** are a number and a unit: `500ms`, `30s`, `15m`, `8h`, `7d`.
- **Sizes** are a number and a unit: `512B`, `32KiB`, `1MiB`, `1GiB`.
- **Secrets** never stand in the file: `file:PATH` or `env:NAME`. A secret file belongs to the user who runs
  ztproxy and nobody else may read it (`chmod 600`), or it belongs to root and at most its group may read it,
  as mounted secrets do. One newline at the end is taken off.
- **YAML** is that of version 1.2: `off` and `yes` are words, only `true` and `false` are booleans. Aliases
  are followed; tags and `<<` are refused. A file has at most 1 MiB.
- **Where is it?** Verbs take `--config FILE`, else the variable `ZTPROXY_CONFIG`, else
  `/etc/ztproxy/ztproxy.yaml`.
"""


def markdown() -> str:
    """Return the page."""
    schema = json_schema()
    parts = [INTRODUCTION, _section("The file", schema, schema, "")]
    parts.extend(_nested(schema, schema, ""))
    return "\n".join(parts)


def _nested(node: dict[str, Any], schema: dict[str, Any], above: str) -> Iterator[str]:
    """Yield a section for each model below this one, depth first, in the order of the file."""
    for key, field in node.get("properties", {}).items():
        model, listed = _model(field, schema)
        if model is not None:
            path = f"{above}{key}{'[]' if listed else ''}"
            yield _section(f"`{path}`", model, schema, path)
            yield from _nested(model, schema, f"{path}.")


def _section(title: str, model: dict[str, Any], schema: dict[str, Any], path: str) -> str:
    required = set(model.get("required", ()))
    lines = [f"## {title}", ""]
    if path:
        lines += [_line(model), ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field in model.get("properties", {}).items():
        default = "**required**" if key in required else _default(field, schema)
        lines.append(f"| `{key}` | {_kind(field, schema)} | {default} | {_line(field)} |")
    return "\n".join(lines) + "\n"


def _line(node: dict[str, Any]) -> str:
    """Return a description on one line, as tables need it."""
    return " ".join(node.get("description", "").split())


def _model(field: dict[str, Any], schema: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """Find the model a field holds, and whether it holds a list of them."""
    field = _solid(field)
    if field.get("type") == "array":
        return _model(field["items"], schema)[0], True
    name = field.get("$ref", "").removeprefix("#/$defs/")
    return schema["$defs"].get(name), False


def _solid(field: dict[str, Any]) -> dict[str, Any]:
    """Leave out the possibility of null."""
    some = [one for one in field.get("anyOf", ()) if one.get("type") != "null"]
    return some[0] if some else field


def _kind(field: dict[str, Any], schema: dict[str, Any]) -> str:
    field = _solid(field)
    if field.get("type") == "array":
        return f"list: {_kind(field['items'], schema)}"
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if "format" in field:
        return str(field["format"])
    if field.get("examples"):
        return f"like `{field['examples'][0]}`"
    return {"integer": "number", "boolean": "`true`, `false`", "string": "text"}[field["type"]]


def _default(field: dict[str, Any], schema: dict[str, Any]) -> str:
    value = field.get("default")
    if value in (None, [], "", {}) or _model(field, schema)[0] is not None:
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
