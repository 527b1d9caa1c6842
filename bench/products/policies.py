"""The policies of ztproxy under test: four rules a route, in the shape of those that config/ comes with."""

import time

#: A guardrail, people of a group from a healthy device in business hours, administrators with a second
#: factor, and a pipeline: of these the first three concern a person, and each of them is evaluated.
ROUTE = """
@id("{name}-disk")
@reason("The disk of this device is not encrypted.")
@remedy("fix-device")
forbid (principal is User, action, resource == Route::"{name}")
when {{
  principal has device.posture.checks.disk_encrypted
  && principal.device.posture.checks.disk_encrypted.result == "fail"
}};

@id("{name}-contractors")
@reason("This needs a healthy device that was checked a short while ago.")
permit (principal is User in Group::"contractors", action in Action::"http", resource == Route::"{name}")
when {{
  principal has device
  && principal.device has proved_at
  && context.now.durationSince(principal.device.proved_at) <= duration("12h")
  && principal.device has posture
  && principal.device.posture.healthy
  && context.now.durationSince(principal.device.posture.reported_at) <= duration("12h")
  && context.local.hour >= 6
  && context.local.hour < 20
}};

@id("{name}-administrators")
@reason("This needs a second factor.")
permit (principal is User in Group::"administrators", action in Action::"http", resource == Route::"{name}")
when {{
  principal.session.amr.contains("otp")
  && context.now.durationSince(principal.session.auth_time) <= duration("12h")
}};

@id("{name}-pipeline")
@reason("This is read by the deployment pipeline.")
permit (
  principal == Workload::"spiffe://bench.example/ci/deploy",
  action in [Action::"GET", Action::"HEAD"],
  resource == Route::"{name}"
)
when {{ context.path like "/{name}/*" && context.protocol == "http" }};
"""
RULES_EACH = 4


def text(routes: int) -> str:
    """Return the policies of that many routes."""
    return "".join(ROUTE.format(name=f"app{number}") for number in range(routes))


def noon() -> str:
    """Return a time zone in which it is about noon now: business hours, whenever this runs."""
    ahead = time.gmtime().tm_hour - 12  # the signs of Etc/ zones are turned round
    return f"Etc/GMT{ahead:+d}" if ahead else "Etc/GMT"
