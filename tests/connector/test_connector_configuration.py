"""connector.yaml: strict, with line and remedy, and nothing in it that a proxy could change."""

from pathlib import Path

import pytest

from ztproxy.config.problems import ConfigProblems
from ztproxy.connector.configuration import DEFAULT_STATE, load


def read(folder: Path, text: str):  # type: ignore[no-untyped-def]
    path = folder / "connector.yaml"
    path.write_text(text)
    return load(path)


def test_a_file_of_one_line_is_enough(tmp_path: Path) -> None:
    found = read(tmp_path, "allow: [http://127.0.0.1:9001]\n")
    assert found.allow == ("http://127.0.0.1:9001",)
    assert (found.state, found.proxies, found.ca, found.drain) == (DEFAULT_STATE, (), None, 30_000)


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, "allow: ['tcp://10.0.0.5:5432', 'unix:/run/app.sock']\nstate: own\nca: ca.pem\n")
    assert (found.state, found.ca) == (tmp_path / "own", tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("text", "line", "says", "helps"),
    [
        ("allow: []\n", 1, "too short", "at least 1"),
        ("state: x\n", 1, "lacks the key 'allow'", "allow"),
        ("allow:\n  - http://127.0.0.1:1\n  - 10.0.0.1:80\n", 3, "not an application's address", "tcp://"),
        ("allow:\n  - http://127.0.0.1:1/path\n", 2, "not an application's address", "http://HOST:PORT"),
        ("allow:\n  - http://u:p@127.0.0.1:1\n", 2, "not an application's address", "http://HOST:PORT"),
        ("allow:\n  - 5\n", 2, "not an application's address", "http://HOST:PORT"),
        ("allow: [http://a:1]\nalow: []\n", 2, "unknown key 'alow'", "allow"),
        ("allow: [http://a:1]\nproxies: [gw]\n", 2, "not a place to dial", "HOST:PORT"),
        ("allow: [http://a:1]\ndrain: 5\n", 2, "not a duration", "500ms"),
        ("allow: [http://a:1]\nlimits: {carrying: 0}\n", 2, "too small", "1 or more"),
        ("allow: [http://a:1]\nallow: [http://b:1]\n", 2, "twice", ""),
        ("allow: [http://a:1\n", 2, "", ""),
    ],
)
def test_a_mistake_is_told_with_its_line_and_remedy(
    tmp_path: Path, text: str, line: int, says: str, helps: str
) -> None:
    with pytest.raises(ConfigProblems) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert (problem.line, says in problem.message, helps in problem.remedy) == (line, True, True), problem


def test_a_missing_file_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblems, match=r"no such file.*allow: "):
        load(tmp_path / "none.yaml")
