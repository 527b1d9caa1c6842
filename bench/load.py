"""wrk: connections with TLS 1.3 and keep-alive that ask again as soon as they are answered."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from bench.ground import COOKIE, HOST, Ground, program

#: Requests are formatted once; sending one costs a look-up, as without a script.
SCRIPT = """
local paths, cookies, ready, at = {%s}, {%s}, {}, 0
init = function(arguments)
  for n = 1, math.max(#paths, #cookies) do
    local cookie = "__Host-ztproxy=" .. cookies[(n - 1) %% #cookies + 1]
    ready[n] = wrk.format("GET", paths[(n - 1) %% #paths + 1], {Cookie = cookie, Accept = "*/*"})
  end
end
request = function()
  at = at %% #ready + 1
  return ready[at]
end
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('{"requests": %%d, "failed": %%d, "p50": %%d, "p99": %%d}',
    summary.requests, failed, latency:percentile(50), latency:percentile(99)))
end
"""


class LoadFailed(Exception):
    """Requests were not answered, or not with success."""


@dataclass(frozen=True)
class Answered:
    """What wrk saw; latencies in µs."""

    requests: int
    p50: int
    p99: int


class Load:
    """A kind of load: which paths are asked for, with which cookies, in turn."""

    def __init__(
        self, ground: Ground, name: str, *, paths: Sequence[str], cookies: Sequence[str] = (COOKIE,)
    ) -> None:
        self._script = ground.root / f"{name}.lua"
        self._script.write_text(SCRIPT % (_quoted(paths), _quoted(cookies)))
        self._openssl = ground.root / "openssl.cnf"
        self._wrk = program("wrk")

    def start(self, port: int, connections: int, seconds: int) -> subprocess.Popen[str]:
        """Start wrk on the core of this process."""
        command = [self._wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        return subprocess.Popen(
            [*command, "-s", self._script, f"https://{HOST}:{port}/"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OPENSSL_CONF": str(self._openssl)},
        )

    def run(self, port: int, connections: int, seconds: int) -> Answered:
        """Run to the end."""
        return finish(self.start(port, connections, seconds))


def finish(wrk: subprocess.Popen[str]) -> Answered:
    """Wait for wrk and return what it saw. Raises LoadFailed unless every answer was a success."""
    said, _ = wrk.communicate(timeout=120)
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if wrk.returncode or not lines:
        raise LoadFailed(f"wrk: {said[-500:]}")
    seen = json.loads(lines[-1])
    if seen["failed"] or not seen["requests"]:
        raise LoadFailed(f"{seen['failed']} of {seen['requests']} requests failed: {said[-500:]}")
    return Answered(seen["requests"], seen["p50"], seen["p99"])


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def app_paths(routes: int, count: int = 50) -> list[str]:
    """Return that many paths, all different, spread over all routes."""
    return [f"/app{number * routes // count}/tickets/{number}" for number in range(count)]
