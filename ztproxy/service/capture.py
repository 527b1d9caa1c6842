"""Read and check a configuration in a process of its own: `python -m ztproxy.service.capture`.

Started by the supervisor for each reload and upgrade. Whatever a file does to the one that reads it, nobody
who serves is harmed; and it is the program as it lies on disk that reads, so an upgrade learns here whether
the new one starts at all and takes the file. Prints one JSON value: a summary, or everything that is wrong.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ztproxy.config.load import load_all
from ztproxy.config.problems import ConfigProblems, Problem
from ztproxy.service.configuration import (
    Configuration,
    Summary,
    fill,
    memory,
    seal,
    summary_of,
    unchangeable,
    unseal,
)

PATIENCE: Final = 120.0  # seconds for a check
MOST: Final = 8 << 20  # bytes of its answer
NICE: Final = 10  # those who serve come first


class Captured(Struct, frozen=True):
    """What a check found."""

    summary: Summary | None = None
    problems: tuple[Problem, ...] = ()
    read: tuple[str, ...] = ()  # paths and patterns, where something may be mended


def capture(config: Path) -> Configuration:
    """Read and check here and now. Raises ConfigProblems, OSError."""
    settings, policies = load_all(config)
    descriptor = memory()
    fill(descriptor, settings)
    seal(descriptor)
    return Configuration(summary_of(settings, policies), descriptor)


async def capture_apart(config: Path, in_force: Configuration) -> Configuration | Captured:
    """Read and check in a process of its own, also against what a running node can not change."""
    descriptor = memory()
    try:
        found = await _run(config, descriptor, in_force.descriptor)
        if found.summary is not None:
            seal(descriptor)
            kept = Configuration(found.summary, descriptor)
            descriptor = -1
            return kept
        return found
    finally:
        if descriptor >= 0:
            os.close(descriptor)


async def _run(config: Path, into: int, in_force: int) -> Captured:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ztproxy.service.capture", "--config", str(config)),
        *("--into", str(into), "--in-force", str(in_force)),
        pass_fds=(into, in_force),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=MOST,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await child.stdout.read()
            status = await child.wait()
        return msgspec.json.decode(answer, type=Captured)
    except TimeoutError:
        return _failed(config, f"the check did not end within {PATIENCE:.0f} seconds")
    except msgspec.MsgspecError:
        return _failed(config, f"the program that checks ended with status {status}; see the log")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def _failed(config: Path, message: str) -> Captured:
    return Captured(problems=(Problem(str(config), 1, 1, "", message, "run `ztproxy check`"),))


def _check(config: Path, into: int, in_force: int) -> Captured:
    try:
        settings, policies = load_all(config)
    except ConfigProblems as error:
        return Captured(problems=error.problems, read=error.read)
    try:
        before, _ = unseal(in_force, config)
    except (ConfigProblems, ValueError):
        message = "the program that is installed does not read the configuration in force"
        return Captured(problems=(Problem(str(config), 1, 1, "", message, "restart ztproxy"),))
    if problems := unchangeable(settings, before):
        return Captured(problems=tuple(sorted(problems)))
    fill(into, settings)
    return Captured(summary=summary_of(settings, policies))


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="ztproxy capture")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--into", type=int, required=True)
    parser.add_argument("--in-force", type=int, required=True)
    arguments = parser.parse_args()
    os.umask(0o077)
    os.nice(NICE)
    import ztproxy.service.control
    import ztproxy.service.run
    import ztproxy.service.worker  # noqa: F401 - that they can be imported is part of the answer

    found = _check(arguments.config, arguments.into, arguments.in_force)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
