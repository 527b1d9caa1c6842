"""The values a configuration file can hold, each read strictly from its text: "15m", "1MiB", names.

Used by `settings` and its sections as pydantic types. A reader takes what stood in the file and returns the
value, or raises an error with a remedy; JSON Schema patterns say the same as far as patterns can.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from ztproxy.config.files import Files
from ztproxy.config.secrets import Secret, resolve, wrong
from ztproxy.crypto.jwk import ALGORITHMS
from ztproxy.crypto.spiffe import SpiffeError, parse_id, parse_trust_domain
from ztproxy.model.durations import UNITS, milliseconds
from ztproxy.model.endpoints import OWN
from ztproxy.model.resource import Upstream
from ztproxy.wire.target import is_plain


class Surroundings(TypedDict):
    """What validation needs to know besides the file: passed as pydantic's context."""

    file: Path
    environ: Mapping[str, str]
    files: Files
    drafting: bool  # secrets that can not be read are empty: their problem is known, others are looked for


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and port to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """What a route answers on: a host and a path prefix ("/" or "/x/")."""

    host: str
    prefix: str

    def __str__(self) -> str:
        return f"https://{self.host}{self.prefix}"


_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
NAME_PATTERN: Final = rf"^{_NAME.pattern}$"
_LAST: Final = re.compile(r"[A-Za-z0-9._~-]*")
_PREFIX: Final = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*")
_UPGRADE: Final = re.compile(r"[a-z0-9][a-z0-9._+-]{0,39}(/[a-z0-9._+-]{1,20})?")


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise wrong("expected text", "put it in quotes")
    return raw


def duration(raw: object) -> int:
    """Read "500ms", "30s", "15m", "8h" or "7d" into milliseconds."""
    ms = milliseconds(raw) if isinstance(raw, str) else 0
    if not ms:
        raise wrong("not a duration", "write a number above 0 and a unit: 500ms, 30s, 15m, 8h or 7d")
    return ms


def size(raw: object) -> int:
    """Read "512B", "32KiB", "1MiB" or "1GiB" into bytes."""
    found = re.fullmatch(r"([0-9]{1,9})(B|KiB|MiB|GiB)", raw) if isinstance(raw, str) else None
    if not found or not int(found[1]):
        raise wrong("not a size", "write a number above 0 and a unit: 512B, 32KiB, 1MiB or 1GiB")
    return int(found[1]) * _BYTES[found[2]]


def host(raw: object) -> str:
    """Read a host name: lower-case ASCII labels, no port, no dot at the end."""
    text = _text(raw)
    if _HOST.fullmatch(text):
        return text
    if _HOST.fullmatch(text.lower().rstrip(".")):
        raise wrong("not a host name in its usual form", f"write {text.lower().rstrip('.')}")
    raise wrong("not a host name", "write a name like app.corp.example, without scheme and port")


def name(raw: object) -> str:
    """Read the name of a thing, as policies and records will show it."""
    text = _text(raw)
    if not _NAME.fullmatch(text):
        raise wrong("not a name", "use at most 63 of a-z, 0-9, '-', '_' and '.', beginning with a-z or 0-9")
    return text


def provider_name(raw: object) -> str:
    """Read the name of a provider, which begins the ids of its people."""
    text = _text(raw)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise wrong("not a provider's name", "use at most 63 of a-z, 0-9 and '-'")
    return text


def address(raw: object) -> Address:
    """Read "127.0.0.1:8443" or "[::1]:8443"."""
    remedy = "write an IP address and a port: 127.0.0.1:8443, 0.0.0.0:443 or [::]:443"
    found = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", raw if isinstance(raw, str) else ""
    )
    if not found:
        raise wrong("not an address to listen on", remedy)
    try:
        ip = ipaddress.ip_address(found[1] or found[2])
    except ValueError:
        raise wrong("not an IP address", remedy) from None
    if int(found[3]) > 65535 or (found[1] is None) != (ip.version == 4):
        raise wrong("not an address to listen on", remedy)
    return Address(str(ip), int(found[3]))


def dial_address(raw: object) -> str:
    """Read where to dial: "gw1.example:443", "203.0.113.7:443" or "[2001:db8::7]:443"."""
    text = _text(raw)
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+)):([0-9]{1,5})", text)
    if not found or not 0 < int(found[3]) <= 65535:
        raise wrong("not a place to dial", "write HOST:PORT, like gw1.example.com:443")
    if found[1] is None:
        return f"{host(found[2])}:{int(found[3])}"
    try:
        return f"[{ipaddress.IPv6Address(found[1])}]:{int(found[3])}"
    except ValueError:
        raise wrong("not an IPv6 address", "write it in brackets, like [2001:db8::7]:443") from None


def place(raw: object) -> Place:
    """Read a route's `from`: "https://host" or "https://host/prefix/"."""
    text = _text(raw)
    found = re.fullmatch(r"https://([^/?#]*)(/[^?#]*)?", text)
    if not found:
        raise wrong("not an https address", "write https://HOST or https://HOST/PREFIX/")
    if "@" in found[1] or ":" in found[1]:
        raise wrong("only a host belongs here", "leave out user and port: the port is that of `listen`")
    prefix = found[2] or "/"
    if not prefix.endswith("/"):
        raise wrong("a path prefix ends with /", f"write https://{found[1]}{prefix}/")
    if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise wrong("not a plain path prefix", "use letters, digits, '.', '_', '~' and '-' between slashes")
    if prefix.startswith(OWN):
        raise wrong(f"{OWN} belongs to ztproxy on every host", "choose another prefix")
    return Place(host(found[1]), prefix)


def path_prefix(raw: object) -> str:
    """Read a path prefix: "/x/", whole plain segments."""
    text = _text(raw)
    if not _PREFIX.fullmatch(text) or {".", ".."} & set(text.split("/")):
        remedy = "write /PREFIX/ of letters, digits, '.', '_', '~' and '-' between slashes"
        raise wrong("not a plain path prefix", remedy)
    return text


def public_path(raw: object) -> str:
    """Read a path that is open to everybody: "/x/" with all below it, or "/x" alone."""
    text = _text(raw)
    above, slash, last = text.rpartition("/")
    if not _PREFIX.fullmatch(f"{above}{slash}") or not _LAST.fullmatch(last):
        remedy = "write /DIRECTORY/ or /PATH of letters, digits, '.', '_', '~' and '-' between slashes"
        raise wrong("not a plain path", remedy)
    if {".", ".."} & set(text.split("/")):
        raise wrong("not a plain path", "write it without . and .. between slashes")
    if text.startswith(OWN):
        raise wrong(f"{OWN} belongs to ztproxy on every host", "choose another path")
    return text


def plain_path(raw: object) -> str:
    """Read an absolute path that can be read in one way only."""
    text = _text(raw)
    if not text.isascii() or "?" in text or not is_plain(text.encode()):
        remedy = "write /PATH with plain segments: no //, no dots alone, codes like %20 in upper case only"
        raise wrong("not a plain path", remedy)
    return text


def upstream(raw: object) -> Upstream:
    """Read a route's `to`: "http://host:port", "https://host[:port]" or "unix:/path"."""
    text = _text(raw)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
            raise wrong("not the path of a socket", "write unix:/run/app.sock: absolute, at most 107 bytes")
        return Upstream(scheme="unix", host=path, port=0)
    scheme, target, port = _origin(text)
    return Upstream(scheme="https" if scheme == "https" else "http", host=target, port=port)


def _origin(text: str) -> tuple[str, str, int]:
    """Read scheme, host and port of an http or https origin."""
    remedy = "write http://HOST:PORT, https://HOST or unix:/PATH"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong("not an address", remedy) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong("not an http or https address", remedy)
    if "@" in parts.netloc:
        raise wrong("no user and password in an address", "leave them out")
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise wrong("only scheme, host and port belong here", "leave out the path; requests keep their own")
    if port == 0:
        raise wrong("port 0 is no address", remedy)
    return parts.scheme, _target(parts.hostname, remedy), port or (443 if parts.scheme == "https" else 80)


def _target(text: str, remedy: str) -> str:
    if "%" not in text and (":" in text or re.fullmatch(r"[0-9.]+", text)):
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            raise wrong("not an IP address", remedy) from None
    if not re.fullmatch(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?", text) or ".." in text:
        raise wrong("not a host name", remedy)
    return text


def browser_origin(raw: object) -> str:
    """Read an origin as browsers send it: "https://host[:port]", nothing else."""
    scheme, target, _ = _origin(_text(raw))
    text = _text(raw)
    port = urlsplit(text).port
    plain = f"[{target}]" if ":" in target else target
    shown = f"{scheme}://{plain}" + (
        f":{port}" if port not in (None, {"http": 80, "https": 443}[scheme]) else ""
    )
    if shown != text:
        raise wrong("not an origin as browsers send it", f"write {shown}")
    return text


def cors_origin(raw: object) -> str:
    """Read an origin as browsers send it, or "*"."""
    return "*" if raw == "*" else browser_origin(raw)


def issuer(raw: object) -> str:
    """Read an OpenID issuer: an https URL without query and fragment; http on loopback only."""
    text = _text(raw)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise wrong(
            "not a URL", "write it as the provider's metadata does: https://idp.corp.example"
        ) from None
    if "@" in parts.netloc or "?" in text or "#" in text or not parts.hostname or re.search(r"[\s\\]", text):
        raise wrong("not an issuer", "only scheme, host, port and path belong here")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise wrong("the issuer is not https", "use https; plain http is accepted on loopback only")
    return text


def is_loopback(target: str) -> bool:
    """Say whether a host name or address is this machine's loopback."""
    try:
        return ipaddress.ip_address(target).is_loopback
    except ValueError:
        return target == "localhost" or target.endswith(".localhost")


def trust_domain(raw: object) -> str:
    """Read a SPIFFE trust domain."""
    try:
        return parse_trust_domain(_text(raw))
    except SpiffeError:
        raise wrong(
            "not a SPIFFE trust domain", "write a lower-case name like corp.example, without spiffe://"
        ) from None


def upgrade_name(raw: object) -> str:
    """Read a protocol as Upgrade names it, in lower case."""
    text = _text(raw)
    if not _UPGRADE.fullmatch(text):
        raise wrong("not a protocol as Upgrade names it", "write it in lower case: tcp, spdy/3.1")
    if text == "websocket":
        raise wrong("WebSocket has a key of its own", "write `websocket: true`")
    if text.partition("/")[0] in ("h2c", "h2", "http", "tls"):
        raise wrong(
            f"{text} would carry requests past the policy",
            "leave it out; clients go on without it",
        )
    return text


def workload_id(raw: object) -> str:
    """Read the id of a workload: a SPIFFE ID, or "x509:" and a common name."""
    text = _text(raw)
    if re.fullmatch(r"x509:[^\x00-\x1f\x7f]{1,200}", text):
        return text
    try:
        return str(parse_id(text))
    except SpiffeError:
        raise wrong("not a workload id", "write spiffe://TRUST-DOMAIN/PATH or x509:COMMON-NAME") from None


def timezone(raw: object) -> str:
    """Read the name of an IANA time zone."""
    text = _text(raw)
    try:
        return ZoneInfo(text).key
    except (ValueError, OSError, ZoneInfoNotFoundError):
        close = get_close_matches(text, available_timezones(), n=1)
        hint = f"did you mean {close[0]}?" if close else "write an IANA name: Europe/Berlin, UTC"
        raise wrong("not a time zone", hint) from None


def algorithm(raw: object) -> str:
    """Read a signature algorithm of ID tokens: asymmetric ones only."""
    text = _text(raw)
    remedy = f"choose from {', '.join(sorted(ALGORITHMS))}"
    if text in ALGORITHMS:
        return text
    if text.lower() == "none" or text.startswith("HS"):
        raise wrong(f"{text} proves nothing about who signed", remedy)
    raise wrong("not a signature algorithm", remedy)


def _path(raw: object, info: ValidationInfo) -> Path:
    text = _text(raw)
    if not text or "\0" in text:
        raise wrong("not a path", "write a path; relative ones start at this file")
    if text.startswith(("file:", "env:")):
        raise wrong("this is a public file", "write the bare path; `file:` is for secrets")
    return Path(os.path.normpath(_base(info) / text))


def _pattern(raw: object, info: ValidationInfo) -> str:
    return str(_path(raw, info))


def _secret(raw: object, info: ValidationInfo) -> Secret:
    context: Any = info.context
    try:
        return resolve(raw, _base(info), context["environ"], context["files"])
    except PydanticCustomError:
        if context["drafting"]:
            return Secret("unread", "")
        raise


def _key_file(raw: object, info: ValidationInfo) -> Secret:
    if isinstance(raw, str) and raw.startswith("env:"):
        raise wrong("a private key comes from a file", "write `file:PATH`; the file's mode is 0600")
    return _secret(raw, info)


def _base(info: ValidationInfo) -> Path:
    context: Any = info.context
    return Path(context["file"]).parent


def _schema(pattern: str, example: str, kind: str = "") -> WithJsonSchema:
    schema = {"type": "string", "pattern": pattern, "examples": [example]}
    return WithJsonSchema({**schema, "format": kind} if kind else schema)


def _written(value: int, units: Mapping[str, int]) -> str:
    """Write a number with the largest unit that leaves no remainder, as `duration` and `size` read it."""
    unit = max((name for name in units if value % units[name] == 0), key=units.__getitem__)
    return f"{value // units[unit]}{unit}"


def _between(least: int, most: int, units: Mapping[str, int]) -> AfterValidator:
    def check(value: int) -> int:
        if not least <= value <= most:
            low, high = _written(least, units), _written(most, units)
            raise wrong(f"not between {low} and {high}", f"choose a value from {low} to {high}")
        return value

    return AfterValidator(check)


_plain: Final = PlainValidator
_as_text: Final = PlainSerializer(lambda value: str(value), return_type=str)
Milliseconds = Annotated[
    int,
    _plain(duration),
    _between(1, 3650 * 86_400_000, UNITS),
    PlainSerializer(lambda value: _written(value, UNITS)),
    _schema(r"^[0-9]{1,9}(ms|s|m|h|d)$", "15m"),
]
Bytes = Annotated[
    int,
    _plain(size),
    PlainSerializer(lambda value: _written(value, _BYTES)),
    _schema(r"^[0-9]{1,9}(B|KiB|MiB|GiB)$", "1MiB"),
]
DialAddress = Annotated[
    str,
    _plain(dial_address),
    _schema(r"^([a-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$", "gw1.example:443"),
]
CertificateLife = Annotated[Milliseconds, _between(1_000, 30 * 86_400_000, UNITS)]
DrainTime = Annotated[Milliseconds, _between(1_000, 3_600_000, UNITS)]
HeadBytes = Annotated[Bytes, _between(4 << 10, 1 << 20, _BYTES)]
HostName = Annotated[str, _plain(host), _schema(r"^[a-z0-9.-]{1,253}$", "app.corp.example")]
Name = Annotated[str, _plain(name), _schema(NAME_PATTERN, "support")]
ProviderName = Annotated[str, _plain(provider_name), _schema(r"^[a-z0-9][a-z0-9-]{0,62}$", "corp")]
Listen = Annotated[
    Address,
    _plain(address),
    _as_text,
    _schema(r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$", "127.0.0.1:8443"),
]
From = Annotated[
    Place,
    _plain(place),
    _as_text,
    _schema(r"^https://[a-z0-9.-]+(/([A-Za-z0-9._~-]+/)*)?$", "https://app.corp.example"),
]
BrowserOrigin = Annotated[
    str, _plain(browser_origin), _schema(r"^https?://[^/?#@]+$", "https://other.corp.example")
]
CorsOrigin = Annotated[
    str, _plain(cors_origin), _schema(r"^(\*|https?://[^/?#@]+)$", "https://other.corp.example")
]
PathPrefix = Annotated[str, _plain(path_prefix), _schema(r"^/([A-Za-z0-9._~-]+/)*$", "/base/")]
PublicPath = Annotated[
    str, _plain(public_path), _schema(r"^/([A-Za-z0-9._~-]+/)*[A-Za-z0-9._~-]*$", "/assets/")
]
PlainPath = Annotated[str, _plain(plain_path), _schema(r"^/[^?#]*$", "/healthz")]
Issuer = Annotated[str, _plain(issuer), _schema(r"^https?://[^?#@\s]+$", "https://idp.corp.example")]
TrustDomain = Annotated[str, _plain(trust_domain), _schema(r"^[a-z0-9._-]{1,255}$", "corp.example")]
UpgradeName = Annotated[str, _plain(upgrade_name), _schema(rf"^{_UPGRADE.pattern}$", "tcp")]
WorkloadId = Annotated[
    str, _plain(workload_id), _schema(r"^(spiffe://|x509:).+$", "spiffe://corp.example/ci/deployer")
]
TimeZone = Annotated[str, _plain(timezone), _schema(r"^[A-Za-z0-9_+/-]+$", "Europe/Berlin")]
Algorithm = Annotated[str, _plain(algorithm), WithJsonSchema({"type": "string", "enum": sorted(ALGORITHMS)})]
FilePath = Annotated[Path, _plain(_path), _as_text, _schema(r"^(?!file:|env:).+$", "tls/ca.pem", "path")]
FilePattern = Annotated[
    str, _plain(_pattern), _schema(r"^(?!file:|env:).+$", "policies/*.cedar", "pattern of paths")
]
SecretValue = Annotated[
    Secret,
    _plain(_secret),
    PlainSerializer(lambda secret: secret.source),
    _schema(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$", "env:ZTPROXY_OIDC_SECRET"),
]
KeyFile = Annotated[
    Secret,
    _plain(_key_file),
    PlainSerializer(lambda secret: secret.source),
    _schema(r"^file:.+$", "file:tls/portal.key"),
]
