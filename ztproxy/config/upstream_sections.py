"""The sections of a route that say how its upstream is reached. Used by `config.sections`."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from ztproxy.config.headers import Constants, CorsName, RequestName, ResponseName, Stamps
from ztproxy.config.secrets import wrong
from ztproxy.config.section import Section
from ztproxy.config.values import CorsOrigin, FilePath, HostName, KeyFile, Milliseconds, PlainPath

MINUTE: Final = 60_000

Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
Status = Annotated[int, Field(ge=200, le=599)]


class RouteTls(Section):
    """How an https upstream proves itself, and how we prove ourselves to it."""

    ca: FilePath | None = None
    """PEM file of authorities to trust instead of the system's."""
    server_name: HostName | None = None
    """Name its certificate must carry; default: the host of `to`."""
    certificate: FilePath | None = None
    """PEM file of the client certificate we show it, then its intermediates."""
    key: KeyFile | None = None
    """The certificate's private key, PEM without a passphrase, `file:PATH`."""

    @model_validator(mode="after")
    def _is_a_pair(self) -> "RouteTls":
        if (self.certificate is None) != (self.key is None):
            raise wrong("a certificate and its key belong together", "give both, or none")
        return self


class RequestHeaders(Section):
    """Fields of requests to the upstream."""

    set: Stamps = ()
    """Fields that come from us, `NAME: VALUE`; what callers send under a name, in any spelling, is dropped.
    Values may hold `${principal.id}`, `${principal.name}`, `${principal.groups}`, `${session.id}`,
    `${device.id}`, `${decision.id}` and `${route.name}`, percent-encoded; a field whose value comes out empty
    is not sent."""
    remove: tuple[RequestName, ...] = ()
    """Fields that do not pass."""


class ResponseHeaders(Section):
    """Fields of responses to the caller."""

    set: Constants = ()
    """Fields that come from us, `NAME: VALUE`, instead of the upstream's."""
    remove: tuple[ResponseName, ...] = ()
    """Fields that do not pass."""


class Cors(Section):
    """Pages of other origins that may read answers. Preflights are answered by ztproxy and never reach the
    upstream; whatever the upstream says in `Access-Control-*` is replaced."""

    origins: Annotated[tuple[CorsOrigin, ...], Field(min_length=1)]
    """Their origins as browsers send them; `["*"]` for all, without credentials."""
    methods: tuple[Method, ...] = ("GET", "HEAD", "POST")
    """Methods that pages may use."""
    headers: tuple[CorsName, ...] = ()
    """Request fields that pages may set; `["*"]` for all but Authorization, without credentials."""
    expose: tuple[CorsName, ...] = ()
    """Response fields that pages may read, besides the usual ones."""
    credentials: bool = False
    """Whether browsers send cookies along and let pages read what comes for them."""
    max_age: Milliseconds = 10 * MINUTE
    """How long browsers remember the answer to a preflight."""

    @model_validator(mode="after")
    def _says_what_it_means(self) -> "Cors":
        for name, values in (("origins", self.origins), ("headers", self.headers), ("expose", self.expose)):
            if "*" in values and len(values) > 1:
                raise wrong(f"`{name}` says * and more", "write * alone, or leave it out")
            if "*" in values and self.credentials:
                raise wrong(f"`{name}: [*]` with `credentials`", "list them, or remove `credentials`")
        return self


class Timeouts(Section):
    """Patience with an upstream."""

    connect: Milliseconds = 5_000
    """Time until a connection stands, TLS included."""
    response: Milliseconds = MINUTE
    """Time until the head of its response."""
    idle: Milliseconds = 5 * MINUTE
    """Time without a byte in either direction of a body or WebSocket."""


class Health(Section):
    """A question that every worker asks every target, so that requests need not find out. The answer's status
    counts, redirects are not followed, and nobody's identity is in it."""

    path: PlainPath
    """Path to ask for, by GET, as the upstream knows it."""
    interval: Milliseconds = 10_000
    """Time between two questions, give or take a tenth."""
    timeout: Milliseconds = 2_000
    """Time for connection and answer together."""
    healthy_after: Annotated[int, Field(ge=1, le=100)] = 2
    """So many good answers in a row make a target healthy again."""
    unhealthy_after: Annotated[int, Field(ge=1, le=100)] = 3
    """So many bad answers in a row, or none, make it unhealthy; it gets no requests then."""
    statuses: Annotated[tuple[Status, ...], Field(min_length=1)] = (200, 204)
    """Good answers."""

    @model_validator(mode="after")
    def _ends_before_the_next(self) -> "Health":
        if self.interval < 100:
            raise wrong("so many questions are a burden", "make `interval` 100ms or more")
        if self.timeout > self.interval:
            raise wrong("`timeout` is longer than `interval`", "make timeout the shorter one")
        return self


class Ejection(Section):
    """When one of several targets is left out because of requests it failed: connections that can not be
    made or break before an answer, answers that are not HTTP, and answers that do not come in time."""

    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """So many failures in a row leave a target out."""
    time: Milliseconds = 30_000
    """For how long, the first time; each further time takes twice as long."""
    longest: Milliseconds = 5 * MINUTE
    """At most this long; a target that was fine for this long begins anew."""
    share: Annotated[int, Field(ge=1, le=100)] = 50
    """Per cent of the targets that may be out at once; always at least one, never all."""
    statuses: tuple[Literal[502, 503, 504], ...] = ()
    """Answers that count as failures, too."""

    @model_validator(mode="after")
    def _grows(self) -> "Ejection":
        if self.time > self.longest:
            raise wrong("`time` is longer than `longest`", "make time the shorter one")
        return self
