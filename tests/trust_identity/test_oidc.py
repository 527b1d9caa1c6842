"""Signing in at an OpenID provider: the happy way, and every way a provider or a stranger can cheat."""

import asyncio
import base64
import gzip
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jws
from joserfc.jwk import RSAKey

from ztproxy.model.subject import Principal
from ztproxy.trust.identity.provider import REASONS, Provider, SignInRefused, TemporaryProviderError

NOW = 1_800_000_000


async def refused(place, reason, **changes):
    with pytest.raises(SignInRefused) as caught:
        await place.sign_in(**changes)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert "s3cret" not in str(caught.value)


async def test_a_sign_in(place):
    found = await place.sign_in()
    assert found.principal == Principal(
        kind="User",
        id="corp:carol",
        issuer=place.provider.issuer,
        name="Carol",
        email="carol@example.com",
        groups=("staff",),
    )
    assert (found.auth_time, found.amr, found.acr) == (NOW * 1000, ("pwd", "otp"), "urn:mfa")
    assert "/userinfo" not in place.provider.asked


async def test_what_the_provider_is_asked(place):
    attempt = place.attempt(fresh=True)
    url = urlsplit(await place.client.authorization_url(attempt))
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert asked.pop("code_challenge") not in ("", attempt.verifier)
    assert asked == {
        "response_type": "code",
        "client_id": "zt",
        "redirect_uri": attempt.redirect_uri,
        "scope": "openid profile email",
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge_method": "S256",
        "prompt": "login",
    }


async def test_the_secret_goes_in_the_header_form_encoded(place):
    await place.sign_in()
    basic = place.provider.fields[0]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(basic) == b"zt:s3cret%3A%2F%26"
    assert "client_secret" not in place.provider.forms[0]
    assert place.provider.forms[0]["code_verifier"] == "V" * 43


async def test_the_secret_goes_in_the_body_where_only_that_is_taken(place):
    place.provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    await place.sign_in()
    assert "Authorization" not in place.provider.fields[0]
    assert place.provider.forms[0]["client_secret"] == "s3cret:/&"


async def test_a_public_client_has_pkce_alone(place):
    await place.restart(client_secret="").sign_in()
    assert "Authorization" not in place.provider.fields[0]
    assert place.provider.forms[0]["client_id"] == "zt"


async def test_no_common_way_to_authenticate(place):
    place.provider.metadata = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    await refused(place, "provider-invalid")


# the ID token


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": []},
        {"aud": None},
        {"aud": "somebody"},
        {"aud": ["zt", "other"]},  # several audiences and no azp
        {"aud": ["zt", "other"], "azp": "other"},
        {"azp": "other"},
        {"azp": ""},
        {"nonce": "N" * 42 + "M"},
        {"nonce": None},
        {"nonce": 7},
        {"exp": NOW - 61},
        {"exp": None},
        {"exp": str(NOW + 300)},
        {"exp": True},
        {"iat": None},
        {"iat": "now"},
        {"iat": NOW + 61},
        {"nbf": NOW + 61},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"at_hash": 1},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"sub": "a\nb"},
        {"auth_time": "yesterday"},
        {"auth_time": True},
        {"groups": {"staff": True}},
        {"groups": ["staff", 7]},
        {"groups": [str(n) for n in range(1001)]},
        {"groups": ["g" * 513]},
    ],
    ids=lambda claims: json.dumps(claims)[:40],
)
async def test_claims_that_are_not_believed(place, claims):
    place.provider.claims = claims
    await refused(place, "token-invalid")


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["zt"]},
        {"aud": ["zt", "other"], "azp": "zt"},
        {"exp": NOW - 50},  # within the leeway
        {"iat": NOW + 50},
        {"at_hash": None},
        {"amr": None, "acr": None},
    ],
    ids=lambda claims: json.dumps(claims),
)
async def test_claims_that_are_fine(place, claims):
    place.provider.claims = claims
    assert (await place.sign_in()).principal.id == "corp:carol"


def unsigned(claims):
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "none"}, claims)
    )
    return f"{head}.{body}."


async def test_alg_none(place):
    place.provider.sign = unsigned
    await refused(place, "token-invalid")


async def test_hmac_with_the_public_key(place):
    place.provider.sign = place.provider.sign_with_public_key
    await refused(place, "token-invalid")


async def test_an_algorithm_this_provider_is_not_allowed(place):
    place.provider.public = [place.provider.public_of(place.provider.key, alg="RS512")]
    place.provider.header = {"alg": "RS512"}
    await refused(place, "token-invalid")


@pytest.mark.parametrize(
    "header", [{"typ": "at+jwt"}, {"typ": "logout+jwt"}, {"kid": "../../keys"}, {"kid": "k2"}]
)
async def test_headers_that_are_not_believed(place, header):
    place.provider.header = header
    await refused(place, "token-invalid")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "RS256", "kid": 7},
        {"alg": ["RS256"], "kid": "k1"},
        {"alg": "RS256", "kid": "k1", "crit": ["exp"], "exp": 1},
        {"alg": "RS256", "kid": "k1", "typ": 7},
        {"kid": "k1"},
    ],
    ids=json.dumps,
)
async def test_headers_that_no_library_writes(place, header):
    honest = place.provider.sign_honestly
    place.provider.sign = lambda claims: _with_header(honest(claims), header)
    await refused(place, "token-invalid")


def _with_header(token, header):
    """The same claims behind another header. (The signature is wrong too: either is reason enough.)"""
    _, body, signature = token.split(".")
    return f"{base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b'=').decode()}.{body}.{signature}"


@pytest.mark.parametrize(
    "bend",
    [
        lambda token: token[:-3] + ("AAA" if not token.endswith("AAA") else "BBB"),
        lambda token: token + "=",
        lambda token: token + "\n",
        lambda token: token.replace(".", "..", 1),
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token + "." + token,
        lambda token: "x" * (64 * 1024 + 1),
        lambda token: "",
        lambda token: None,
        lambda token: 7,
    ],
)
async def test_tokens_that_are_malformed(place, bend):
    honest = place.provider.sign_honestly
    place.provider.sign = lambda claims: bend(honest(claims))
    await refused(place, "token-invalid")


async def test_a_claim_twice(place):
    def twice(claims):
        body = json.dumps(claims)[:-1] + ', "sub": "admin"}'
        return jws.serialize_compact({"alg": "RS256", "kid": "k1"}, body, place.provider.key)

    place.provider.sign = twice
    await refused(place, "token-invalid")


async def test_a_key_of_a_stranger(place):
    stranger = RSAKey.import_key(rsa.generate_private_key(65537, 2048), {"kid": "k1"})
    place.provider.key = stranger  # the published key stays
    await refused(place, "token-invalid")


# keys


async def test_keys_are_fetched_once_for_all_who_wait(place):
    await asyncio.gather(*[place.sign_in() for _ in range(10)])
    assert place.provider.asked.count("/jwks") == 1
    assert place.provider.asked.count("/.well-known/openid-configuration") == 1


async def rotate(place):
    key = RSAKey.import_key(rsa.generate_private_key(65537, 2048), {"kid": "k2"})
    place.provider.key = key
    place.provider.public = [place.provider.public_of(key)]
    place.provider.header = {"kid": "k2"}


async def test_a_rotated_key_is_found_but_strangers_cannot_make_us_fetch(place):
    await place.sign_in()
    place.provider.header = {"kid": "unknown"}
    for _ in range(5):
        await refused(place, "token-invalid")
    assert place.provider.asked.count("/jwks") == 1
    place.clock.advance(31)
    await rotate(place)
    assert (await place.sign_in()).principal.id == "corp:carol"
    assert place.provider.asked.count("/jwks") == 2


async def test_the_last_good_keys_serve_for_a_day(place):
    await place.sign_in()
    place.provider.answers["/jwks"] = _status(503)
    place.clock.advance(2 * 3600)
    place.provider.claims = {"iat": NOW + 7200, "exp": NOW + 7500}
    await place.sign_in()
    place.clock.advance(23 * 3600)
    place.provider.claims = {"iat": NOW + 25 * 3600, "exp": NOW + 25 * 3600 + 300}
    with pytest.raises(TemporaryProviderError):
        await place.sign_in()


# answers


def _status(status, **given):
    async def answer(request):
        return web.json_response(given or {"error": "x"}, status=status)

    return answer


def _redirect(to):
    async def answer(request):
        raise web.HTTPFound(to)

    return answer


async def _huge(request):
    return web.Response(body=b'{"keys": [' + b" " * (512 * 1024) + b"]}", content_type="application/json")


async def _endless(request):
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b" " * 65536)
    except (ConnectionError, asyncio.CancelledError):
        pass
    return response


async def _html(request):
    return web.Response(text="<p>hello", content_type="text/html")


async def _deep(request):
    return web.Response(body=b'{"keys":' + b"[" * 50_000, content_type="application/json")


async def _compressed(request):
    return web.Response(
        body=gzip.compress(b"{}"), content_type="application/json", headers={"Content-Encoding": "gzip"}
    )


ENDPOINTS = ["/.well-known/openid-configuration", "/jwks", "/token"]


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("answer", [_huge, _endless, _html, _deep, _compressed])
async def test_answers_that_are_not_read(place, path, answer):
    place.provider.answers[path] = answer
    await refused(place, "provider-invalid")


@pytest.mark.parametrize("path", [*ENDPOINTS, "/userinfo"])
async def test_redirects_are_not_followed(place, path):
    place.provider.claims = {"email": None}
    place.provider.answers[path] = _redirect("/elsewhere")
    await refused(place, "provider-invalid")
    assert "/elsewhere" not in place.provider.asked


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_provider_out_of_order_is_temporary(place, path, status):
    place.provider.answers[path] = _status(status)
    with pytest.raises(TemporaryProviderError):
        await place.sign_in()
    if path == "/.well-known/openid-configuration":
        with pytest.raises(TemporaryProviderError):
            await place.sign_in()
        assert place.provider.asked.count(path) == 1, "asked again too soon"
    del place.provider.answers[path]
    place.clock.advance(6)
    assert (await place.sign_in()).principal.id == "corp:carol"


async def test_a_provider_that_is_away_is_temporary(place, free_port):
    place.restart(issuer=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TemporaryProviderError):
        await place.client.authorization_url(place.attempt())
    assert await place.client.sign_out_url("https://portal.example/") == ""


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://idp.example/authorize"},
        {"authorization_endpoint": None},
        {"token_endpoint": "http://idp.example/token"},
        {"token_endpoint": "https://user@idp.example/token"},
        {"token_endpoint": "https://169.254.169.254/latest"},
        {"jwks_uri": "https://[fe80::1]/jwks"},
        {"jwks_uri": "https://[::ffff:169.254.169.254]/jwks"},
        {"jwks_uri": "https://100.100.100.200/jwks"},
        {"jwks_uri": "https://0.0.0.0/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": ["https://idp.example/jwks"]},
        {"jwks_uri": "https://idp.example/jwks#x"},
        {"userinfo_endpoint": "https://idp.example:99999/"},
        {"end_session_endpoint": "data:text/html,x"},
    ],
    ids=json.dumps,
)
async def test_discovery_that_is_not_believed(place, metadata):
    place.provider.metadata = metadata
    await refused(place, "provider-invalid")


async def test_an_issuer_with_a_slash_more_is_another(place):
    place.restart(issuer=place.provider.issuer + "/")
    await refused(place, "provider-invalid")


# the answer the browser brings


async def test_state_must_be_the_attempts(place):
    attempt = place.attempt()
    answer = await place.answer(attempt)
    with pytest.raises(SignInRefused, match="attempt-unknown"):
        await place.client.sign_in(answer | {"state": "T" * 43}, attempt)
    assert place.provider.forms == []


@pytest.mark.parametrize("issuer", ["https://evil.example", ""])
async def test_an_answer_of_another_provider_is_not_redeemed(place, issuer):
    attempt = place.attempt()
    answer = await place.answer(attempt)
    with pytest.raises(SignInRefused, match="provider-mixed-up"):
        await place.client.sign_in(answer | {"iss": issuer}, attempt)
    del answer["iss"]
    with pytest.raises(SignInRefused, match="provider-mixed-up"):
        await place.client.sign_in(answer, attempt)
    assert place.provider.forms == []


async def test_iss_may_be_missing_where_it_was_not_promised(place):
    place.provider.metadata = {"authorization_response_iss_parameter_supported": None}
    attempt = place.attempt()
    answer = await place.answer(attempt)
    del answer["iss"]
    assert (await place.client.sign_in(answer, attempt)).principal.id == "corp:carol"


async def test_a_code_is_good_once_and_with_its_verifier_only(place):
    attempt = place.attempt()
    answer = await place.answer(attempt)
    with pytest.raises(SignInRefused, match="provider-refused"):
        await place.client.sign_in(answer, place.attempt(verifier="W" * 43))
    answer = await place.answer(attempt)
    await place.client.sign_in(answer, attempt)
    with pytest.raises(SignInRefused, match="provider-refused"):
        await place.client.sign_in(answer, attempt)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("access_denied", SignInRefused),
        ("<script>", SignInRefused),
        ("temporarily_unavailable", TemporaryProviderError),
        ("server_error", TemporaryProviderError),
    ],
)
async def test_errors_of_the_provider(place, error, kind):
    attempt = place.attempt()
    answer = {"state": attempt.state, "iss": place.provider.issuer, "error": error}
    with pytest.raises(kind) as caught:
        await place.client.sign_in(answer, attempt)
    assert "script" not in str(caught.value)


@pytest.mark.parametrize("token", [{"token_type": "mac"}, {"token_type": None}])
async def test_token_types(place, token):
    place.provider.token = token
    await refused(place, "provider-invalid")


# the person


async def test_groups_and_email_come_from_userinfo_when_the_token_lacks_them(place):
    place.provider.claims = {"groups": None, "email": None}
    place.provider.userinfo = {"groups": "ops", "email": "c@example.com", "acr": "forged", "auth_time": 0}
    found = await place.sign_in()
    assert (found.principal.groups, found.principal.email) == (("ops",), "c@example.com")
    assert found.acr == "urn:mfa"


async def test_userinfo_about_somebody_else(place):
    place.provider.claims = {"groups": None}
    place.provider.userinfo = {"sub": "admin", "groups": ["admins"]}
    await refused(place, "provider-invalid")


@pytest.mark.parametrize("verified", [False, "false", "False", "no", "", 0, [], {}])
async def test_an_email_that_is_not_verified_is_not_taken(place, verified):
    place.provider.claims = {"email_verified": verified}
    assert (await place.sign_in()).principal.email == ""


async def test_an_email_that_is_verified_is_taken(place):
    place.provider.claims = {"email_verified": "true"}
    assert (await place.sign_in()).principal.email == "carol@example.com"


async def test_names_with_control_characters_are_not_taken(place):
    place.provider.claims = {"name": "Carol\r\nX-Admin: 1", "email": "a\nb@example.com"}
    found = await place.sign_in()
    assert (found.principal.name, found.principal.email) == ("carol", "")


async def test_without_auth_time_the_sign_in_counts(place):
    place.provider.claims = {"auth_time": None}
    assert (await place.sign_in()).auth_time == place.clock.now()


async def test_a_fresh_sign_in_must_be_shown_to_be_fresh(place):
    assert await place.sign_in(fresh=True)
    place.provider.claims = {"auth_time": NOW - 61}
    await refused(place, "not-fresh", fresh=True)
    place.provider.claims = {"auth_time": None}
    await refused(place, "not-fresh", fresh=True)


async def test_sign_out_at_the_provider(place):
    url = urlsplit(await place.client.sign_out_url("https://portal.example:8443/"))
    assert url.path == "/bye"
    assert parse_qs(url.query) == {
        "client_id": ["zt"],
        "post_logout_redirect_uri": ["https://portal.example:8443/"],
    }
    place.provider.metadata = {"end_session_endpoint": None}
    assert await place.restart().client.sign_out_url("https://portal.example:8443/") == ""


# settings


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": ("HS256",)},
        {"algorithms": ("none",)},
        {"algorithms": ()},
        {"scopes": ("profile",)},
        {"name": "a:b"},
        {"name": ""},
    ],
)
def test_settings_that_are_refused(changes):
    good = {"name": "corp", "title": "Corp", "issuer": "https://idp.example", "client_id": "zt"}
    Provider(**good)
    with pytest.raises(ValueError, match="provider"):
        Provider(**good | changes)


def test_the_secret_is_not_shown():
    provider = Provider(name="corp", title="", issuer="https://i", client_id="zt", client_secret="hush")
    assert "hush" not in repr(provider) and "hush" not in str(provider)
