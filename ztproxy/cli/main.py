"""`ztproxy`: one command, many verbs, each in a module of its own that is imported when it is called.

Called by the console script and `python -m ztproxy`. This table must never import a verb just to describe
it: `ztproxy --help` stays fast, and a verb whose optional parts are missing says so without taking the
others down.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Final

import typer

#: verb -> (module that has `app`, one line of help), in the order of the help page
VERBS: Final[dict[str, tuple[str, str]]] = {
    "init": ("ztproxy.cli.init", "Write a complete configuration to start from."),
    "check": ("ztproxy.cli.check", "Check a configuration: every problem at once, with its line and remedy."),
    "run": ("ztproxy.cli.run", "Serve: supervisor, workers and the control process."),
    "status": ("ztproxy.cli.status", "Show the version that runs and the configuration in force."),
    "reload": ("ztproxy.cli.reload", "Have the running node take up its changed configuration files."),
    "upgrade": ("ztproxy.cli.upgrade", "Have the running node become the program that is installed now."),
    "sessions": ("ztproxy.cli.sessions", "List, show and cut sessions."),
    "locks": (
        "ztproxy.cli.locks",
        "Lock people, devices, routes and more, on every node at once.",
    ),
    "devices": ("ztproxy.cli.devices", "List, enrol and revoke devices."),
    "connectors": ("ztproxy.cli.connectors", "List, enrol and revoke connectors."),
    "recordings": ("ztproxy.cli.recordings", "List, show and verify what was recorded."),
    "policy": ("ztproxy.cli.policy", "Show the policies in effect, with what the configuration adds."),
    "agent": ("ztproxy.cli.agent", "The device agent: enrol this device, report its state."),
    "connector": ("ztproxy.cli.connector", "The connector: carry to applications that no proxy can reach."),
    "schema": ("ztproxy.cli.schema", "Print the JSON Schema of the configuration."),
    "demo": ("ztproxy.cli.demo", "Everything at once on this machine: provider, applications, proxy."),
    "version": ("ztproxy.cli.version", "Print the version."),
}

#: everything after the verb, --help included, belongs to the verb
_PASS_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer(
    name="ztproxy",
    help="Zero trust remote access: every request justified, every session recorded.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _deferred(verb: str, module: str) -> Callable[[typer.Context], None]:
    def call(context: typer.Context) -> None:
        if importlib.util.find_spec(module) is None:
            typer.echo(f"ztproxy: the verb {verb!r} is not part of this installation", err=True)
            raise typer.Exit(2)
        importlib.import_module(module).app(args=context.args, prog_name=f"ztproxy {verb}")

    return call


for _verb, (_module, _help) in VERBS.items():
    app.command(_verb, help=_help, context_settings=dict(_PASS_ON))(_deferred(_verb, _module))


def main() -> None:
    """Run the command line and exit."""
    app()
