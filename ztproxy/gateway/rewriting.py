"""Messages as the other side knows them: paths, hosts and fields changed as a route says.

Called by `gateway.forward` and `gateway.relay` for routes that change something. Pure. What is authorized and
recorded is the path as it was received; here a beginning of whole segments is put in place of another one, so
a path that can be read in one way only stays such a path.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

from ztproxy.gateway import cors
from ztproxy.model.changes import Changes, Rewrite
from ztproxy.wire import fields
from ztproxy.wire.heads import joined
from ztproxy.wire.http1 import RequestHead, ResponseHead

_URL: Final = re.compile(rb"(?:https?:)?//([^/?#\\]*)(/[^?#]*)?([?#].*)?", re.I | re.S).fullmatch
_PATH: Final = re.compile(rb"(/[^?#]*)(.*)", re.S).fullmatch
_REFRESH: Final = re.compile(rb"([0-9.]+[ \t]*[;,][ \t]*(?:url[ \t]*=[ \t]*)?[\"']?)(.+)", re.I).fullmatch


def request(changes: Changes, head: RequestHead) -> RequestHead:
    """Return a request's head as the upstream is to get it."""
    rewrite, rules = changes.rewrite, changes.request
    judged = changes.response is not None or changes.cors is not None
    target = head.target if rewrite is None else target_of(rewrite, head.target)
    return head.replaced(
        target=target,
        line=f"{head.method} {target} HTTP/1.1\r\n".encode("ascii"),
        fields=head.fields if rules is None else without(head.fields, rules.drop),
        trailers=head.trailers and not judged,  # what may not come first may not come last
    )


def without(lines: bytes, drop: frozenset[bytes]) -> bytes:
    """Return the header lines whose names, in whatever spelling, are not among these."""
    kept = [line for line in lines.split(b"\r\n")[:-1] if fields.plain(line[: line.find(b":")]) not in drop]
    return joined(kept)


def target_of(rewrite: Rewrite, target: str) -> str:
    """Return a request's target as the upstream knows it; it begins with `outer`, perhaps without its last
    slash."""
    outer = rewrite.outer
    return rewrite.inner + target[len(outer) if target.startswith(outer) else len(outer) - 1 :]


def response(changes: Changes, head: ResponseHead, request: RequestHead) -> ResponseHead:
    """Return a response's head as the client knows it."""
    rewrite, rules = changes.rewrite, changes.response
    lines = head.fields
    if rewrite is not None:
        authority = request.authority.encode("ascii")
        lines = b"\r\n".join(_turned(rewrite, line, authority) for line in lines.split(b"\r\n"))
    if rules is not None:
        lines = without(lines, rules.drop)
    if changes.cors is not None:
        lines = b"".join(line + b"\r\n" for line in lines.split(b"\r\n")[:-1] if not _speaks_of_cors(line))
    if head.status >= 200:  # interim ones gain nothing
        lines += rules.lines if rules is not None else b""
        lines += cors.lines(changes.cors, request) if changes.cors is not None else b""
    return head.replaced(fields=lines)


def _speaks_of_cors(line: bytes) -> bool:
    return line[:15].lower() == b"access-control-"


def _turned(rewrite: Rewrite, line: bytes, authority: bytes) -> bytes:
    name, _, value = line.partition(b":")
    turn = _TURNS.get(name.lower())
    return line if turn is None else name + b": " + turn(rewrite, value.strip(b" \t"), authority)


def location(rewrite: Rewrite, value: bytes, authority: bytes) -> bytes:
    """Return a URL of the upstream as one of ours; what leads elsewhere, or is relative, stays as it is.

    The result is absolute: "/" and "/evil.example" put together would lead away ("//evil.example").
    """
    found = _URL(value)
    if found is not None:
        whose = found[1].lower()
        if whose != authority and whose.decode("latin-1") not in rewrite.authorities:
            return value
        path = found[2] or b"/"
        return b"https://%b%b%b" % (authority, path_of(rewrite, path) or path, found[3] or b"")
    found = _PATH(value)
    if found is None or rewrite.outer == rewrite.inner:
        return value
    turned = path_of(rewrite, found[1])
    return value if turned is None else b"https://%b%b%b" % (authority, turned, found[2])


def path_of(rewrite: Rewrite, path: bytes) -> bytes | None:
    """Return a path of the upstream as callers know it, None when they can not reach it."""
    outer, inner = rewrite.outer.encode("ascii"), rewrite.inner.encode("ascii")
    if path.startswith(inner):
        return outer + path[len(inner) :]
    return outer[:-1] or b"/" if path == inner[:-1] else None


def set_cookie(rewrite: Rewrite, value: bytes, authority: bytes) -> bytes:
    """Return a cookie for our host: without the upstream's domain, and for the path that callers know."""
    pair, *attributes = value.split(b";")
    pinned = (
        pair.lstrip(b" \t").lower().startswith(b"__host-")
    )  # has to say Path=/ (RFC 6265bis section 4.1.3)
    kept = [pair]
    for attribute in attributes:
        name, _, text = attribute.partition(b"=")
        name, text = name.strip(b" \t").lower(), text.strip(b" \t")
        if name == b"domain" and _is_theirs(rewrite, text.lstrip(b".").lower(), authority):
            continue
        if name == b"path" and not pinned:
            attribute = b" Path=" + _cookie_path(rewrite, text)
        kept.append(attribute)
    return b";".join(kept)


def _is_theirs(rewrite: Rewrite, domain: bytes, authority: bytes) -> bool:
    """Tell whether a domain is the upstream's, or one that it belongs to, and our host does not."""
    names = [host.encode("ascii") for host in rewrite.hosts]
    return _is_inside(names, domain) and not _is_inside([authority.partition(b":")[0]], domain)


def _is_inside(hosts: Iterable[bytes], domain: bytes) -> bool:
    return any(host == domain or host.endswith(b"." + domain) for host in hosts)


def _cookie_path(rewrite: Rewrite, path: bytes) -> bytes:
    """Return a cookie's path; that of everything has no slash at its end, so that "/x" is part of it, too."""
    turned = path_of(rewrite, path)
    if turned is None:
        return path
    return turned[:-1] or b"/" if turned.decode("latin-1") == rewrite.outer else turned


def refresh(rewrite: Rewrite, value: bytes, authority: bytes) -> bytes:
    """Return the value of Refresh with its URL turned."""
    found = _REFRESH(value)
    return value if found is None else found[1] + location(rewrite, found[2], authority)


_TURNS: Final[dict[bytes, Callable[[Rewrite, bytes, bytes], bytes]]] = {
    b"location": location,
    b"content-location": location,
    b"refresh": refresh,
    b"set-cookie": set_cookie,
}
