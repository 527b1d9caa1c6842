"""The seal that makes a Permit genuine.

Only `ztproxy.model.permit` (which checks it) and `ztproxy.administrator.access` (which holds the door)
may import this module; import-linter's contract "only the access door mints permits" keeps it so.
"""

from typing import Final


class Seal:
    """A type with exactly one instance, compared by identity."""

    __slots__ = ()


SEAL: Final = Seal()
