"""The bounds of the data plane, as one frozen value. Made by `service` from settings."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    head: int = 32 << 10
    head_timeout: float = 10.0
    keepalive_timeout: float = 75.0
    connection_age: float = 3600.0
    body_min_rate: int = 256  # bytes/s that a body has to come with, and that an answer has to be taken with
    body_grace: float = 30.0  # over which that is looked at
    buffers: int = 256 << 20  # of answers that wait for their clients, all together
