"""Stable codes of refusals and errors: programs match on these, so they are only ever added to.

Each maps to (HTTP status, sentence for people). The problem type is "urn:ztproxy:problem:" + code.
"""

from typing import Final

CODES: Final[dict[str, tuple[int, str]]] = {
    # who you are
    "login-required": (401, "Sign in to continue."),
    "session-ended": (401, "Your session has ended. Sign in again."),
    "recheck-required": (401, "Your sign-in has to be confirmed again."),
    "client-certificate-required": (403, "This address asks for a client certificate."),
    "certificate-expired": (403, "The client certificate is not valid at this time."),
    "credentials-conflict": (400, "The request carries two different credentials."),
    "certificate-unsuitable": (403, "The client certificate is not meant for this address."),
    "connector-not-enrolled": (403, "This connector is not enrolled, or was revoked."),
    "device-mismatch": (403, "This session belongs to another device."),
    # what outranks policy
    "locked": (403, "Access is locked."),
    # what policy said
    "access-denied": (403, "Policy does not allow this."),
    "device-required": (403, "This needs a known device."),
    "device-check-required": (403, "The device must be checked again."),
    "device-posture-missing": (403, "The device has not reported its state."),
    "device-posture-stale": (403, "The device's last report is too old."),
    "device-posture-unhealthy": (403, "The device does not meet the requirements."),
    "facts-unavailable": (503, "Access can not be decided at the moment."),
    "origin-not-allowed": (403, "This page may not open a connection here."),
    # how you asked
    "bad-request": (400, "The request is not valid HTTP."),
    "ambiguous-path": (400, "The path can be read in more than one way."),
    "misdirected": (421, "This host is not served on this connection."),
    "head-too-large": (431, "The request head is too large."),
    "body-too-large": (413, "The request body is too large."),
    "request-timeout": (408, "The request took too long to arrive."),
    "upgrade-not-allowed": (403, "Protocol upgrades are not allowed here."),
    "method-not-supported": (501, "This method is not supported."),
    "too-many-requests": (429, "Too many requests. Wait a moment, then try again."),
    # beyond us
    "upstream-unreachable": (502, "The application can not be reached."),
    "connector-unavailable": (502, "The connector that reaches the application is not there."),
    "connector-refused": (502, "The connector does not serve this application."),
    "upstream-invalid": (502, "The application answered with something that is not HTTP."),
    "upstream-timeout": (504, "The application did not answer in time."),
    "audit-unavailable": (503, "The request can not be recorded, so it can not be served."),
    "overloaded": (503, "Too much to do at the moment."),
    "internal-error": (500, "Something went wrong on our side."),
}
