"""Where things lie below the state directory."""

from pathlib import Path


class StateDirectory:
    """Paths of one node's state. Nothing is readable by others: keys and evidence lie here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "ztproxy.db"
        self.keys = root / "keys"
        self.ca = root / "ca"
        self.recordings = root / "recordings"
        self.journals = root / "journals"
        self.run = root / "run"
        self.control = self.run / "control.sock"
        self.portal = self.run / "portal.sock"
        self.admin = self.run / "admin.sock"
        self.pid = self.run / "supervisor.pid"
        self.lock = self.run / "lock"

    def lending(self, worker: int) -> Path:
        """Where the other workers ask this one for a connection."""
        return self.run / f"lend{worker}.sock"

    def prepare(self) -> None:
        """Create the directories with mode 0700. Raises OSError."""
        for directory in (self.root, self.keys, self.ca, self.recordings, self.journals, self.run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
