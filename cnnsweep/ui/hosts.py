"""The names by which browsers call the UI's server: MLflow refuses requests and pages of any other name (403)."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping

HOSTS, ORIGINS = "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
EVERYWHERE = ("0.0.0.0", "::")
LOCAL = ("localhost", "127.0.0.1", "::1")
TEST_ADDRESS = ("192.0.2.1", 9)
"""Of a network that exists in documents only (RFC 5737); nothing is sent to it."""


def is_local(host: str) -> bool:
    """Whether a server that listens on this host can be reached from this machine alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def base_address(host: str, port: int) -> str:
    """The address of a server that listens on a host, for a browser on another machine where one can reach it.

    >>> base_address("127.0.0.1", 5000), base_address("::1", 80), base_address("gpu1", 5000)
    ('http://127.0.0.1:5000', 'http://[::1]:80', 'http://gpu1:5000')
    """
    return f"http://{_bracketed(own_address() if host in EVERYWHERE else host)}:{port}"


def health_address(host: str, port: int) -> str:
    """The address at which this machine itself can ask whether the server is up."""
    return f"http://{_bracketed({'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host))}:{port}"


def own_address() -> str:
    """The address of this machine in its network; a name may be unknown to others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(TEST_ADDRESS)
        return str(probe.getsockname()[0])
    return next((a for a in _addresses() if not is_local(a)), socket.gethostname())


def variables(host: str, port: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The hosts and origins that MLflow's server is to accept; those that are set already are kept.

    A server that only this machine reaches needs none. Addresses are complete: `10.*` would match 10.example.org too.
    """
    given = [name.strip() for name in environment.get(HOSTS, "").split(",") if name.strip()]
    if is_local(host) and not given:
        return {}
    name = socket.gethostname()
    named = () if host in EVERYWHERE else (host,)
    names = [*LOCAL, *named, name, f"{name}.local", socket.getfqdn(), own_address(), *_addresses()]
    own = dict.fromkeys(f"{_bracketed(n.lower())}{suffix}" for n in names for suffix in _suffixes(port))
    hosts = list(dict.fromkeys([*given, *own]))
    origins = [o.strip() for o in environment.get(ORIGINS, "").split(",") if o.strip()]
    origins += [f"{scheme}://{name}" for name in given for scheme in ("http", "https")]
    origins += [f"http://{name}" for name in own]
    return {HOSTS: ",".join(hosts), ORIGINS: ",".join(dict.fromkeys(origins))}


def _suffixes(port: int) -> tuple[str, ...]:
    """Browsers leave out a scheme's own port."""
    return (f":{port}", "") if port == 80 else (f":{port}",)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _addresses() -> list[str]:
    """All of this machine's addresses."""
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    found = [a.address for all_ in psutil.net_if_addrs().values() for a in all_ if a.family in families]
    return [address for address in found if "%" not in address]  # of one link only
