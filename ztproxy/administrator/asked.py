"""What a request asks for and a permit was made for, at a glance. Called by `administrator.access`. Pure."""

from ztproxy.model.permit import Permit
from ztproxy.model.request import AccessRequest
from ztproxy.model.route import Route
from ztproxy.model.subject import ANONYMOUS


def leads_on(opened: Route, found: Route | None) -> bool:
    """Tell whether what is there now is what a path was opened to: by its name, or by where it lives."""
    return found is not None and (found.name == opened.name or found.upstream == opened.upstream)


def is_portal(request: AccessRequest) -> bool:
    """Tell whether it is for our own sign-in pages."""
    return request.resource.route is not None and request.resource.route.portal


def unknown(request: AccessRequest) -> str:
    """Return the code for a credential that is not in the store."""
    certificate = request.subject.certificate
    is_connector = certificate is not None and certificate.kind == "connector"
    return "connector-not-enrolled" if is_connector else "session-ended"


def is_anonymous(permit: Permit) -> bool:
    """Tell whether a permit was made for nobody. What was opened for somebody ends with their session."""
    return permit.principal_id == ANONYMOUS.id and not permit.session_id
