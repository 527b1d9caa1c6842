"""The table of verbs: fast, complete, and not taken down by a verb that is missing."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ztproxy.cli import main

ROOT = Path(__file__).parents[2]


def ztproxy(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ztproxy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_help_lists_every_verb_and_imports_none() -> None:
    code = (
        "import sys\n"
        "from ztproxy.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'aiohttp', 'pydantic', 'cedarpy', 'cryptography', 'yaml', 'msgspec'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
    assert not [verb for verb in main.VERBS if not re.search(rf"\b{verb}\b", done.stdout)]


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_every_verb_has_an_application_and_a_help_page(verb: str) -> None:
    assert importlib.import_module(main.VERBS[verb][0]).app
    done = ztproxy(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: ztproxy {verb}" in done.stdout


def test_a_verb_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer
    from typer.testing import CliRunner

    from ztproxy.cli.main import _deferred

    app = typer.Typer()
    app.command()(_deferred("dance", "ztproxy.cli.dance"))
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2
    assert "'dance' is not part of this installation" in done.output


def test_version() -> None:
    from ztproxy import __version__

    assert ztproxy("version").stdout.startswith(f"ztproxy {__version__} (Python 3.")


def test_an_unknown_verb_is_an_error() -> None:
    assert ztproxy("chekc").returncode == 2


def test_the_reference_page_names_every_verb() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    for verb, (module, _) in main.VERBS.items():
        app = importlib.import_module(module).app
        names = [command.name or command.callback.__name__.rstrip("_") for command in app.registered_commands]
        subs = names if len(names) > 1 or app.registered_callback else [""]
        for sub in subs:
            assert f"ztproxy {verb} {sub}".rstrip() in page, f"{verb} {sub}"
