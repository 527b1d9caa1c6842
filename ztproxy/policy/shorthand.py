"""The short way to say who may use a route, as Cedar text: never a second evaluator.

Called by `config` for `allow` and `public` of a route; `ztproxy policy` shows what came of it. The text is
loaded, validated, linted and evaluated like any other policy.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from ztproxy.policy.literals import duration
from ztproxy.policy.render import quote, uid_text
from ztproxy.policy.schema import METHODS
from ztproxy.policy.values import EvalError

#: What can be asked of the device, and the ages that go with it.
DEVICES: Final[dict[str, tuple[str, ...]]] = {
    "any": (),
    "known": ("proof_max_age",),
    "healthy": ("proof_max_age", "posture_max_age"),
}
POSTURE_MAX_AGE: Final = "15m"
PROOF_MAX_AGE: Final = "12h"

_KEYS: Final = frozenset(
    {"groups", "users", "workloads", "methods", "device", "posture_max_age", "proof_max_age"}
)


def render(route_name: str, allow: Mapping[str, object]) -> str:
    """Return the policies that permit what `allow` says. Raises ValueError saying what is wrong with it.

    `groups`, `users` (principal ids), `workloads` (SPIFFE ids): who, at least one of them; `methods`: all
    unless given; `device`: "any", "known" (proved not longer than `proof_max_age` ago) or "healthy" (also
    reported healthy not longer than `posture_max_age` ago). The device is asked of everybody listed.
    """
    unknown = sorted(set(allow) - _KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: known are {', '.join(sorted(_KEYS))}")
    groups, users, workloads = (_words(allow, key) for key in ("groups", "users", "workloads"))
    if not (groups or users or workloads):
        raise ValueError("nobody is named: give groups, users or workloads")
    scope = f"{_action(_words(allow, 'methods'))}, resource == {uid_text('Route', route_name)}"
    device = _device(allow)
    people = _members(("Group", groups), ("User", users))
    machines = _members(("Group", groups), ("Workload", workloads))
    return "\n".join(
        _permit(f"{route_name}-{suffix}", kind, members, scope, device)
        for suffix, kind, members in (("users", "User", people), ("workloads", "Workload", machines))
        if members
    )


def render_public(route_name: str, paths: Iterable[str], methods: Iterable[str] = ()) -> str:
    """Return the policy that opens these paths of a route to everybody. Raises ValueError.

    A path that ends with "/" stands for everything below it, any other for itself alone. `methods`: reading
    ones unless given. WebSockets are not opened: they read and write.
    """
    listed = list(dict.fromkeys(paths))
    bad = [path for path in listed if not path.startswith("/") or set(path) & set('*\\"')]
    if bad or not listed:
        raise ValueError(f"{bad[0]!r} is no plain path" if bad else "no path is named")
    named = list(dict.fromkeys(methods))
    action = _action(named) if named else 'action in Action::"read"'
    opened = "\n  || ".join(
        f"context.path like {quote(f'{path}*')}" if path.endswith("/") else f"context.path == {quote(path)}"
        for path in listed
    )
    return (
        f"@id({quote(f'{route_name}-public')})\n"
        f"permit (principal, {action}, resource == {uid_text('Route', route_name)})\n"
        f'when {{ context.protocol == "http" }}\n'
        f"when {{ {opened} }};\n"
    )


def _members(*lists: tuple[str, list[str]]) -> str:
    """Return the condition that the principal is among these; a set of Cedar holds one type only."""
    parts = [
        f"principal in [{', '.join(uid_text(kind, name) for name in names)}]"
        for kind, names in lists
        if names
    ]
    return parts[0] if len(parts) == 1 else f"({' || '.join(parts)})" if parts else ""


def _permit(name: str, kind: str, members: str, scope: str, device: Iterable[str]) -> str:
    conditions = "\n  && ".join((members, *device))
    head = f"@id({quote(name)}) @reason({quote(REASON)})"
    return f"{head}\npermit (principal is {kind}, {scope})\nwhen {{ {conditions} }};\n"


#: What the caller may hear when such a permit did not apply.
REASON: Final = "This application is open to certain people, workloads and devices."


def _action(methods: list[str]) -> str:
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}: known are {', '.join(METHODS)}")
    if not methods:
        return 'action in Action::"http"'
    return f"action in [{', '.join(uid_text('Action', name) for name in methods)}]"


def _device(allow: Mapping[str, object]) -> list[str]:
    wanted = allow.get("device", "any")
    if not isinstance(wanted, str) or wanted not in DEVICES:
        raise ValueError(f"device {wanted!r} is none of {', '.join(DEVICES)}")
    for key in ("posture_max_age", "proof_max_age"):
        if key in allow and key not in DEVICES[wanted]:
            raise ValueError(f"{key} means nothing with device: {wanted}")
    posture = _age(allow, "posture_max_age", POSTURE_MAX_AGE)
    proof = _age(allow, "proof_max_age", PROOF_MAX_AGE)
    if wanted == "any":
        return []
    known = [
        "principal has device",
        "principal.device has proved_at",
        f"context.now.durationSince(principal.device.proved_at) <= duration({quote(proof)})",
    ]
    if wanted == "known":
        return known
    return [
        *known,
        "principal.device has posture",
        "principal.device.posture.healthy",
        f"context.now.durationSince(principal.device.posture.reported_at) <= duration({quote(posture)})",
    ]


def _age(allow: Mapping[str, object], key: str, default: str) -> str:
    """Return an age as Cedar writes it; given as text or as a number of ms."""
    given = allow.get(key, default)
    text = _written(given) if type(given) is int else given
    try:
        if not isinstance(text, str) or duration(text).ms <= 0:
            raise EvalError
    except EvalError:
        raise ValueError(f"{key} {given!r} is no duration like 15m") from None
    return text


def _written(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def _words(allow: Mapping[str, object], key: str) -> list[str]:
    words = allow.get(key, ())
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"{key} is not a list of names")
    return list(dict.fromkeys(words))
