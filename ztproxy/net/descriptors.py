"""How many files this process may have open: every connection is one."""

import resource
import sys


def use_all_descriptors() -> None:
    """Raise the limit of open files to what the system allows; children inherit it (getrlimit(2)).

    The customary 1024 is for programs that use select(2), and is less than the connections of one source.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def descriptors() -> int:
    """Return how many files this process may have open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if most != resource.RLIM_INFINITY else sys.maxsize
