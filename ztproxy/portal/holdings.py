"""What is known of a session's device, for people to see, and whose device a certificate is."""

from msgspec import Struct

from ztproxy.model.request import ClientCertificate
from ztproxy.model.subject import Device, Posture
from ztproxy.portal.ports import Devices


class Holding(Struct, frozen=True):
    """A device and the newest report about it, if any."""

    device: Device
    posture: Posture | None


async def holding_of(devices: Devices, device_id: str) -> Holding | None:
    """Return what is known of a device, None when there is none."""
    device = await devices.get(device_id) if device_id else None
    return Holding(device=device, posture=await devices.posture(device.id)) if device else None


async def proved_by(devices: Devices, certificate: ClientCertificate | None) -> Device | None:
    """Return the live device whose verified certificate this is: same id and same key."""
    if certificate is None or certificate.kind != "device":
        return None
    device = await devices.get(certificate.subject.rpartition("/")[2])
    if device is None or device.revoked_at or device.spki != certificate.spki:
        return None
    return device
