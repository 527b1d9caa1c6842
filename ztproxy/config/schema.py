"""The JSON Schema of the configuration file, and its reference page: both made from the models.

Called by `ztproxy schema`, and by the test that keeps docs/reference/configuration.md true. What a schema
can not say (references, files, certificates) is found by `ztproxy check` alone.
"""

from typing import Any, Final

from ztproxy.config.settings import Settings

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema with the keys as files write them."""
    return {"$schema": DRAFT, **Settings.model_json_schema(by_alias=True)}
