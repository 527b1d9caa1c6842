"""The sections of the configuration file as strict, frozen models; their texts become schema and reference.

Used by `settings`. A model says what one section can hold by itself; what several sections must agree on
is in `config.checks`.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from ztproxy.config.rates import Pace, rate
from ztproxy.config.secrets import wrong
from ztproxy.config.section import Section
from ztproxy.config.targets import To
from ztproxy.config.upstream_sections import (
    Cors,
    Ejection,
    Health,
    RequestHeaders,
    ResponseHeaders,
    RouteTls,
    Timeouts,
)
from ztproxy.config.values import (
    Algorithm,
    BrowserOrigin,
    Bytes,
    FilePath,
    FilePattern,
    From,
    HeadBytes,
    HostName,
    Issuer,
    KeyFile,
    Listen,
    Milliseconds,
    Name,
    PathPrefix,
    ProviderName,
    PublicPath,
    SecretValue,
    TimeZone,
    TrustDomain,
    UpgradeName,
    WorkloadId,
    address,
)

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE


def _printable(text: str) -> str:
    if not text.isprintable():
        raise wrong("control characters have no place here", "write it on one line of plain text")
    return text


def _header(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or set(text) & set(" ,/@?#"):
        raise wrong("not a host for a header", "write HOST or HOST:PORT")
    return text


Line = Annotated[str, Field(max_length=300), AfterValidator(_printable)]
Word = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Methods = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


class Certificate(Section):
    """A server certificate, chosen by the names (SAN) it is made out for."""

    cert: FilePath
    """PEM file: the certificate, then its intermediates."""
    key: KeyFile
    """Its private key, PEM without a passphrase, `file:PATH`."""


class Tls(Section):
    """Server certificates. A name that no certificate covers is refused; there is no fallback."""

    certificates: tuple[Certificate, ...] = Field(min_length=1, max_length=1000)
    """One or more certificates."""


class Portal(Section):
    """The page where people sign in and find their applications."""

    host: HostName
    """Host of the portal. No route may use it."""
    title: Line = "ztproxy"
    """Title of the pages."""


class Telemetry(Section):
    """Metrics and health for machines, without authentication: bind it where only they can reach it."""

    listen: Listen = address("127.0.0.1:9464")
    """Address of /metrics, /healthz and /readyz."""


class Log(Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written."""
    format: Literal["json", "text"] = "json"
    """`json` for machines, `text` for eyes."""


class Provider(Section):
    """An OpenID Connect provider that people sign in with."""

    name: ProviderName
    """Its name in principals (`NAME:SUB`), records and policies. Changing it makes everybody a stranger."""
    title: Line = ""
    """What the sign-in button says; default: the name."""
    issuer: Issuer
    """Issuer exactly as the provider's metadata says it."""
    client_id: Word
    """Our client id there."""
    client_secret: SecretValue
    """Our client secret, `env:NAME` or `file:PATH`."""
    scopes: tuple[Word, ...] = ("openid", "profile", "email")
    """Scopes to ask for; `openid` is needed."""
    offline: bool = False
    """Ask for a refresh token (scope `offline_access`), so that the provider can be asked again about a
    session without the person's browser."""
    groups_claim: Word = "groups"
    """Claim of the ID token that lists the person's groups."""
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256"), min_length=1)
    """Accepted signatures of ID tokens: asymmetric ones only."""
    ca: FilePath | None = None
    """PEM file of authorities to trust for this provider instead of the system's."""

    @model_validator(mode="after")
    def _asks_for_openid(self) -> "Provider":
        if "openid" not in self.scopes:
            raise wrong("the scopes leave out openid", "add openid to `scopes`")
        return self


class Identity(Section):
    """Where people come from."""

    providers: tuple[Provider, ...] = ()
    """OpenID Connect providers. With several, people choose on the sign-in page."""
    groups: tuple[Word, ...] | None = None
    """Groups that exist. When given, a policy or `allow` that names another one is refused: it is a typo."""


class ClientCertificates(Section):
    """A trust bundle for client certificates. A leaf's chain must end in exactly one bundle."""

    name: Name
    """Name of the bundle; `devices` is the built-in one of enrolled devices."""
    ca: FilePath
    """PEM file of root certificates."""
    kind: Literal["workload", "device"] = "workload"
    """What its leaves stand for."""
    trust_domain: TrustDomain | None = None
    """When given, leaves must be X.509-SVIDs with a SPIFFE ID of this trust domain."""


class Workload(Section):
    """Groups of a workload, for policies."""

    id: WorkloadId
    """SPIFFE ID, or `x509:` and the common name."""
    groups: tuple[Word, ...] = Field(min_length=1)
    """Groups it belongs to."""


class Sessions(Section):
    """How long people stay signed in. Whatever these say, policy is asked for every request."""

    idle: Milliseconds = 30 * MINUTE
    """A session ends after this long without a request, or up to a quarter of it earlier: uses are written
    down no more often than that."""
    absolute: Milliseconds = 10 * HOUR
    """A session ends this long after the sign-in."""
    recheck: Milliseconds | None = None
    """The provider is asked again about a session in use this long after it was asked last. Policies can say
    it for what they permit (`@recheck`); default: they alone, and signals."""
    recheck_grace: Milliseconds = HOUR
    """While the provider can not be reached, what it said last is good for this much longer."""
    changed_grace: Milliseconds = MINUTE
    """The same, at the most, when a signal says that what the provider said has changed."""
    risk_kept: Milliseconds = 400 * 24 * HOUR
    """What signals say of a person's risk is forgotten when for this long they have not signed in and nothing
    was said of them."""

    @model_validator(mode="after")
    def _ends(self) -> "Sessions":
        if self.idle > self.absolute:
            raise wrong("`idle` is longer than `absolute`", "make idle the shorter one")
        if self.risk_kept < 90 * 24 * HOUR:
            raise wrong("a risk is forgotten too early", "make `risk_kept` 90d or more")
        if self.absolute > 30 * 24 * HOUR:
            raise wrong("a session of more than 30 days proves little", "make `absolute` 30d or less")
        return self


class Devices(Section):
    """Enrolled devices and their agent."""

    agent_ports: tuple[Port, ...] = Field(default=(7643,), min_length=1, max_length=8)
    """Loopback ports on which a sign-in page looks for the device agent."""
    certificate_lifetime: Milliseconds = 24 * HOUR
    """Life of device certificates; agents renew them in the last third of it."""
    posture_max_age: Milliseconds = 15 * MINUTE
    """A report older than this is shown as stale; policies decide with limits of their own."""


class Policy(Section):
    """Who may do what. Nothing is allowed unless a policy permits it; a forbid always wins."""

    files: tuple[FilePattern, ...] = ()
    """Cedar files; * and ? match within a directory."""
    tests: tuple[FilePattern, ...] = ()
    """Files of decisions that must come out as written, or the policies are not used."""
    timezone: TimeZone = "UTC"
    """IANA time zone of `context.local`."""
    engine: Literal["compiled", "reference", "verify"] = "compiled"
    """`compiled` is fast, `reference` is Cedar's own, `verify` runs both and refuses where they disagree."""
    feed_limit: Milliseconds = 10_000
    """Facts that the control process has not confirmed for this long are unknown: they permit nothing."""


class Quota(Section):
    """A bound on permitted requests of one kind of caller. Give `rate`, `concurrent` or both."""

    per: Literal["principal", "session", "source", "route"]
    """Who counts as one. Callers without a session count by principal, those without a name by source."""
    rate: Pace | None = None
    """Requests, like `10/s burst 40`, over all workers, and all nodes that share a store in Redis."""
    concurrent: Count | None = None
    """Requests and streams under way at once, in each worker."""

    @model_validator(mode="after")
    def _bounds_something(self) -> "Quota":
        if self.rate is None and self.concurrent is None:
            raise wrong("a quota without a bound", "give `rate: 10/s burst 40`, `concurrent: 8` or both")
        return self


class Limits(Section):
    """Bounds on what callers can make us hold and do. Each worker counts for itself, but for rates of quotas
    and `sign_in_per_source`: those hold for all workers together."""

    head: HeadBytes = 32 << 10
    """Size of a request head."""
    head_timeout: Milliseconds = 10_000
    """Time for a request head to arrive."""
    handshake_timeout: Milliseconds = 10_000
    """Time for a TLS handshake."""
    keepalive_timeout: Milliseconds = 75_000
    """Time an idle connection is kept."""
    connection_age: Milliseconds = HOUR
    """Age from which on a connection takes no further request, so that clients spread anew."""
    connections: Count = 10_000
    """Connections of one worker."""
    connections_per_source: Count = 512
    """Connections of one worker from one source: an address, or an IPv6 network (/64)."""
    handshakes: Pace = rate("500/s burst 1000")
    """TLS handshakes of one worker. Who comes above it waits, unless its source is above its own rate."""
    handshakes_per_source: Pace = rate("50/s burst 50")
    """TLS handshakes from one source. What is above it waits up to two seconds or is closed unanswered."""
    handshaking: Count = 1000
    """TLS handshakes of one worker under way at once."""
    handshaking_per_source: Count = 64
    """TLS handshakes from one source under way at once."""
    requests_per_source: Pace = rate("1000/s burst 2000")
    """Requests from one source, before it is known who asks."""
    sign_in_per_source: Pace = rate("20/s burst 400")
    """Requests from one source to the portal by people who are not signed in."""
    quotas: tuple[Quota, ...] = Field(default=(), max_length=16)
    """Quotas of callers over all routes together, except the portal."""
    body: Bytes = 1 << 30
    """Size of a request body, unless the route says otherwise."""
    body_min_rate: Bytes = 256
    """What a client must send of a body, or take of an answer that waits for it, in a second on average."""
    body_grace: Milliseconds = 30_000
    """Time over which `body_min_rate` is looked at; a client below it is cut."""
    buffers: Bytes = 256 << 20
    """Memory of one worker for answers that wait for slow clients; above it those that hold most are cut."""

    @model_validator(mode="after")
    def _of_callers(self) -> "Limits":
        if any(quota.per == "route" for quota in self.quotas):
            raise wrong("`per: route` without a route", "write this quota below the route's `quotas`")
        return self


class Allow(Section):
    """Shorthand for permit policies; `ztproxy policy show` prints the Cedar text it stands for."""

    groups: tuple[Word, ...] = ()
    """People and workloads in any of these groups."""
    users: tuple[Word, ...] = ()
    """People by principal id, `PROVIDER:SUB`."""
    workloads: tuple[WorkloadId, ...] = ()
    """Workloads by id."""
    methods: tuple[Methods, ...] = ()
    """These methods only; default: every method."""
    device: Literal["any", "known", "healthy"] = "any"
    """`known`: an enrolled device that proved itself lately; `healthy`: that also reported a good state."""
    proof_max_age: Milliseconds | None = None
    """How old the device's proof may be; default: 12h."""
    posture_max_age: Milliseconds | None = None
    """How old the device's report may be; default: 15m."""

    @model_validator(mode="after")
    def _means_something(self) -> "Allow":
        if not (self.groups or self.users or self.workloads):
            raise wrong("nobody is named", "give `groups`, `users` or `workloads`")
        if self.device == "any" and (self.proof_max_age or self.posture_max_age):
            raise wrong("an age without a device", "write `device: known` or `device: healthy`")
        if self.device == "known" and self.posture_max_age:
            raise wrong("a report's age without a demand on the report", "write `device: healthy`")
        return self


class Route(Section):
    """An application: where it is asked for, where it lives, and what it may assume."""

    name: Name
    """`Route::"NAME"` of policies and records."""
    title: Line = ""
    """What people read; default: the name."""
    description: Line = ""
    """One line below the title."""
    app: Name | None = None
    """`App::"APP"` of policies, which can hold several routes; default: the name."""
    from_: From = Field(alias="from")
    """https://HOST or https://HOST/PREFIX/; the longest prefix wins."""
    to: To
    """Its upstream: http://HOST:PORT, https://HOST or unix:/PATH; or a list of targets, each an address or
    `{url: ADDRESS, weight: 1…100}`, which share the requests. A target may name a `connector` of its own."""
    connector: Name | None = None
    """Connectors that reach the upstream, by their name; `to` is then the address as they see it. Default:
    this node reaches it by itself."""
    client_certificate: Literal["off", "optional", "required"] = "optional"
    """Whether a TLS client certificate is asked for."""
    websocket: bool = True
    """Whether connections may be upgraded to WebSocket."""
    upgrades: tuple[UpgradeName, ...] = Field(default=(), max_length=20)
    """Further protocols that connections may be upgraded to. Policy is asked once, for the upgrade."""
    origins: tuple[BrowserOrigin, ...] = ()
    """Further origins whose pages may open WebSockets here; its own origin always may."""
    labels: tuple[Word, ...] = ()
    """`resource.labels` of policies."""
    tls: RouteTls | None = None
    """For an https upstream."""
    host_header: Annotated[str, AfterValidator(_header)] | None = None
    """Host sent to the upstream; default: the one that was asked for."""
    strip_prefix: bool = False
    """Whether the upstream gets paths without the prefix of `from`."""
    prefix: PathPrefix | None = None
    """Path prefix of the upstream, put in front of all paths."""
    request_headers: RequestHeaders | None = None
    """Changes of requests."""
    response_headers: ResponseHeaders | None = None
    """Changes of responses."""
    cors: Cors | None = None
    """Pages of other origins that may read answers; default: the upstream says so itself, or not."""
    timeouts: Timeouts = Timeouts()
    """Patience with the upstream."""
    retries: Annotated[int, Field(ge=0, le=5)] = 1
    """How often a request that got no byte of an answer is sent again, on a fresh connection: only GET, HEAD,
    OPTIONS, PUT and DELETE without a body."""
    health: Health | None = None
    """How targets are asked whether they are well; default: they are not asked."""
    ejection: Ejection | None = None
    """When a target of several is left out for failing requests."""
    max_body: Bytes | None = None
    """Size of a request body; default: `limits.body`."""
    quotas: tuple[Quota, ...] = Field(default=(), max_length=16)
    """Bounds on permitted requests to this route."""
    allow: Allow | None = None
    """Shorthand for a permit policy of this route."""
    public: tuple[PublicPath, ...] = ()
    """Shorthand for a permit policy that opens paths to everybody, signed in or not: `/assets/` with all that
    is below it, `/health` alone. A forbid still wins; WebSockets are not opened."""
    public_methods: tuple[Methods, ...] = ()
    """Methods that are open there; default: GET, HEAD and OPTIONS."""
