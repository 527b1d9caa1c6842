"""`python -m ztproxy.demo.provider_seed`: people, groups and our client into canaille's database.

Runs on its own because canaille is configured for a whole process. Reads JSON from standard input and can
be run again: what is there is brought up to date.
"""

import sys
from typing import Any

from canaille import create_app  # type: ignore[import-untyped]
from canaille.app import models  # type: ignore[import-untyped]
from canaille.backends import Backend  # type: ignore[import-untyped]
from msgspec import json


def put(model: Any, key: str, values: dict[str, Any]) -> Any:
    """The object of this model whose `key` has the value given, with all values as given."""
    found = Backend.instance.query(model, **{key: values[key]})
    thing = found[0] if found else model(**values)
    for name, value in values.items():
        setattr(thing, name, value)
    Backend.instance.save(thing)
    return thing


def person(values: dict[str, str]) -> Any:
    """Somebody with a login."""
    user = {
        "user_name": values["username"],
        "formatted_name": values["name"],
        "given_name": values["name"].split()[0],
        "family_name": values["name"].split()[-1],
        "emails": [f"{values['username']}@demo.example"],
        "password": values["password"],
    }
    return put(models.User, "user_name", user)


def seed(wanted: dict[str, Any]) -> None:
    """Everything the demo wants the provider to know."""
    for values in wanted["people"]:
        member = person(values)
        put(models.Group, "display_name", {"display_name": values["group"], "members": [member]})
    client = put(models.Client, "client_id", wanted["client"])
    client.audience = [client]  # otherwise ID tokens come with an empty `aud`, which we refuse
    Backend.instance.save(client)


def main() -> None:
    """Seed the database that the environment names."""
    with create_app().app_context(), Backend.instance.session():
        seed(json.decode(sys.stdin.buffer.read()))


if __name__ == "__main__":
    main()
