"""Read and check a configuration in a process of its own, for each reload and upgrade.

Whatever a file does to the one that reads it, nobody who serves is harmed. A reload has it done by a child of
`service.standby`, within milliseconds and by the program that serves. An upgrade starts a fresh process
(`python -m ztproxy.service.capture`): the program as it lies on disk, so it learns here whether the new one
starts at all and takes the file; so does a reload when nobody stands by any more. The answer is one JSON
value: a summary, or everything that is wrong.
"""

import argparse
import asyncio
import logging
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
    unseal_settings,
)
from ztproxy.service.standby import Standby, whole

log = logging.getLogger("ztproxy.supervisor")

PATIENCE: Final = 120  # seconds for a check
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


def stand_by(config: Path) -> Standby:
    """Have a process stand by that checks this file as it is when it is asked. See `Standby.start`."""
    return Standby.start(lambda into, in_force: _checked(config, into, in_force), PATIENCE)


async def capture_apart(
    config: Path, in_force: Configuration, standby: Standby | None = None
) -> Configuration | Captured:
    """Read and check in a process of its own, also against what a running node can not change."""
    descriptor = memory()
    try:
        found = await _found(config, descriptor, in_force.descriptor, standby)
        if found.summary is not None:
            seal(descriptor)
            kept = Configuration(found.summary, descriptor)
            descriptor = -1
            return kept
        return found
    finally:
        if descriptor >= 0:
            os.close(descriptor)


async def _found(config: Path, into: int, in_force: int, standby: Standby | None) -> Captured:
    answer = None
    try:
        async with asyncio.timeout(PATIENCE):
            if standby is not None and (answer := await standby.ask(into, in_force)) is None:
                log.warning("the process that stood by is gone, a fresh one reads")
            if answer is None:
                answer = await _asked(config, into, in_force)
        return msgspec.json.decode(answer, type=Captured)
    except TimeoutError:
        return _failed(config, f"the check did not end within {PATIENCE} seconds")
    except msgspec.MsgspecError:
        return _failed(config, "the program that checks has ended without an answer; see the log")


async def _asked(config: Path, into: int, in_force: int) -> bytes:
    """Return what a fresh process answers."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "ztproxy.service.capture", "--config", str(config)),
        *("--into", str(into), "--in-force", str(in_force)),
        pass_fds=(into, in_force),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        answer = await whole(child.stdout)
        await child.wait()
        return answer
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
        before = unseal_settings(in_force, config)
    except (ConfigProblems, ValueError):
        message = "the program that is installed does not read the configuration in force"
        return Captured(problems=(Problem(str(config), 1, 1, "", message, "restart ztproxy"),))
    if problems := unchangeable(settings, before):
        return Captured(problems=tuple(sorted(problems)))
    fill(into, settings)
    return Captured(summary=summary_of(settings, policies))


def _checked(config: Path, into: int, in_force: int) -> bytes:
    return msgspec.json.encode(_check(config, into, in_force))


def main() -> None:
    """Entry of a fresh process."""
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

    sys.stdout.buffer.write(_checked(arguments.config, arguments.into, arguments.in_force))


if __name__ == "__main__":
    main()
