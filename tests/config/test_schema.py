"""The JSON Schema accepts what the loader accepts, and refuses what can be seen without looking around."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ztproxy.config import yaml
from ztproxy.config.reference import markdown
from ztproxy.config.schema import json_schema

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
#: Broken in ways that need no other file and no other section to be seen.
VISIBLE = (
    "unknown-key",
    "unknown-key-in-route",
    "unknown-key-far-off",
    "wrong-types",
    "word",
    "missing-key",
    "missing-section",
    "durations",
    "literal-secret",
    "key-from-environment",
    "algorithms",
    "listen-name",
    "trust-domain",
    "from",
    "to",
    "origins",
    "many-at-once",
)


def data(path: Path) -> Any:
    tree, problems = yaml.parse(path.read_bytes(), str(path))
    assert tree is not None and not problems
    return json.loads(json.dumps(tree.plain()))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize(
    "path",
    [ROOT / "config/ztproxy.yaml", HERE / "good.yaml", ROOT / "ztproxy/cli/starter/ztproxy.yaml"],
    ids=str,
)
def test_sound_files_validate(validator: Draft202012Validator, path: Path) -> None:
    assert [error.message for error in validator.iter_errors(data(path))] == []


@pytest.mark.parametrize("name", VISIBLE)
def test_broken_files_do_not(validator: Draft202012Validator, name: str) -> None:
    assert not validator.is_valid(data(HERE / "broken" / f"{name}.yaml"))


def test_every_key_says_what_it_is_for() -> None:
    schema = json_schema()
    for model in (schema, *schema["$defs"].values()):
        assert model["description"]
        for key, field in model.get("properties", {}).items():
            assert field.get("description"), key


def test_defaults_are_written_as_files_write_them(validator: Draft202012Validator) -> None:
    for model in json_schema()["$defs"].values():
        for field in model.get("properties", {}).values():
            if "default" in field and "pattern" in field:
                Draft202012Validator(field).validate(field["default"])


def test_the_reference_page_is_what_the_models_say() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text()
    assert page == markdown(), "write it anew: ztproxy schema --markdown > docs/reference/configuration.md"
