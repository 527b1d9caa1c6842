"""What a node holds in force: sealed, compared as a whole, and what a running one can not take up."""

import os
import shutil
from pathlib import Path

import pytest

from ztproxy.config.load import load_all
from ztproxy.service.capture import capture, capture_apart
from ztproxy.service.configuration import Configuration, unchangeable, unseal
from ztproxy.service.watch import LATEST, REST, SOONEST, Watch

CONFIG = """\
listen: 127.0.0.1:{port}
trust_domain: corp.example
state: state
tls: {{certificates: [{{cert: server.pem, key: "file:server.key"}}]}}
portal: {{host: portal.localhost}}
policy: {{files: [policies/*.cedar]}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    from ztproxy.crypto.issue import create_authority, issue_server, pem
    from ztproxy.crypto.template import term
    from ztproxy.net import keyfiles
    from ztproxy.net.clock import SystemClock, entropy

    now, key, own = SystemClock().now(), keyfiles.new_key(), keyfiles.new_key()
    authority = create_authority("test", key, term(now, 86_400_000, entropy))
    leaf = issue_server(
        authority, own.public_key(), term(now, 86_400_000, entropy), dns_names=("portal.localhost",)
    )
    keyfiles.write(tmp_path / "server.key", keyfiles.key_pem(own))
    keyfiles.write(tmp_path / "server.pem", pem(leaf).encode(), 0o644)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.cedar").write_text(
        '@id("all") permit (principal is User, action, resource == Route::"portal");'
    )
    (tmp_path / "ztproxy.yaml").write_text(CONFIG.format(port=8443))
    return tmp_path / "ztproxy.yaml"


def test_what_is_in_force_can_not_be_changed_by_anybody(config: Path) -> None:
    kept = capture(config)
    with pytest.raises(PermissionError):
        os.write(kept.descriptor, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(kept.descriptor, 0)
    shutil.rmtree(config.parent)
    settings, policies = unseal(kept.descriptor, config)
    assert (settings.files.digest, policies.digest) == (kept.summary.digest, kept.summary.policies)
    kept.close()


async def test_a_check_apart_finds_the_same_as_here(config: Path) -> None:
    kept = capture(config)
    found = await capture_apart(config, kept)
    assert isinstance(found, Configuration)
    assert found.same_as(kept)
    assert found.summary == kept.summary
    key = config.parent / "server.key"
    key.write_text(key.read_text() + "\n")  # a secret is another, the digest is not
    other = await capture_apart(config, kept)
    assert isinstance(other, Configuration)
    assert not other.same_as(kept)
    assert other.summary.digest == kept.summary.digest


async def test_a_check_apart_tells_what_is_wrong_and_where_to_look(config: Path) -> None:
    kept = capture(config)
    (config.parent / "server.pem").unlink()
    found = await capture_apart(config, kept)
    assert not isinstance(found, Configuration)
    assert any("server.pem is not there" in problem.message for problem in found.problems)
    assert str(config.parent / "server.pem") in found.read


def test_where_a_node_is_and_who_it_is_needs_a_restart(config: Path) -> None:
    before, _ = load_all(config)
    text = config.read_text()
    config.write_text(
        text.replace("8443", "9443").replace("listen:", "workers: 3\nlisten:").replace("state: state\n", "")
    )
    after, _ = load_all(config)
    problems = unchangeable(after, before)
    assert {problem.where for problem in problems} == {"listen", "workers", "state"}
    assert "needs a restart to change: 127.0.0.1:8443 is in force" in str(problems)
    assert next(problem for problem in problems if problem.where == "listen").line == 2
    assert unchangeable(before, before) == []


class Looks:
    """Looks at files, half as far apart as a change has to rest."""

    def __init__(self, *read: Path | str) -> None:
        self.watch, self.now = Watch(list(map(str, read))), 0.0

    def __call__(self) -> bool:
        self.now += REST / 2 + 0.001
        return self.watch.changed(self.now)


def test_a_change_counts_when_it_has_come_to_rest(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("1")
    changed = Looks(file, tmp_path / "*.cedar", tmp_path / "missing")
    assert not changed()
    file.write_text("22")
    assert [changed(), changed()] == [False, False], "it may still be written"
    file.write_text("333")
    assert [changed(), changed()] == [False, False]
    assert changed()
    assert not changed(), "once"
    (tmp_path / "b.cedar").write_text("new")
    assert [changed(), changed(), changed()] == [False, False, True]
    (tmp_path / "missing").symlink_to(file)
    assert [changed(), changed(), changed()] == [False, False, True]


def test_the_more_there_is_to_look_at_the_less_often_it_is_looked_at(tmp_path: Path) -> None:
    few, many = Watch([]), Watch([str(tmp_path / f"{number}.pem") for number in range(20_000)])
    for watch in (few, many):
        watch.changed(0.0)
    assert few.pause == SOONEST and SOONEST < many.pause <= LATEST


def test_links_that_are_swapped_are_seen(tmp_path: Path) -> None:
    """As the kubelet does it: a link to a folder is renamed over the one before."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tls.crt").write_text("same size")
    (tmp_path / "data").symlink_to(tmp_path / "one")
    (tmp_path / "tls.crt").symlink_to(tmp_path / "data/tls.crt")
    changed = Looks(tmp_path / "tls.crt")
    (tmp_path / "new").symlink_to(tmp_path / "two")
    (tmp_path / "new").rename(tmp_path / "data")
    assert [changed(), changed(), changed()] == [False, False, True]


def test_what_changes_while_it_is_read_is_news(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("1")
    changed = Looks(file)
    changed.watch.begin()
    file.write_text("22")  # after it was read, before we know what was read
    changed.watch.follow([str(file), str(tmp_path / "other")])
    assert [changed(), changed(), changed()] == [False, False, True]
