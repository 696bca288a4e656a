"""atheris, which leads inputs by coverage: found, or installed into a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

_INSTALL_SECONDS = 300.0
_IMPORT_SECONDS = 60.0


class NoGuideError(Exception):
    """There is no atheris for this Python, or none can be installed; the reason in a line."""


def default_cache() -> Path:
    """The folder that atheris is kept in, for this version of Python."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "chp-gevent-fuzz" / str(sys.implementation.cache_tag)


def python_path(cache: Path) -> list[str]:
    """Return the folders in which a Python that is started finds atheris; none if it does anyway.

    Raises ``NoGuideError``.
    """
    if importlib.util.find_spec("atheris") is not None:
        return []
    if not (cache / "atheris").exists():
        _install(cache)
    return [str(cache)]


def _install(cache: Path) -> None:
    made = cache.with_name(f"{cache.name}.{os.getpid()}")
    # To build it takes a compiler of its own.
    pip = [sys.executable, "-m", "pip", "install", "--only-binary", ":all:", "--target", str(made)]
    quiet = {"PIP_RETRIES": "1", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        _run([*pip, "atheris"], _INSTALL_SECONDS, quiet)
        _run([sys.executable, "-c", "import atheris"], _IMPORT_SECONDS, {"PYTHONPATH": str(made)})
        made.replace(cache)
    except OSError as error:
        raise NoGuideError(str(error)) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _run(command: list[str], seconds: float, env: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoGuideError(f"not done after {seconds:g} s: {' '.join(command[1:5])}") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        wrong = [line for line in said if "ERROR" in line] or said or ["no word about why"]
        raise NoGuideError(wrong[-1].strip())
