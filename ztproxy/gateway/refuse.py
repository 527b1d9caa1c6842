"""Refusals of the gateway itself, from the tables of stable codes and flaws, and as bytes of HTTP. Pure."""

from ztproxy.gateway import refusals
from ztproxy.model.codes import CODES
from ztproxy.model.decision import Refusal
from ztproxy.wire.flaws import FLAWS
from ztproxy.wire.http1 import RequestHead


def refusal_of(word: str, request_id: str, *, close: bool = False) -> Refusal:
    """Return the refusal for a code, or for a flaw of a request, which tells its code."""
    code, detail = (FLAWS[word][0], word) if word in FLAWS else (word, "")
    status, sentence = CODES[code]
    return Refusal(
        code=code, status=status, decision_id=request_id, reason=sentence, close=close, detail=detail
    )


def refused_bytes(refusal: Refusal, head: RequestHead | None, keep: bool, date: str, extra: str) -> bytes:
    """Return the response to a request; without a head to one that could not be read."""
    if head is None:
        return refusals.render(
            refusal,
            navigation=False,
            method="",
            host="",
            target="",
            head_only=False,
            keep_alive=keep,
            date=date,
            extra=extra,
        )
    return refusals.render(
        refusal,
        navigation=head.navigation,
        method=head.method,
        host=head.authority,
        target=head.target,
        head_only=head.method == "HEAD",
        keep_alive=keep,
        date=date,
        extra=extra,
    )
