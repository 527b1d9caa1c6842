"""Looks at this device: one function per check, each answering pass, fail or unknown.

Called by the agent's reporting, in a thread: they read a few files under /sys, /proc and /etc, and ask two
programs. What can not be read is unknown; no check guesses in the device's favour.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ztproxy.crypto.posture_document import Observation
from ztproxy.model.subject import CheckResult

SOURCE: Final = "ztproxy-agent"

#: Package lists older than this (ms) say that nobody looked for updates.
UPDATES_AGE: Final = 30 * 86_400_000

_SECURE_BOOT: Final = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_UPDATES: Final = (
    "var/lib/apt/periodic/update-success-stamp",
    "var/lib/apt/lists",
    "var/lib/dpkg/status",
    "var/cache/dnf",
    "var/lib/rpm",
    "var/lib/pacman/sync",
    "lib/apk/db/installed",
)

Check = Callable[[Path, int], CheckResult]


def collect(now: int, root: Path = Path("/")) -> dict[str, Observation]:
    """Return every check of this device, observed at `now` (ms)."""
    seconds = now // 1000
    return {name: Observation(_careful(check, root, now), seconds) for name, check in CHECKS.items()}


def os_name(root: Path = Path("/")) -> str:
    """Return what the system calls itself, "" when it does not say."""
    try:
        lines = (root / "etc/os-release").read_text("utf-8").splitlines()
        named = next(line for line in lines if line.startswith("PRETTY_NAME="))
        words = shlex.split(named.partition("=")[2])
    except (OSError, ValueError, StopIteration):
        return ""
    name = words[0] if words else ""
    return "".join(character for character in name if character.isprintable())[:128]


def disk_encrypted(root: Path, _now: int) -> CheckResult:
    """Whether the root file system lies on dm-crypt, LVM and RAID in between included."""
    number = _root_device(root)
    device = root / "sys/dev/block" / number
    if number.startswith("0:") or not device.exists():
        return "unknown"  # an overlay or a container: what lies below can not be seen from here
    return "pass" if _encrypted(device, 0) else "fail"


def firewall(root: Path, _now: int) -> CheckResult:
    """Whether something filters what comes in: ufw, firewalld, or rules of nftables."""
    if _ufw_enabled(root) or (root / "run/firewalld").is_dir():
        return "pass"
    answer = _ask("nft", "-j", "list", "ruleset")
    if answer is None:
        return "unknown"
    return "pass" if _filters_input(json.loads(answer)) else "fail"


def screen_lock(_root: Path, _now: int) -> CheckResult:
    """Whether the desktop locks itself; without a desktop there is nothing to know."""
    if not (os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")):
        return "unknown"
    answer = _ask("gsettings", "get", "org.gnome.desktop.screensaver", "lock-enabled")
    return {"true": "pass", "false": "fail"}.get((answer or "").strip(), "unknown")  # type: ignore[return-value]


def secure_boot(root: Path, _now: int) -> CheckResult:
    """Whether the firmware verified what it started: the fifth byte of the variable after four of flags."""
    value = (root / _SECURE_BOOT).read_bytes()
    return "unknown" if len(value) != 5 else "pass" if value[4] == 1 else "fail"


def os_current(root: Path, now: int) -> CheckResult:
    """Whether somebody looked for updates lately."""
    found = [path.stat().st_mtime_ns // 1_000_000 for name in _UPDATES if (path := root / name).exists()]
    if not found:
        return "unknown"
    return "pass" if now - max(found) <= UPDATES_AGE else "fail"


CHECKS: Final[dict[str, Check]] = {
    "disk_encrypted": disk_encrypted,
    "firewall": firewall,
    "os_current": os_current,
    "screen_lock": screen_lock,
    "secure_boot": secure_boot,
}


def _careful(check: Check, root: Path, now: int) -> CheckResult:
    try:
        return check(root, now)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "unknown"


def _root_device(root: Path) -> str:
    """ "MAJOR:MINOR" of what is mounted on /; the last mount is the one seen (proc(5), mountinfo)."""
    lines = (root / "proc/self/mountinfo").read_text("utf-8").splitlines()
    return [fields[2] for line in lines if len(fields := line.split()) > 4 and fields[4] == "/"][-1]


def _encrypted(device: Path, depth: int) -> bool:
    """A mapping by dm-crypt, or one of nothing but such mappings. Partitions look at their disk's own."""
    uuid = device / "dm/uuid"
    if uuid.exists() and uuid.read_text("ascii").startswith("CRYPT-"):
        return True
    folder = device / "slaves"
    below = list(folder.iterdir()) if folder.is_dir() else []
    return depth < 8 and bool(below) and all(_encrypted(slave, depth + 1) for slave in below)


def _ufw_enabled(root: Path) -> bool:
    path = root / "etc/ufw/ufw.conf"
    try:
        return "ENABLED=yes" in path.read_text("utf-8").split()
    except OSError:
        return False


def _filters_input(ruleset: dict[str, list[dict[str, dict[str, str]]]]) -> bool:
    """An input chain that drops by default, or has rules."""
    entries = ruleset["nftables"]
    chains = [entry["chain"] for entry in entries if entry.get("chain", {}).get("hook") == "input"]
    ruled = {(rule["table"], rule["chain"]) for entry in entries if (rule := entry.get("rule"))}
    return any(chain.get("policy") == "drop" or (chain["table"], chain["name"]) in ruled for chain in chains)


def _ask(program: str, *arguments: str) -> str | None:
    """What a program prints; None when it is not there, takes long or fails."""
    path = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 a fixed program with fixed arguments, found in system folders
            [path, *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
