"""What would change a refusal: stable words for programs and agents, one sentence each for people.

Policies name remedies with `@remedy`, `Explanation` and `Refusal` carry the words, `gateway.refusals` and the
portal show the sentences. Words are only ever added.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct


class Remedy(Struct, frozen=True):
    """One way forward. `path` is where a person does it, on the host they asked: "" if nowhere."""

    word: str
    sentence: str
    label: str = ""  # text of the button
    path: str = ""


_ALL: Final = (
    Remedy("sign-in", "Sign in with your account.", "Sign in", "/.ztproxy/login"),
    Remedy(
        "confirm-sign-in",
        "Let the sign-in service confirm your sign-in again.",
        "Confirm my sign-in",
        "/.ztproxy/login?again=c",
    ),
    Remedy("step-up-mfa", "Sign in again with a second factor.", "Sign in again", "/.ztproxy/login?again=1"),
    Remedy("recheck-device", "Let this device be checked again.", "Check this device", "/.ztproxy/device"),
    Remedy(
        "enrol-device", "Use an enrolled device, or enrol this one.", "Check this device", "/.ztproxy/device"
    ),
    Remedy(
        "fix-device",
        "Correct what the device check reports, then check again.",
        "See what is wrong",
        "/.ztproxy/device",
    ),
    Remedy(
        "start-agent",
        "Start the device agent, so that the device reports its state.",
        "See this device",
        "/.ztproxy/device",
    ),
    Remedy(
        "use-own-device",
        "Use the device this session was started on, or sign in again on this one.",
        "Sign in again",
        "/.ztproxy/login?again=1",
    ),
    Remedy("present-certificate", "Connect with a valid client certificate."),
    Remedy("renew-certificate", "Renew the client certificate, then try again."),
    Remedy("request-jit", "Ask for time-limited access and have it approved."),
    Remedy("wait-for-window", "Come back within the hours in which access is open."),
    Remedy("retry-later", "Wait a moment, then try again."),
    Remedy("contact-administrator", "Contact your administrator and quote the reference below."),
)

REMEDIES: Final[dict[str, Remedy]] = {remedy.word: remedy for remedy in _ALL}


def remedy(word: str) -> Remedy:
    """Return what is known of a word; an unknown one speaks for itself ("ask-owner" -> "Ask owner.")."""
    found = REMEDIES.get(word)
    return found or Remedy(word, word.replace("-", " ").capitalize() + ".")


def remedies(words: Iterable[str]) -> tuple[Remedy, ...]:
    """Return the remedies of these words, each sentence once, in the order given."""
    return tuple({found.sentence: found for found in map(remedy, words)}.values())
