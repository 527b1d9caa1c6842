"""What the policy engine answered. Never written down as it is: `administrator.evidence` makes records of it.

Apart from `decision`, which offers it too: values that are encoded somewhere can not be compiled.
"""

from typing import ClassVar, Final, Literal, final

from ztproxy.model.frozen import Frozen
from ztproxy.model.native import mypyc_attr

DecisionKind = Literal["permit", "forbid", "default-deny", "error"]


@final
@mypyc_attr(acyclic=True)
class Decision(Frozen):
    """One answer of the policy engine."""

    __slots__ = ("allow", "errors", "kind", "obligations", "policies")

    FIELDS: ClassVar[tuple[str, ...]] = ("allow", "kind", "policies", "errors", "obligations")

    def __init__(
        self,
        allow: bool,
        kind: DecisionKind,
        policies: tuple[str, ...] = (),
        errors: tuple[str, ...] = (),
        obligations: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.allow: Final = allow
        self.kind: Final = kind
        self.policies: Final = policies  # @id of the determining policies
        self.errors: Final = errors  # "policy-id: what went wrong"
        self.obligations: Final = obligations  # annotations of the determining permits: (("record", "full"),)
