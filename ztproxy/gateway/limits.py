"""The bounds of the data plane, as one frozen value. Made by `service` from settings."""

from msgspec import Struct


class Limits(Struct, frozen=True):
    """Sizes in bytes, times in seconds."""

    head: int = 32 << 10
    head_timeout: float = 10.0
    keepalive_timeout: float = 75.0
