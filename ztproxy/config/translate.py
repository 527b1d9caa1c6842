"""Settings into values of the model.

Called by `settings` only. Pure: what it needs is in the settings.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ztproxy.administrator.signals.streams import Told
from ztproxy.model.changes import Changes, Cors, RequestFields, ResponseFields, Rewrite
from ztproxy.model.endpoints import OWN, SIGNALS
from ztproxy.model.quota import Quota, Rate
from ztproxy.model.resource import Ejection, HealthCheck, Target, Targets, Upstream
from ztproxy.model.route import Route
from ztproxy.trust.identity.provider import Provider
from ztproxy.trust.signals.events import DEFAULTS, URIS
from ztproxy.trust.signals.transmitter import OAuth, Transmitter
from ztproxy.wire.carrying import PROTOCOL
from ztproxy.wire.fields import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ztproxy.config import sections, signal_sections, upstream_sections
    from ztproxy.config.settings import Settings

#: Names of the built-in routes, `Route::"portal"` of policies.
PORTAL = "portal"
CONNECTORS = "ztproxy-connectors"


def origin(host: str, port: int) -> str:
    """Return the https origin as browsers write it: without the default port."""
    return f"https://{host}" if port == 443 else f"https://{host}:{port}"


def routes(settings: "Settings") -> tuple[Route, ...]:
    """Return the configured routes in the order of the file."""
    everywhere = _quotas(settings.limits.quotas, "")
    alike: dict[Upstream, Upstream] = {}  # equal ones are one object: pools find those sooner
    return tuple(_route(entry, settings.limits.body, everywhere, alike) for entry in settings.route_settings)


def portal_routes(settings: "Settings") -> tuple[Route, ...]:
    """Return the route of the portal: its whole host, and our own endpoints on every other host."""
    socket = str(settings.state_dir / "run" / "portal.sock")
    whole = Route(
        name=PORTAL,
        app=PORTAL,
        host=settings.portal.host,
        prefix="/",
        upstream=Upstream(scheme="unix", host=socket, port=0),
        title=settings.portal.title,
        max_body=1 << 20,
        portal=True,
        quotas=_sign_in(settings.limits.sign_in_per_source),
    )
    others = sorted(settings.hosts() - {settings.portal.host})
    return (whole, *(whole.replaced(host=host, prefix=OWN) for host in others))


def connector_routes(settings: "Settings") -> tuple[Route, ...]:
    """Return the route on which connectors dial in, if they may. It leads to no upstream: they are one."""
    if settings.connectors is None:
        return ()
    return (
        Route(
            name=CONNECTORS,
            app=CONNECTORS,
            host=settings.connectors.host,
            prefix="/",
            upstream=Upstream(scheme="unix", host="/nonexistent", port=0),
            title="Connectors",
            client_certificate="required",
            upgrades=frozenset({PROTOCOL}),
            carries=True,
        ),
    )


def providers(settings: "Settings") -> tuple[Provider, ...]:
    """Return our registrations at identity providers, in the order of the file."""
    return tuple(
        Provider(
            name=entry.name,
            title=entry.title or entry.name,
            issuer=entry.issuer,
            client_id=entry.client_id,
            client_secret=entry.client_secret.reveal(),
            scopes=_scopes(entry.scopes, offline=entry.offline),
            groups_claim=entry.groups_claim,
            algorithms=entry.algorithms,
            ca=str(entry.ca or ""),
        )
        for entry in settings.identity.providers
    )


def transmitters(settings: "Settings") -> tuple[Transmitter, ...]:
    """Return who tells us, in the order of the file."""
    everybody = tuple(provider.name for provider in settings.identity.providers)
    return tuple(
        Transmitter(
            name=entry.name,
            issuer=entry.issuer,
            audiences=entry.audience or (settings.portal_origin,),
            delivery=entry.delivery,
            providers=everybody if entry.providers is None else entry.providers,
            issuers={one.issuer: one.provider for one in entry.issuers},
            device_names=entry.device_names,
            events=tuple(URIS[name] for name in entry.events or DEFAULTS),
            actions={one.event: one.do for one in entry.actions},
            max_age=entry.max_age,
            verify_every=entry.verify,
            authorization=entry.authorization.reveal() if entry.authorization else "",
            token=entry.token.reveal() if entry.token else "",
            oauth=_oauth(entry.oauth) if entry.oauth else None,
            managed=entry.token is not None or entry.oauth is not None,
            endpoint=f"{settings.portal_origin}{SIGNALS}push/{entry.name}",
            ca=str(entry.ca or ""),
        )
        for entry in settings.signals.transmitters
    )


def told(settings: "Settings") -> tuple[Told, ...]:
    """Return whom we tell, in the order of the file."""
    return tuple(
        Told(entry.name, entry.secret.reveal(), entry.audience, entry.subjects, entry.events)
        for entry in settings.signals.receivers
    )


def _oauth(entry: "signal_sections.OAuth") -> OAuth:
    return OAuth(entry.token_endpoint, entry.client_id, entry.client_secret.reveal(), entry.scopes)


def _scopes(scopes: tuple[str, ...], *, offline: bool) -> tuple[str, ...]:
    return (*scopes, "offline_access") if offline and "offline_access" not in scopes else scopes


def _sign_in(rate: Rate | None) -> tuple[Quota, ...]:
    """Bound what strangers get permitted: each such request leaves records."""
    return (Quota("source", rate, strangers=True),) if rate is not None else ()


def _quotas(entries: "Iterable[sections.Quota]", scope: str) -> tuple[Quota, ...]:
    return tuple(Quota(entry.per, entry.rate, entry.concurrent or 0, scope) for entry in entries)


def _route(
    entry: "sections.Route", body: int, everywhere: tuple[Quota, ...], alike: dict[Upstream, Upstream]
) -> Route:
    upstreams = [_upstream(entry, target.upstream) for target in entry.to]
    targets = tuple(
        Target(alike.setdefault(upstream, upstream), target.weight)
        for upstream, target in zip(upstreams, entry.to, strict=True)
    )
    return Route(
        name=entry.name,
        app=entry.app or entry.name,
        host=entry.from_.host,
        prefix=entry.from_.prefix,
        upstream=targets[0].upstream,
        changes=_changes(entry, targets),
        targets=_targets(entry, targets),
        title=entry.title or entry.name,
        description=entry.description,
        labels=frozenset(entry.labels),
        client_certificate=entry.client_certificate,
        upgrades=frozenset((*entry.upgrades, *(("websocket",) if entry.websocket else ()))),
        connect_timeout=entry.timeouts.connect / 1000,
        response_timeout=entry.timeouts.response / 1000,
        idle_timeout=entry.timeouts.idle / 1000,
        retries=entry.retries,
        max_body=entry.max_body or body,
        origins=frozenset(entry.origins),
        quotas=everywhere + _quotas(entry.quotas, entry.name),
    )


def _changes(entry: "sections.Route", targets: tuple[Target, ...]) -> Changes | None:
    """Return what is changed in messages; None where nothing is: then requests pay for nothing."""
    changes = Changes(
        rewrite=_rewrite(entry, targets) if entry.strip_prefix or entry.prefix or entry.host_header else None,
        request=_request_fields(entry.request_headers) if entry.request_headers else None,
        response=_response_fields(entry.response_headers) if entry.response_headers else None,
        cors=_cors(entry.cors) if entry.cors else None,
    )
    return None if changes == Changes() else changes


def _cors(entry: "upstream_sections.Cors") -> Cors:
    credentials = {"Access-Control-Allow-Credentials": "true"} if entry.credentials else {}
    return Cors(
        origins=frozenset(entry.origins) - {"*"},
        preflight=_lines(
            {
                "Access-Control-Allow-Methods": ", ".join(entry.methods),
                "Access-Control-Allow-Headers": ", ".join(entry.headers),
                **credentials,
                "Access-Control-Max-Age": str(entry.max_age // 1000),
            }
        ),
        actual=_lines({**credentials, "Access-Control-Expose-Headers": ", ".join(entry.expose)}),
    )


def _lines(fields: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value).encode("ascii")


def _request_fields(entry: "upstream_sections.RequestHeaders") -> RequestFields:
    dropped = (*(stamp.name for stamp in entry.set), *entry.remove)
    return RequestFields(entry.set, frozenset(plain(name.encode("ascii")) for name in dropped))


def _response_fields(entry: "upstream_sections.ResponseHeaders") -> ResponseFields:
    dropped = (*(name for name, _ in entry.set), *entry.remove)
    return ResponseFields(
        _lines(dict(entry.set)),
        frozenset(plain(name.encode("ascii")) for name in dropped),
    )


def _rewrite(entry: "sections.Route", targets: tuple[Target, ...]) -> Rewrite:
    """Return both names of what a route leads to. An upstream knows itself by its address, or by the Host it
    gets."""
    own = {target.upstream.authority for target in targets} - {""}
    own |= {authority.removesuffix(port) for authority in own for port in (":80", ":443")}
    if entry.host_header:
        own.add(entry.host_header.lower())
    return Rewrite(
        outer=entry.from_.prefix if entry.strip_prefix else "/",
        inner=entry.prefix or "/",
        authorities=frozenset(own),
        hosts=frozenset(re.sub(r":[0-9]+$", "", authority) for authority in own),
    )


def _targets(entry: "sections.Route", targets: tuple[Target, ...]) -> Targets | None:
    """Return what has to be chosen or watched; None where neither is: then requests pay for nothing."""
    if len(targets) == 1 and entry.health is None:
        return None
    return Targets(
        all=targets,
        ejection=_ejection(entry.ejection) if entry.ejection else Ejection(),
        health=_health(entry.health, entry.host_header or entry.from_.host) if entry.health else None,
    )


def _health(entry: "upstream_sections.Health", host: str) -> HealthCheck:
    return HealthCheck(
        path=entry.path,
        host=host,
        interval=entry.interval / 1000,
        patience=entry.timeout / 1000,
        healthy_after=entry.healthy_after,
        unhealthy_after=entry.unhealthy_after,
        statuses=frozenset(entry.statuses),
    )


def _ejection(entry: "upstream_sections.Ejection") -> Ejection:
    return Ejection(
        failures=entry.failures,
        least=entry.time / 1000,
        longest=max(entry.longest, entry.time) / 1000,
        share=entry.share,
        statuses=frozenset(entry.statuses),
    )


def _upstream(entry: "sections.Route", target: Upstream) -> Upstream:
    tls = entry.tls
    return replace(
        target,
        connector=target.connector or entry.connector or "",
        server_name=tls.server_name if tls else None,
        ca=str(tls.ca) if tls and tls.ca else None,
        host_header=entry.host_header,
        certificate=str(tls.certificate) if tls and tls.certificate else None,
        key=str(tls.key.path) if tls and tls.key else None,
    )
