"""A network namespace of one's own: loopback, nothing else, and nobody outside can reach what listens in it.

Used by `demo.apart` and by the tests that set a proxy and an application apart. An ordinary user gets one
inside a user namespace, where the machine allows that (user_namespaces(7)). Whoever holds it is a process
that ends with ours, whatever happens to us, and the kernel then removes everything in it.
"""

import os
import shutil
import subprocess
from typing import Final, Self

_READY: Final = b"up\n"
_HOLD: Final = "ip link set lo up && echo up && exec cat"  # until our end of its standard input is closed
_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
PATIENCE: Final = 10.0  # seconds that what is run inside may take


class NotAllowed(Exception):
    """This machine lets us make none; the message says why."""


class Namespace:
    """Open until `close`. With `beside` both belong to one user namespace, so they can be joined."""

    def __init__(self, beside: "Namespace | None" = None) -> None:
        """Raises NotAllowed."""
        self._privileged = os.geteuid() == 0
        missing = [one for one in ("ip", "nsenter", "unshare") if shutil.which(one, path=_PATH) is None]
        if missing:
            raise NotAllowed(f"{', '.join(missing)} not found")
        self._holder = subprocess.Popen(
            [*self._where(beside), "--net", "--", "sh", "-c", _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PATH": _PATH},
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != _READY:
            said = self._holder.communicate()[1].decode(errors="replace").strip()
            raise NotAllowed(said or "the kernel says no")

    def _where(self, beside: "Namespace | None") -> list[str]:
        if self._privileged:
            return ["unshare"]
        if beside is None:
            return ["unshare", "--user", "--map-root-user"]
        return ["nsenter", "--target", str(beside.pid), "--user", "--preserve-credentials", "unshare"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process that holds it."""
        return self._holder.pid

    @property
    def enter(self) -> list[str]:
        """What to write before a command so that it runs inside."""
        user = [] if self._privileged else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.pid), *user, "--net", "--"]

    def run(self, *command: str, patience: float = PATIENCE) -> str:
        """Run a command inside; return what it printed. Raises subprocess.CalledProcessError."""
        done = subprocess.run(
            [*self.enter, *command],
            capture_output=True,
            check=True,
            text=True,
            timeout=patience,
            env={**os.environ, "PATH": _PATH},
        )
        return done.stdout

    def close(self) -> None:
        """Let go of it: it is gone with the last process in it."""
        for pipe in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            if pipe is not None:
                pipe.close()
        try:
            self._holder.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
