"""The sections that say where state is kept. Used by `config.settings`; `service` opens what they name."""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from ztproxy.config.secrets import Secret, wrong
from ztproxy.config.section import Section
from ztproxy.config.values import (
    Address,
    FilePath,
    HostName,
    KeyFile,
    Milliseconds,
    Name,
    SecretValue,
    is_loopback,
)
from ztproxy.crypto.envelope import parse_key

_HOST: Final = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_ADDRESS: Final = "write rediss://HOST:PORT, redis://HOST:PORT or unix:///PATH"
_MASTER: Final = r"[A-Za-z0-9._-]{1,100}"


def redis_url(raw: object) -> str:
    """Read "redis://HOST:PORT", "rediss://HOST:PORT/DATABASE" or "unix:///PATH", never with a password."""
    text = raw if isinstance(raw, str) else ""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong("not an address of a Redis server", _ADDRESS) from None
    if "@" in parts.netloc:
        raise wrong("user and password never stand in an address", "give `username` and `password` beside it")
    if "?" in text or "#" in text:
        raise wrong("options do not belong into the address", "each has a key of its own beside `url`")
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/") or len(parts.path.encode()) > 107:
            raise wrong(
                "not the path of a socket", "write unix:///run/redis.sock: absolute, at most 107 bytes"
            )
        return text
    host = parts.netloc.removesuffix(f":{port}")
    if parts.scheme not in ("redis", "rediss") or not _HOST.fullmatch(host) or port == 0:
        raise wrong("not an address of a Redis server", _ADDRESS)
    if not re.fullmatch(r"(/[0-9]{0,4})?", parts.path):
        raise wrong("not a database of Redis", "write a number: rediss://HOST:PORT/1, or leave it out")
    return text


def server(raw: object) -> Address:
    """Read "HOST:PORT" of a Sentinel."""
    host, _, port = raw.rpartition(":") if isinstance(raw, str) else ("", "", "")
    if not _HOST.fullmatch(host) or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise wrong("not a host and port", "write HOST:PORT: sentinel-0.corp.example:26379")
    return Address(host.strip("[]"), int(port))


def _master(text: str) -> str:
    if not re.fullmatch(_MASTER, text):
        raise wrong("not a name of a master", "write it as `sentinel monitor NAME …` does")
    return text


def _user(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,100}", text):
        raise wrong("not a name of a Redis user", "write it as the ACL does: ASCII without spaces")
    return text


def _sealing_key(secret: Secret) -> Secret:
    if secret.reveal():  # "" could not be read, which is said already
        try:
            parse_key(secret.reveal())
        except ValueError as error:
            remedy = f"make one: openssl rand -base64 32 > {secret.path}; chmod 600 {secret.path}"
            raise wrong(f"{secret.path} holds no key: {error}", remedy) from None
    return secret


_SERVER_SCHEMA: Final = {
    "type": "string",
    "pattern": r"^[^\s/@]+:[0-9]{1,5}$",
    "examples": ["sentinel-0.corp.example:26379"],
}
_URL_SCHEMA: Final = {
    "type": "string",
    "pattern": r"^(rediss?://[^/?#@]+(/[0-9]{0,4})?|unix:///[^?#]+)$",
    "examples": ["rediss://redis.corp.example:6379"],
}
Server = Annotated[
    Address,
    PlainValidator(server),
    PlainSerializer(lambda value: str(value), return_type=str),
    WithJsonSchema(_SERVER_SCHEMA),
]
RedisUrl = Annotated[str, PlainValidator(redis_url), WithJsonSchema(_URL_SCHEMA)]
MasterName = Annotated[str, Field(pattern=f"^{_MASTER}$"), AfterValidator(_master)]
User = Annotated[str, AfterValidator(_user)]
SealingKey = Annotated[KeyFile, AfterValidator(_sealing_key)]


class Sentinel(Section):
    """Redis Sentinel: says which server is the master at the moment."""

    master: MasterName
    """Name of the master, as `sentinel monitor NAME …` says it."""
    servers: tuple[Server, ...] = Field(min_length=1, max_length=16)
    """The Sentinels, `HOST:PORT` each."""
    username: User | None = None
    """Our user at the Sentinels, where they have one."""
    password: SecretValue | None = None
    """Our password at the Sentinels, `file:PATH` or `env:NAME`."""

    @model_validator(mode="after")
    def _proves_a_name(self) -> "Sentinel":
        _pair(self.username, self.password)
        return self


class RedisTls(Section):
    """TLS to Redis, its Sentinels and its cluster alike."""

    ca: FilePath | None = None
    """PEM file of authorities to trust instead of the system's."""
    server_name: HostName | None = None
    """Name that every server's certificate must carry; default: the host that is connected to."""
    certificate: FilePath | None = None
    """PEM file of the client certificate we show, then its intermediates."""
    key: KeyFile | None = None
    """The certificate's private key, PEM without a passphrase, `file:PATH`."""

    @model_validator(mode="after")
    def _is_a_pair(self) -> "RedisTls":
        if (self.certificate is None) != (self.key is None):
            raise wrong("a certificate and its key belong together", "give both, or none")
        return self


class Redis(Section):
    """Redis as the store of several nodes. Give `url` or `sentinel`."""

    url: RedisUrl | None = None
    """Address: rediss://HOST:PORT (TLS), redis://HOST:PORT or unix:///PATH; of a cluster, any server."""
    sentinel: Sentinel | None = None
    """Where to ask which server is the master."""
    cluster: bool = False
    """Whether the server belongs to a Redis Cluster. All state of an installation lies in one slot."""
    name: Name = "main"
    """Name of the installation: nodes with the same name share their state."""
    username: User | None = None
    """Our ACL user; default: the server's `default` user."""
    password: SecretValue | None = None
    """Our password, `file:PATH` or `env:NAME`."""
    tls: RedisTls | None = None
    """TLS settings for rediss://; with `sentinel` their presence turns TLS on."""
    plaintext: bool = False
    """Whether a server that is not on this machine may be reached without TLS. Session records and the
    password then cross the network readable."""
    durable: Literal["strict", "relaxed"] = "strict"
    """`strict` refuses a server that may forget what it acknowledged (appendonly yes, appendfsync always);
    `relaxed` takes what it is set to: a sign-out that was acknowledged may be lost when it dies."""
    replicas: int = Field(default=0, ge=0, le=16)
    """Replicas that must have a write before it is acknowledged, and without which no state counts as fresh:
    as many as a failover can choose from, so that it loses nothing. Not for a cluster."""
    connect_timeout: Milliseconds = 2_000
    """Time until a connection stands."""
    timeout: Milliseconds = 5_000
    """Time for an answer."""

    @model_validator(mode="after")
    def _can_be_reached(self) -> "Redis":
        if (self.url is None) == (self.sentinel is None):
            raise wrong("one way to the servers is needed", "give either `url` or `sentinel`")
        if self.cluster and (self.url is None or not re.fullmatch(r"rediss?://[^/]+/?", self.url)):
            raise wrong(
                "a cluster has servers of its own and one database", "write `url: rediss://HOST:PORT`"
            )
        if self.cluster and self.replicas:
            raise wrong("`replicas` can not be asked of a cluster", "remove it, or use `sentinel`")
        if self.tls is not None and self.url is not None and not self.url.startswith("rediss:"):
            raise wrong(
                "`tls` has no effect: the address is not rediss://", "write rediss://, or remove `tls`"
            )
        _pair(self.username, self.password)
        self._demand_tls()
        return self

    def _demand_tls(self) -> None:
        hosts = [one.host for one in self.sentinel.servers] if self.sentinel is not None else []
        if self.url is not None:
            hosts = [urlsplit(self.url).hostname or ""]
        far = [one for one in hosts if one and not is_loopback(one)]
        if far and not self.encrypted and not self.plaintext:
            remedy = "use rediss://" if self.url else "add `tls: {}`"
            raise wrong(
                f"{far[0]} would be reached without TLS", f"{remedy}, or accept it: `plaintext: true`"
            )

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls is not None or (self.url or "").startswith("rediss:")


class Store(Section):
    """Where sessions, devices and locks are kept: SQLite in the state directory, or Redis for many nodes."""

    redis: Redis | None = None
    """Redis; default: SQLite in the state directory, for one node."""
    keys: tuple[SealingKey, ...] = Field(default=(), max_length=8)
    """Keys that seal secret values in the store, `file:PATH` of 32 random bytes in base64. The first one
    seals, all open: to rotate, put a new one first and remove the old one when nothing is sealed with it any
    more. Nodes that share a store need the same ones. Default with SQLite: one in the state directory."""

    @model_validator(mode="after")
    def _shares_its_keys(self) -> "Store":
        if self.redis is not None and not self.keys:
            remedy = (
                "make a key with `openssl rand -base64 32`, give every node the file, and list it in `keys`"
            )
            raise wrong("nodes that share a store need the same sealing key", remedy)
        return self


def _pair(username: str | None, password: Secret | None) -> None:
    if username is not None and password is None:
        raise wrong("a user without a password", "give `password`, or remove `username`")
