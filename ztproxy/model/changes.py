"""What a route changes in the messages that pass: worked out when the configuration is loaded.

Built by `config`, read by `gateway.rewriting` and `administrator.stamping`. A route that changes nothing has
none of this, and its requests pay for one look.
"""

from msgspec import Struct


class Rewrite(Struct, frozen=True, gc=False):
    """Two names for the same thing: `outer` is how callers speak of it, `inner` how the upstream does."""

    outer: str = "/"  # beginning of paths: "/" or "/x/"
    inner: str = "/"
    authorities: frozenset[str] = frozenset()  # the upstream's own, lower-case, as it may write them in URLs
    hosts: frozenset[str] = frozenset()  # the same without ports, as it may write them in cookies


class Changes(Struct, frozen=True, gc=False):
    """All that a route changes."""

    rewrite: Rewrite | None = None
