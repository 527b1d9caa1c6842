"""A caller as policies see it. Made by `entities`, read by `engine` for every request.

Apart from what makes it, because that has to look at values whose types nobody has checked: compiled code
would take True for 1.
"""

from dataclasses import dataclass, field

from ztproxy.policy.folded import Remainder
from ztproxy.policy.program import Slice
from ztproxy.policy.values import Entity, Record


@dataclass(frozen=True, slots=True)
class Subject:
    """A caller as policies see it. Opaque to other rooms; keep it until the facts change."""

    entity: Entity
    uncertain: bool = False  # some fact is UNKNOWN
    feed_age: int = 0  # ms, at the time of the facts
    sources: Record = field(default_factory=dict)  # of facts, by name
    fault: str = ""  # why nothing can be decided about this caller
    kind: str = field(init=False)  # the entity type
    #: What is left to ask of this caller, by slice (`folded`); None after its first request.
    left: dict[Slice, Remainder | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.entity.uid.type)
