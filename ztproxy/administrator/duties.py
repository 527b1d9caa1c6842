"""What a permit obliges to besides letting through: alerts, and an earlier end.

Called by `administrator.access` for decisions that carry obligations. Never decides.
"""

import logging
from functools import lru_cache

from ztproxy.model.decision import Decision
from ztproxy.model.durations import milliseconds
from ztproxy.model.request import AccessRequest
from ztproxy.trust.caller import Caller

log = logging.getLogger("ztproxy.access")


def raise_alerts(request: AccessRequest, caller: Caller, decision: Decision) -> None:
    """Honour @alert: whoever watches the log learns of every use."""
    for name, value in decision.obligations:
        if name == "alert":
            log.warning(
                "alert",
                extra={
                    "alert": value,
                    "decision": request.context.request_id,
                    "principal": caller.facts.principal.id,
                    "resource": request.resource.id,
                    "policies": ",".join(decision.policies),
                },
            )


def earlier(ends: int, obligations: tuple[tuple[str, str], ...], now: int) -> int:
    """A @maxsession obligation ends the path before the session would."""
    for name, value in obligations:
        if name == "maxsession":
            ends = min(ends, now + _duration(value))
    return ends


#: The few durations that policies name. What is none is 0, at once: a typo only closes doors.
_duration = lru_cache(maxsize=256)(milliseconds)
