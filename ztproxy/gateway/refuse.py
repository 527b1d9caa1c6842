"""Refusals that the gateway makes by itself, from the tables of stable codes and flaws. Pure."""

from ztproxy.model.codes import CODES
from ztproxy.model.decision import Refusal
from ztproxy.wire.flaws import FLAWS


def refusal_of(word: str, request_id: str, *, close: bool = False) -> Refusal:
    """Return the refusal for a code, or for a flaw of a request, which tells its code."""
    code, detail = (FLAWS[word][0], word) if word in FLAWS else (word, "")
    status, sentence = CODES[code]
    return Refusal(
        code=code, status=status, decision_id=request_id, reason=sentence, close=close, detail=detail
    )
