"""The JSON Schema of the configuration file, made from the models.

Called by `ztproxy schema` and by `reference`. What a schema can not say (references, files, certificates)
is found by `ztproxy check` alone.
"""

from typing import Any, Final

from ztproxy.config.section import Section
from ztproxy.config.settings import Settings

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema with keys and defaults as files write them."""
    schema = {"$schema": DRAFT, **Settings.model_json_schema(by_alias=True)}
    models = {model.__name__: model for model in Section.__subclasses__()}
    for name, node in schema["$defs"].items():
        _write_defaults(node, models[name])
    _write_defaults(schema, Settings)
    return schema


def _write_defaults(node: dict[str, Any], model: type[Section]) -> None:
    """Replace defaults by their written form: pydantic shows milliseconds where a file says "15m"."""
    written = model.model_construct().model_dump(mode="json", by_alias=True, exclude_none=True)
    for key, field in node.get("properties", {}).items():
        if "default" in field and key in written:
            field["default"] = written[key]
