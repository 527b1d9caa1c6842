"""A sound file becomes settings in values of the model; the surroundings of a file decide, too."""

import os
import re
import shutil
from pathlib import Path

import pytest

from ztproxy.config.load import load, load_all
from ztproxy.config.policies import find_policies, places_of, shorthands
from ztproxy.config.problems import ConfigProblems
from ztproxy.config.settings import Settings
from ztproxy.model.changes import Changes, Cors, RequestFields, ResponseFields, Rewrite, Stamp
from ztproxy.model.quota import Quota, Rate
from ztproxy.model.resource import Ejection, HealthCheck, Upstream

GOOD = Path(__file__).parent / "good.yaml"


@pytest.fixture
def config(base: Path) -> Path:
    path = base / "ztproxy.yaml"
    shutil.copy(GOOD, path)
    return path


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def told(path: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigProblems) as caught:
        load_all(path, environ or {})
    return str(caught.value)


def test_a_sound_file(config: Path, base: Path) -> None:
    settings = load(config)
    assert settings.file == config
    assert str(settings.listen) == "127.0.0.1:8443"
    assert settings.state_dir == base / "state"
    assert settings.portal_origin == "https://portal.corp.example:8443"
    assert settings.sessions.idle == 30 * 60_000
    assert settings.policy.feed_limit == 10_000
    assert settings.limits.body == 1 << 30
    assert settings.hosts() == {"portal.corp.example", "app.corp.example"}
    assert settings.identity.providers[0].client_secret.reveal() == "s3cr3t-in-a-file"


def test_relative_paths_start_at_the_file_wherever_we_are(
    config: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    settings = load(Path(base.name) / "ztproxy.yaml")
    assert settings.tls.certificates[0].cert == base / "tls/server.pem"
    assert settings.tls.certificates[0].key.path == base / "tls/server.key"


def test_quotas_hold_for_one_route_or_for_all_but_the_portal(config: Path) -> None:
    edit(config, "routes:\n", "limits: {quotas: [{per: session, concurrent: 9}]}\nroutes:\n")
    config.write_text(config.read_text() + "    quotas: [{per: route, rate: 30/m burst 5}]\n")
    app, *portal = load(config).routes()
    everywhere, own = app.quotas
    assert everywhere == Quota("session", None, 9)
    assert own == Quota("route", Rate(0.5, 5), scope=app.name)
    assert {route.quotas for route in portal} == {(Quota("source", Rate(20.0, 400), strangers=True),)}
    edit(config, "quotas: [{per: session, concurrent: 9}]", "sign_in_per_source: unlimited")
    assert {route.quotas for route in load(config).routes()[1:]} == {()}


def test_routes_are_values_of_the_model(config: Path) -> None:
    edit(
        config,
        "    to: http://127.0.0.1:9001",
        """\
    app: office
    to: https://10.0.0.7
    tls:
      ca: tls/root.pem
      server_name: office.internal
      certificate: tls/client.pem
      key: file:tls/client.key
    host_header: office.internal:8080
    client_certificate: required
    websocket: false
    labels: [a, b]
    timeouts: {response: 500ms, idle: 2m}
    max_body: 3KiB
    origins: ["https://chat.corp.example"]""",
    )
    route, portal, own = load(config).routes()
    assert (route.name, route.app, route.host, route.prefix) == ("app", "office", "app.corp.example", "/")
    assert route.upstream == Upstream(
        scheme="https",
        host="10.0.0.7",
        port=443,
        server_name="office.internal",
        ca=str(config.parent / "tls/root.pem"),
        host_header="office.internal:8080",
        certificate=str(config.parent / "tls/client.pem"),
        key=str(config.parent / "tls/client.key"),
    )
    assert (route.client_certificate, route.upgrades, route.max_body) == ("required", frozenset(), 3072)
    assert (route.response_timeout, route.idle_timeout) == (0.5, 120.0)
    assert (route.labels, route.title) == (frozenset("ab"), "app")
    assert route.origins == {"https://chat.corp.example"}
    assert (portal.name, portal.host, portal.prefix, portal.portal) == (
        "portal",
        "portal.corp.example",
        "/",
        True,
    )
    assert (own.name, own.host, own.prefix, own.portal) == ("portal", "app.corp.example", "/.ztproxy/", True)
    assert own.upstream == Upstream(scheme="unix", host=str(config.parent / "state/run/portal.sock"), port=0)


def test_several_targets_share_what_the_route_says_of_its_upstream(config: Path) -> None:
    edit(
        config,
        "    to: http://127.0.0.1:9001",
        """\
    to:
      - https://10.0.0.7
      - {url: https://10.0.0.8:8443, weight: 3}
    tls: {ca: tls/root.pem}
    timeouts: {connect: 1s}
    retries: 0
    health: {path: /healthz, interval: 5s, statuses: [200, 401]}
    ejection: {failures: 2, time: 10s, longest: 1m, share: 30, statuses: [503]}""",
    )
    route = load(config).routes()[0]
    assert route.targets is not None
    assert [(one.upstream.url, one.weight) for one in route.targets.all] == [
        ("https://10.0.0.7:443", 1),
        ("https://10.0.0.8:8443", 3),
    ]
    assert {one.upstream.ca for one in route.targets.all} == {str(config.parent / "tls/root.pem")}
    assert route.upstream == route.targets.all[0].upstream
    assert route.targets.ejection == Ejection(2, 10.0, 60.0, 30, frozenset({503}))
    assert route.targets.health == HealthCheck(
        "/healthz", "app.corp.example", 5.0, 2.0, statuses=frozenset({200, 401})
    )
    assert (route.connect_timeout, route.retries) == (1.0, 0)


def test_targets_may_be_reached_through_connectors(config: Path) -> None:
    edit(
        config,
        "    to: http://127.0.0.1:9001",
        """\
    connector: partner-site
    to:
      - http://127.0.0.1:8443
      - {url: "unix:/run/app.sock", connector: other-site}""",
    )
    edit(config, "routes:\n", "connectors: {host: connect.corp.example}\nroutes:\n")
    settings = load(config)
    upstreams = settings.routes()[0].upstreams
    assert [one.place for one in upstreams] == [
        "http://127.0.0.1:8443 through partner-site",
        "unix:/run/app.sock through other-site",
    ]
    written = settings.model_dump(mode="json", by_alias=True)["routes"][0]
    assert written["connector"] == "partner-site"
    assert written["to"][1] == {"url": "unix:/run/app.sock", "weight": 1, "connector": "other-site"}


def test_connectors_have_a_place_of_their_own(config: Path) -> None:
    assert not any(route.carries for route in load(config).routes())
    section = "{host: connect.corp.example, proxies: ['gw1.example:443', '[2001:DB8::7]:8443']}"
    edit(config, "routes:\n", f"connectors: {section}\nroutes:\n")
    settings, policies = load_all(config, {})
    (route,) = (route for route in settings.routes() if route.carries)
    assert (route.name, route.host, route.upgrades) == (
        "ztproxy-connectors",
        "connect.corp.example",
        {"ztproxy-carry"},
    )
    assert "connect.corp.example" not in settings.hosts(), "no page, no cookie and no session there"
    assert not any(one.host == route.host for one in settings.routes() if not one.carries)
    assert settings.connectors is not None
    assert settings.connectors.proxies == ("gw1.example:443", "[2001:db8::7]:8443")
    assert policies.policies[-1].id == "ztproxy-connectors"


def test_both_names_of_an_upstream_are_known(config: Path) -> None:
    edit(config, "from: https://app.corp.example", "from: https://app.corp.example/app/")
    assert load(config).routes()[0].changes is None
    edit(
        config,
        "    to: http://127.0.0.1:9001",
        """\
    to: [http://10.0.0.7, "http://[fd00::7]:8080"]
    host_header: Inside.Example:8080
    strip_prefix: true
    prefix: /base/""",
    )
    changes = load(config).routes()[0].changes
    assert changes is not None and changes.rewrite == Rewrite(
        "/app/",
        "/base/",
        frozenset({"10.0.0.7:80", "10.0.0.7", "[fd00::7]:8080", "inside.example:8080"}),
        frozenset({"10.0.0.7", "[fd00::7]", "inside.example"}),
    )


def test_fields_that_are_set_are_dropped_first(config: Path) -> None:
    edit(
        config,
        "    to: http://127.0.0.1:9001",
        """\
    to: http://127.0.0.1:9001
    request_headers:
      set: {X-User: "${principal.id}@corp", X-Env: prod}
      remove: [X-Debug]
    response_headers:
      set: {X-Frame-Options: DENY}
      remove: [Server]""",
    )
    assert load(config).routes()[0].changes == Changes(
        request=RequestFields(
            (Stamp("X-User", ("", "principal.id", "@corp")), Stamp("X-Env", ("prod",))),
            frozenset({b"x-user", b"x-env", b"x-debug"}),
        ),
        response=ResponseFields(b"X-Frame-Options: DENY\r\n", frozenset({b"x-frame-options", b"server"})),
    )


def test_cross_origin_rules_are_lines_at_once(config: Path) -> None:
    rules = """\
    to: http://127.0.0.1:9001
    cors:
      origins: ["https://page.example"]
      methods: [GET, PUT]
      headers: [X-Token]
      expose: [X-Total]
      credentials: true
      max_age: 1h"""
    edit(config, "    to: http://127.0.0.1:9001", rules)
    changes = load(config).routes()[0].changes
    assert changes == Changes(
        cors=Cors(
            frozenset({"https://page.example"}),
            b"Access-Control-Allow-Methods: GET, PUT\r\nAccess-Control-Allow-Headers: X-Token\r\n"
            b"Access-Control-Allow-Credentials: true\r\nAccess-Control-Max-Age: 3600\r\n",
            b"Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Total\r\n",
        )
    )
    edit(config, rules, "    to: http://127.0.0.1:9001\n    cors: {origins: ['*']}")
    changes = load(config).routes()[0].changes
    assert changes is not None and changes.cors is not None and not changes.cors.origins
    assert not changes.cors.actual


HOW_TO = (Path(__file__).parents[2] / "docs/how-to/tune-an-upstream.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", HOW_TO, re.S))
def test_what_the_how_to_shows_is_sound(config: Path, block: str) -> None:
    block = block.replace("//corp.example", "//app.corp.example")
    keys = {line.partition(":")[0] for line in block.splitlines()}
    lines = ["- name: app"]
    lines += ["  from: https://app.corp.example"] if "from" not in keys else []
    lines += ["  to: http://127.0.0.1:9001"] if "to" not in keys else []
    lines += [f"  {line}" for line in block.splitlines()]
    config.write_text(config.read_text().partition("routes:")[0] + "routes:\n" + "\n".join(lines) + "\n")
    route = load_all(config, {})[0].routes()[0]
    assert route.name == "app"


def test_one_target_needs_no_choice(config: Path) -> None:
    edit(config, "    to: http://127.0.0.1:9001", "    to: [{url: 'http://127.0.0.1:9001'}]")
    assert load(config).routes()[0].targets is None
    edit(config, "    to: [", "    host_header: inside:80\n    health: {path: /healthz}\n    to: [")
    targets = load(config).routes()[0].targets
    assert targets is not None and targets.health is not None and targets.health.host == "inside:80"


def test_off_is_a_word_and_no_boolean(config: Path) -> None:
    edit(
        config, "    to: http://127.0.0.1:9001", "    client_certificate: off\n    to: http://127.0.0.1:9001"
    )
    assert load(config).routes()[0].client_certificate == "off"


def test_the_external_port_is_what_people_see(config: Path) -> None:
    edit(config, "state: state", "state: state\nexternal_port: 443")
    settings = load(config)
    assert settings.portal_origin == "https://portal.corp.example"
    assert settings.external("app.corp.example") == "https://app.corp.example"


def test_policies_come_with_their_shorthands(config: Path) -> None:
    config.write_text(config.read_text() + "    allow: {groups: [contractors], methods: [GET]}\n")
    settings, policies = load_all(config, {})
    again, _ = find_policies(settings, places_of(settings))
    assert again is not None
    assert policies.digest == again.digest
    bare = load_all(edit(config, "    allow: {groups: [contractors], methods: [GET]}\n", ""), {})[1]
    assert bare.digest != policies.digest


def test_public_paths_are_a_policy_like_others(config: Path) -> None:
    config.write_text(config.read_text() + "    public: [/assets/, /health]\n    public_methods: [GET]\n")
    settings, policies = load_all(config, {})
    assert [policy.id for policy in policies.policies] == ["app-staff", "app-public", "ztproxy-portal"]
    ((place, text),) = shorthands(settings)
    assert place.endswith("#routes[0].public")
    assert 'context.path like "/assets/*"' in text and 'context.path == "/health"' in text
    edit(config, "  - name: app", "  - name: app-public")
    assert "policy app-staff" in told(config)


def test_a_policy_problem_is_told_where_the_policy_stands(config: Path, base: Path) -> None:
    edit(config, "policies/good.cedar", "policies/bad.cedar")
    text = told(config)
    assert f"{base}/policies/bad.cedar:4:1: " in text
    assert "'apps'" in text and "app" in text


def test_policies_whose_tests_fail_are_not_used(config: Path, base: Path) -> None:
    edit(
        config, "files: [policies/good.cedar]", "files: [policies/*.cedar]\n  tests: [policies/failing.yaml]"
    )
    (base / "policies/bad.cedar").unlink()
    text = told(config)
    assert f"{base}/policies/failing.yaml:5:1: " in text
    assert "everybody is refused" in text and "staff gets in" not in text


def test_problems_of_settings_and_policies_are_told_together(config: Path) -> None:
    edit(config, "policies/good.cedar", "policies/bad.cedar")
    edit(config, "host: portal.corp.example", "host: portal.corp.example\n  titel: x")
    text = told(config)
    assert "did you mean 'title'?" in text and "bad.cedar" in text


def test_several_matching_certificates_and_wildcards(config: Path) -> None:
    from ztproxy.config.checks.certificates import covers

    names = {"a.example", "*.b.example"}
    assert covers(names, "a.example") and covers(names, "x.b.example")
    assert (
        not covers(names, "b.example")
        and not covers(names, "x.y.b.example")
        and not covers(names, "xa.example")
    )


def test_what_settings_write_can_be_read_again(config: Path, base: Path) -> None:
    import json

    settings = load(config)
    again = base / "again.yaml"
    again.write_text(settings.model_dump_json(by_alias=True, exclude_none=True))
    assert load(again).model_dump() == settings.model_dump()
    assert load(again).routes() == settings.routes()
    written = {"idle": "30m", "absolute": "10h", "recheck_grace": "1h", "changed_grace": "1m"}
    written["risk_kept"] = "400d"
    assert json.loads(again.read_text())["sessions"] == written


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("", ("openid", "profile", "email")),
        ("offline: false", ("openid", "profile", "email")),
        ("offline: true", ("openid", "profile", "email", "offline_access")),
        ("offline: true, scopes: [openid, groups]", ("openid", "groups", "offline_access")),
        ("offline: true, scopes: [openid, offline_access, email]", ("openid", "offline_access", "email")),
        ("scopes: [openid, offline_access]", ("openid", "offline_access")),
    ],
)
def test_who_wants_to_ask_again_asks_for_a_refresh_token_once(
    config: Path, written: str, asked: tuple[str, ...]
) -> None:
    edit(config, "client_id: ztproxy", "\n      ".join(["client_id: ztproxy", *_lines(written)]))
    assert [provider.scopes for provider in load(config).providers()] == [asked]


def _lines(written: str) -> list[str]:
    return [part for part in re.split(r", (?=scopes)", written) if part]


@pytest.mark.parametrize("secret", ["file:secrets/client", "env:OIDC"])
def test_secrets_are_never_shown(config: Path, secret: str) -> None:
    edit(config, "file:secrets/client", secret)
    settings = load(config, {"OIDC": "s3cr3t-in-a-file"})
    shown = [
        repr(settings),
        str(settings),
        str(settings.identity.providers[0].client_secret),
        f"{settings.identity.providers[0].client_secret!r:>50}",
        settings.model_dump_json(),
        repr(settings.model_dump()),
        repr(settings.providers()),
    ]
    assert not [text for text in shown if "s3cr3t" in text or "PRIVATE KEY" in text]
    assert settings.identity.providers[0].client_secret.reveal() == "s3cr3t-in-a-file"


@pytest.mark.parametrize(
    "line",
    [
        "client_secret: s3cr3t-value",
        "client_secert: s3cr3t-value",
        "client_secret: [s3cr3t-value]",
        "client_secret: {s3cr3t-value: s3cr3t-value2}",
        "client_secret: *s3cr3t-value",
        "client_secret: 'x\n  s3cr3t-value",
        "scopes: s3cr3t-value",
        "issuer: https://u:s3cr3t-value@idp.corp.example",
        "algorithms: [s3cr3t-value]",
    ],
)
def test_problems_never_quote_what_could_be_a_secret(config: Path, line: str) -> None:
    edit(config, "client_secret: file:secrets/client", line)
    assert "s3cr3t-value" not in told(config)


def test_one_newline_is_taken_off_a_secret_file(config: Path, base: Path) -> None:
    path = base / "secrets/client"
    for raw, value in (("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")):
        path.write_text(raw)
        assert load(config).identity.providers[0].client_secret.reveal() == value
    path.write_text("\n")
    assert "is empty" in told(config)


def test_a_pipe_is_no_secret_file(config: Path, base: Path) -> None:
    (base / "secrets/client").unlink()
    os.mkfifo(base / "secrets/client", 0o600)
    assert "not a regular file" in told(config)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_a_mounted_secret_of_root_may_be_read_by_its_group(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydantic_core import PydanticCustomError

    from ztproxy.config.files import Files
    from ztproxy.config.secrets import resolve

    path = base / "secrets/client"
    monkeypatch.setattr(os, "geteuid", lambda: 10_001)
    path.chmod(0o440)
    assert resolve("file:secrets/client", base, {}, Files()).reveal() == "s3cr3t-in-a-file"
    for mode in (0o444, 0o460, 0o450):
        path.chmod(mode)
        with pytest.raises(PydanticCustomError, match="others can read"):
            resolve("file:secrets/client", base, {}, Files())
    os.chown(path, 4242, 0)
    path.chmod(0o600)
    with pytest.raises(PydanticCustomError, match="another user"):
        resolve("file:secrets/client", base, {}, Files())


def test_the_file_itself(base: Path) -> None:
    assert "no such file" in told(base / "none.yaml")
    assert "is a directory" in told(base)
    path = base / "ztproxy.yaml"
    for raw, words in (
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"[1]\n", "expected a section of keys"),
        (b"just words\n", "expected a section of keys"),
        (b"a: \xff\n", "not UTF-8"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML"),
        (b"#" * (1 << 20) + b"#\n", "larger than"),
    ):
        path.write_bytes(raw)
        assert words in told(path)


def test_an_empty_environment_variable_is_not_a_secret(config: Path) -> None:
    edit(config, "file:secrets/client", "env:OIDC")
    assert "OIDC is not set" in told(config, {"OIDC": ""})
    assert "not the name of an environment variable" in told(edit(config, "env:OIDC", "env:A B"))


def test_settings_are_frozen(config: Path) -> None:
    settings: Settings = load(config)
    with pytest.raises(ValueError, match="frozen"):
        settings.workers = 3  # type: ignore[misc]
