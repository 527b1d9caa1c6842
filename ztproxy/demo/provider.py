"""The demo's OpenID provider: canaille, a real one, with its own pages and database.

Called by `demo.run`: writes canaille's configuration, lets `demo.provider_seed` bring people, groups and
our client up to date, and says how to start it.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from joserfc.jwk import RSAKey
from msgspec import json

from ztproxy.demo.errors import DemoProblem
from ztproxy.demo.layout import PORTAL, Layout, write
from ztproxy.demo.people import Person
from ztproxy.model.endpoints import OWN

CLIENT: Final = "ztproxy"
CALLBACK: Final = OWN + "callback"


class Provider:
    """Canaille in the demo's folder, on one port of loopback."""

    def __init__(self, layout: Layout, port: int) -> None:
        if find_spec("canaille") is None:
            raise DemoProblem(
                "The OpenID provider of the demo is not installed.", "pip install 'ztproxy[demo]'"
            )
        self._layout = layout
        self._port = port
        self.issuer = f"http://127.0.0.1:{port}"
        self.secret = layout.path("provider", "client-secret")
        self._settings = layout.path("provider", "canaille.toml")

    @property
    def command(self) -> list[str]:
        """What starts it."""
        return [sys.executable, "-c", "from canaille.commands import cli; cli()", "run"]

    @property
    def environment(self) -> dict[str, str]:
        """What it wants to find in its environment."""
        return {**os.environ, "CANAILLE_CONFIG": str(self._settings)}

    def configure(self) -> None:
        """Write its configuration and the secret that our client shares with it."""
        if not self.secret.exists():
            write(self.secret, secrets.token_urlsafe(32))
        write(self._settings, self._toml())

    def seed(self, people: Sequence[Person], log: Path) -> None:
        """Bring its database up to date. Raises DemoProblem."""
        seed = {"client": self._client(), "people": people}
        with log.open("ab") as output:
            done = subprocess.run(
                [sys.executable, "-m", "ztproxy.demo.provider_seed"],
                input=json.encode(seed),
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self._settings.parent,
                check=False,
            )
        if done.returncode:
            raise DemoProblem("The OpenID provider could not be set up.", f"see {log}")

    def _client(self) -> dict[str, object]:
        return {
            "client_id": CLIENT,
            "client_secret": self.secret.read_text(),
            "client_name": "ztproxy demo",
            "client_uri": self._layout.portal,
            "redirect_uris": [self._layout.portal + CALLBACK],
            "post_logout_redirect_uris": [self._layout.portal + "/"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "scope": ["openid", "profile", "email", "groups", "offline_access"],
            "token_endpoint_auth_method": "client_secret_basic",
        }

    def _toml(self) -> str:
        key = ", ".join(f"{name} = {_quoted(value)}" for name, value in self._signing_key().items())
        database = self._settings.with_name("canaille.sqlite")
        return "\n".join(
            [
                "# Written at every start of the demo.",
                f"SECRET_KEY = {_quoted(self._session_key())}",
                f'SERVER_NAME = "127.0.0.1:{self._port}"',
                'PREFERRED_URL_SCHEME = "http"',
                "",
                "[CANAILLE]",
                'NAME = "demo"',
                'DATABASE = "sql"',
                "ENABLE_PASSWORD_RECOVERY = false",
                "",
                "[CANAILLE_SQL]",
                f"DATABASE_URI = {_quoted(f'sqlite:///{database}')}",
                "",
                "[CANAILLE_OIDC]",
                f"ACTIVE_JWKS = [{{{key}}}]",
                f'TRUSTED_DOMAINS = ["{PORTAL}"]  # our own client: no page that asks for consent',
                "",
                "[CANAILLE_HYPERCORN]",
                f'BIND = ["127.0.0.1:{self._port}"]',
                "WORKERS = 0  # in the process that is started, so that it ends with it",
                'ERRORLOG = "-"',
                "",
            ]
        )

    def _session_key(self) -> str:
        path = self._layout.path("provider", "session-key")
        if not path.exists():
            write(path, secrets.token_urlsafe(32))
        return path.read_text()

    def _signing_key(self) -> dict[str, str]:
        path = self._layout.path("provider", "signing-key.json")
        if not path.exists():
            key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256", "kid": secrets.token_hex(8)})
            write(path, json.encode(key.as_dict(private=True)))
        return json.decode(path.read_bytes(), type=dict[str, str])


def _quoted(value: str) -> str:
    """A basic TOML string; JSON's escapes are a subset of TOML's."""
    return json.encode(value).decode()
