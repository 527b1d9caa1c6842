"""From settings to the store: the one place that knows the back ends by name.

Called by `service.tenure`. Files of TLS are read as the configuration holds them, not as the disk does.
"""

import base64
import ssl

from ztproxy.config.settings import Settings
from ztproxy.config.store_sections import Redis
from ztproxy.crypto.envelope import KEY_BYTES, parse_key
from ztproxy.net import keyfiles
from ztproxy.net.clock import Clock, entropy
from ztproxy.net.tls import client_context
from ztproxy.service.state import StateDirectory
from ztproxy.store.interface import Store
from ztproxy.store.redis import RedisStore
from ztproxy.store.redis_client import RedisOptions
from ztproxy.store.sealed import SealedStore
from ztproxy.store.sqlite import SqliteStore


async def open_store(settings: Settings, state: StateDirectory, clock: Clock) -> Store:
    """Open what the configuration chose, sealing what is secret.

    Raises StoreUnavailable, KeyFileError, OSError, ValueError.
    """
    keys = [parse_key(secret.reveal()) for secret in settings.store.keys] or [_own_key(state)]
    store = await _open(settings, state, clock)
    try:
        return await SealedStore(store, keys, entropy).prove()
    except BaseException:
        await store.close()
        raise


async def _open(settings: Settings, state: StateDirectory, clock: Clock) -> Store:
    redis = settings.store.redis
    if redis is None:
        return await SqliteStore.open(state.database, clock.now)
    return await RedisStore.open(
        redis_options(settings, redis),
        clock.now,
        name=redis.name,
        durable=redis.durable == "strict",
        replicas=redis.replicas,
    )


def _own_key(state: StateDirectory) -> bytes:
    """Return the key in the state directory, made at the first start. Raises KeyFileError, ValueError."""
    fresh = base64.b64encode(entropy(KEY_BYTES)) + b"\n"
    return parse_key(keyfiles.load_or_create(state.keys / "store.key", fresh).decode("ascii", "replace"))


def redis_options(settings: Settings, redis: Redis) -> RedisOptions:
    """Return how Redis is reached. Raises OSError (ssl.SSLError among them)."""
    sentinel = redis.sentinel
    return RedisOptions(
        url=redis.url or "",
        sentinels=tuple((one.host, one.port) for one in sentinel.servers) if sentinel else (),
        master=sentinel.master if sentinel else "",
        sentinel_username=sentinel.username if sentinel else None,
        sentinel_password=sentinel.password.reveal() if sentinel and sentinel.password else None,
        cluster=redis.cluster,
        username=redis.username,
        password=redis.password.reveal() if redis.password else None,
        tls=_tls(settings, redis),
        server_name=(redis.tls and redis.tls.server_name) or "",
        connect_timeout=redis.connect_timeout / 1000,
        timeout=redis.timeout / 1000,
    )


def _tls(settings: Settings, redis: Redis) -> ssl.SSLContext | None:
    if not redis.encrypted:
        return None
    tls = redis.tls
    if tls is None:
        return client_context(None)
    with settings.files.laid_out() as at:
        ca = str(at(tls.ca)) if tls.ca else None
        certificate = str(at(tls.certificate)) if tls.certificate else None
        key = str(at(tls.key.path)) if tls.key and tls.key.path else None
        return client_context(ca, certificate, key)
