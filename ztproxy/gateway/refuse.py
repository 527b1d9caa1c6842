"""Refusals that the gateway makes by itself, from the table of stable codes. Pure."""

from ztproxy.model.codes import CODES
from ztproxy.model.decision import Refusal


def refusal_of(code: str, request_id: str, *, close: bool = False) -> Refusal:
    """Return the refusal of a code, for the request with this id."""
    status, sentence = CODES[code]
    return Refusal(code=code, status=status, decision_id=request_id, reason=sentence, close=close)
