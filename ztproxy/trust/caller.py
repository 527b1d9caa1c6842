"""Who asks, as `trust.gather` found out."""

from typing import Final

from msgspec import Struct

from ztproxy.model.subject import ANONYMOUS, Facts


class Caller(Struct, frozen=True, gc=False):
    """Facts and what they came by: `handle` is the cookie's digest, `key` that or the certificate's
    fingerprint; "" without one."""

    facts: Facts
    handle: str = ""
    key: str = ""


NOBODY: Final = Caller(facts=Facts(principal=ANONYMOUS))
