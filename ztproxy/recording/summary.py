"""Where records lie and what is known of sessions: the values of the log and its catalogue."""

from msgspec import Struct


class Run(Struct, frozen=True):
    """Where records lie that follow each other in one file of the log."""

    n: int  # number of the first one
    file: int
    offset: int  # of the first one
    lengths: list[int]  # of each line, without its line break


class Summary(Struct):
    """What is known of one session without reading its records. Times in ms since the epoch."""

    id: str
    principal: str = ""
    name: str = ""
    device: str = ""
    ip: str = ""
    first: int = 0
    last: int = 0
    started_at: int = 0  # 0: not seen to start (or no session at all)
    ended_at: int = 0  # 0: not seen to end
    ended: str = ""  # how
    permitted: int = 0
    refused: int = 0
    open: int = 0  # permitted and not finished
    received: int = 0  # bytes
    sent: int = 0
    records: int = 0


class Reached(Struct, frozen=True):
    """How far the catalogue goes."""

    file: int = 1
    offset: int = 0
    count: int = 0
