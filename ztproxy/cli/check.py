"""`ztproxy check`: everything that is wrong with a configuration, or what it amounts to.

Exit code 0 when it can be served, 1 when not. Nothing is changed, bound or contacted.
"""

from collections.abc import Iterable

import typer

from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.problems import report
from ztproxy.config.load import load_all
from ztproxy.config.policies import places_of, read_sources, shorthands
from ztproxy.config.problems import ConfigProblems
from ztproxy.config.settings import Settings
from ztproxy.policy.engine import PolicySet

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Check a configuration, its files, certificates, policies and their tests."""
    try:
        settings, policies = load_all(config)
    except ConfigProblems as error:
        report(error.problems)
        raise typer.Exit(1) from None
    for line in _summary(settings, policies):
        typer.echo(line)


def _summary(settings: Settings, policies: PolicySet) -> Iterable[str]:
    sources = read_sources(settings, places_of(settings))
    short = sum(1 for _ in shorthands(settings))
    files = len(sources.policies) - short
    cases = sum(len(found) for _, one in sources.tests if isinstance(found := one.get("cases"), tuple))
    yield f"{settings.file}: sound"
    yield f"  listens on   {settings.listen}, known to people as {settings.portal_origin}"
    yield f"  routes       {len(settings.route_settings)} on {len(settings.hosts())} hosts"
    yield f"  policies     {files} files and {short} shorthands, digest {policies.digest[:16]}"
    yield f"  tests        {cases} run, all as expected"
    yield f"  sign-in      {', '.join(one.name for one in settings.identity.providers) or 'no provider'}"
