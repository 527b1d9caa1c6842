"""The events of CAEP 1.0, RISC 1.0 and SSF 1.0 by their URIs, and what each does unless configured otherwise.

Called by `trust.signals.token`, the configuration and `administrator.signals`. Pure.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"

#: What can be done about an event. "end": sessions of the subject that began before it are over; "recheck":
#: the identity provider is asked anew; "note": risk or compliance becomes a fact for policies; "lock": the
#: subject is locked until "unlock" of the same source.
Action = Literal["end", "recheck", "note", "lock", "unlock"]

#: Event -> what is done about it by default: the safe thing.
DEFAULTS: Final[dict[str, tuple[Action, ...]]] = {
    # CAEP
    "session-revoked": ("end",),
    "token-claims-change": ("recheck",),
    "credential-change": ("end",),
    "assurance-level-change": ("end",),
    "device-compliance-change": ("note", "end"),
    "session-established": (),
    "session-presented": (),
    "risk-level-change": ("note", "end"),
    # RISC
    "account-credential-change-required": ("end",),
    "account-purged": ("lock", "end"),
    "account-disabled": ("lock", "end"),
    "account-enabled": ("unlock",),
    "identifier-changed": ("recheck",),
    "identifier-recycled": ("end",),
    "credential-compromise": ("end",),
    "opt-in": (),
    "opt-out-initiated": (),
    "opt-out-cancelled": (),
    "opt-out-effective": (),
    "recovery-activated": ("end",),
    "recovery-information-changed": ("recheck",),
    "sessions-revoked": ("end",),
}

VERIFICATION: Final = "verification"
STREAM_UPDATED: Final = "stream-updated"

_CAEP: Final = tuple(DEFAULTS)[:8]

#: URI -> name. Some senders put account events below CAEP.
NAMES: Final[dict[str, str]] = {
    **{CAEP + name: name for name in _CAEP},
    **{RISC + name: name for name in DEFAULTS if name not in _CAEP},
    **{CAEP + name: name for name in ("account-disabled", "account-enabled", "account-purged")},
    **{SSF + name: name for name in (VERIFICATION, STREAM_UPDATED)},
}

#: Name -> URI, as the standards write it.
URIS: Final[dict[str, str]] = {
    **{name: (CAEP if name in _CAEP else RISC) + name for name in DEFAULTS},
    **{name: SSF + name for name in (VERIFICATION, STREAM_UPDATED)},
}

#: Account events change one thing back and forth: the newest of them holds, whatever order they come in.
ACCOUNT: Final = frozenset({"account-disabled", "account-purged", "account-enabled"})


def actions_for(
    name: str, members: Mapping[str, Any], configured: Mapping[str, tuple[Action, ...]]
) -> tuple[Action, ...]:
    """Return what to do about an event: what is configured for it, as far as its content gives reason to.

    What an event leaves open counts as the worse case.
    """
    wanted = configured.get(name, DEFAULTS.get(name, ()))
    return wanted if _worrying(name, members) else tuple(one for one in wanted if one == "note")


def _worrying(name: str, members: Mapping[str, Any]) -> bool:
    if name == "credential-change":
        return members.get("change_type") != "create"
    if name == "assurance-level-change":
        return members.get("change_direction") != "increase"
    if name == "device-compliance-change":
        return members.get("current_status") != "compliant"
    if name == "risk-level-change":
        return members.get("current_level") not in ("LOW", "MEDIUM")
    return True
