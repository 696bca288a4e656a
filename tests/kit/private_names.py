"""A server that has /etc/hosts and /etc/resolv.conf of its own, in a mount namespace."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.server import CONSOLE_SCRIPT

FILES = ("hosts", "resolv.conf", "nsswitch.conf")
DNS_PORT = 53


def command_with_names(folder: Path, hosts: str, *, dns: str | None = None) -> list[str]:
    """Return the server's command, to be run with these hosts; skip where that can't be done.

    ``hosts`` is the text of /etc/hosts, ``dns`` the address of a DNS server, by default none.
    """
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are for root")
    (folder / "hosts").write_text(hosts)
    (folder / "resolv.conf").write_text(f"nameserver {dns}\noptions timeout:5\n" if dns else "")
    (folder / "nsswitch.conf").write_text(f"hosts: files{' dns' if dns else ''}\n")
    mounts = "".join(f'mount --bind "{folder}/{name}" /etc/{name} && ' for name in FILES)
    script = f'mount --make-rprivate / && {mounts} exec "$@"'
    return [unshare, "-m", "sh", "-c", script, "sh", *CONSOLE_SCRIPT, "--workers", "1"]


@contextmanager
def silent_dns() -> Iterator[str]:
    """Have a DNS server that never answers; its address is what the block gets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        for _ in range(50):
            # The port is DNS's, so the address is what is free.
            host = ".".join(["127", *(str(random.randrange(1, 255)) for _ in range(3))])
            with contextlib.suppress(PermissionError):
                hole.bind((host, DNS_PORT))
                yield host
                return
        pytest.skip("port 53 is for root")
