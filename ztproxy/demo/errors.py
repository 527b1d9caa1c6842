"""What can keep the demo from running, in words for the person who started it."""


class DemoProblem(Exception):
    """Something is wrong; `remedy` says what to do about it."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy
