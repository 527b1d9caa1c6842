"""wrk as many browsers: each connection is one person's, with one cookie, at one application.

After some requests a connection ends, and another person's takes its place. So what a proxy keeps for a
connection serves as it does in life, and what it keeps of people and routes is asked for all over.
"""

import os
import subprocess
from itertools import count

from bench.ground import COOKIE, HOST, Ground, program

REQUESTS = 100  # of a connection, then another one takes its place
PAGES = 20  # different paths a person asks for, in turn

#: One thread to a connection, so that each has a state of its own here. Whose a connection is, is drawn by a
#: generator of its own (Park and Miller), with another seed for each thread and each run.
SCRIPT = """
local threads = {}
function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end
came = ""
local people, applications, state, at, open, last = %d, %d, 1, 0, {}, ""
local function draw(many)
  state = state * 48271 %% 2147483647
  return state %% many
end
local function arrive()
  local person, application = draw(people), draw(applications)
  came = came .. person .. "@" .. application .. " "
  local value = person == 0 and "%s" or string.format("%%043d", person)
  local fields = {Cookie = "__Host-ztproxy=" .. value, Accept = "*/*"}
  for n = 1, %d do
    open[n] = wrk.format("GET", "/app" .. application .. "/tickets/" .. n, fields)
  end
  fields.Connection = "close"
  last = wrk.format("GET", "/app" .. application .. "/tickets/1", fields)
end
function init(arguments)
  state = (tonumber(arguments[1]) * 7919 + number * 104729) %% 2147483646 + 1
  for _ = 1, 10 do draw(2) end
  arrive()
  at = draw(%d)  -- not all end at once
end
function request()
  at = at + 1
  if at >= %d then
    local said = last
    at = 0
    arrive()
    return said
  end
  return open[at %% #open + 1]
end
function done(summary, latency, requests)
  local file = io.open("%s", "a")
  for _, thread in ipairs(threads) do file:write(thread:get("came")) end
  file:close()
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('{"requests": %%d, "failed": %%d, "p50": %%d, "p99": %%d}',
    summary.requests, failed, latency:percentile(50), latency:percentile(99)))
end
"""


class Browsers:
    """A kind of load: of so many people, at so many applications, as many connections as are asked for."""

    def __init__(
        self,
        ground: Ground,
        name: str,
        *,
        sessions: int,
        routes: int,
        requests: int = REQUESTS,
        begin: int = 1,
    ) -> None:
        """`begin`: who comes is another one of two loads that begin far from each other."""
        self._script = ground.root / f"{name}.lua"
        self._came = ground.root / f"{name}.came"
        self._script.write_text(SCRIPT % (sessions, routes, COOKIE, PAGES, requests, requests, self._came))
        self._openssl = ground.root / "openssl.cnf"
        self._wrk = program("wrk")
        self._seeds = count(begin)

    def came(self) -> list[str]:
        """Return who came so far and to which application, in no order: one entry for each connection."""
        return self._came.read_text().split() if self._came.exists() else []

    def start(self, port: int, connections: int, seconds: int) -> subprocess.Popen[str]:
        """Start wrk on the core of this process; other people come than the last time."""
        command = [self._wrk, f"-t{connections}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        return subprocess.Popen(
            [*command, "-s", self._script, f"https://{HOST}:{port}/", "--", str(next(self._seeds))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OPENSSL_CONF": str(self._openssl)},
        )
