"""From the values of a command line to the options of a table that servers share."""

from __future__ import annotations

from collections.abc import Mapping

from chp_gevent.config.argv import CommandLine
from chp_gevent.config.option import Option
from chp_gevent.config.options import OptionError
from chp_gevent.config.storage_options import SharedStoreOptions, engine_place, is_engine_url
from chp_gevent.config.table import api, storage


def shared_store(arguments: CommandLine, environ: Mapping[str, str]) -> SharedStoreOptions | None:
    """Validate what a command line says of a table that servers share; None if nothing.

    ``environ`` holds the secrets.

    Raises OptionError for the first thing that is wrong.
    """
    backend = arguments.get(api.STORAGE_BACKEND)
    if backend is None or not is_engine_url(backend):
        for option in (each for each in vars(storage).values() if isinstance(each, Option)):
            arguments.get(option)
            if option.flag in arguments.given:
                raise OptionError(f"{option.flag}: needs --storage-backend redis://HOST:PORT")
        return None
    place = engine_place(backend)
    ca = arguments.get(storage.STORAGE_SSL_CA)
    cert = arguments.get(storage.STORAGE_SSL_CERT)
    key = arguments.get(storage.STORAGE_SSL_KEY)
    if bool(cert) != bool(key):
        given, other = ("cert", "key") if cert else ("key", "cert")
        raise OptionError(f"--storage-ssl-{given}: needs --storage-ssl-{other}")
    if (ca or cert) and not place.is_encrypted:
        raise OptionError(
            f"--storage-ssl-{'ca' if ca else 'cert'}: needs a --storage-backend that begins with "
            "rediss"
        )
    return SharedStoreOptions(
        place=place,
        prefix=arguments.get(storage.STORAGE_PREFIX),
        lease=arguments.get(storage.STORAGE_LEASE),
        replicas_to_wait_for=arguments.get(storage.STORAGE_WAIT),
        start_timeout=arguments.get(storage.STORAGE_START_TIMEOUT),
        name=arguments.get(storage.REPLICA_NAME) or "",
        ca=ca,
        cert=cert,
        key=key,
        username=environ.get("CONFIGPROXY_STORAGE_USERNAME") or None,
        password=environ.get("CONFIGPROXY_STORAGE_PASSWORD") or None,
        sentinel_password=environ.get("CONFIGPROXY_STORAGE_SENTINEL_PASSWORD") or None,
    )
