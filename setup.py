"""Packaging of chp-gevent; tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION_FILE = (HERE / "chp_gevent" / "_version.py").read_text(encoding="utf-8")
VERSION = re.search(r'__version__ = "(.+)"', VERSION_FILE)[1]

TEST = [
    "hypothesis>=6.100",
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "requests>=2.31",
    "trustme>=1.1",
    "websockets>=13.0",
    "jupyterhub>=5.0",
    # With jupyter-server-terminals.
    "jupyter-server>=2.10",
    "ipykernel>=6.29",
    "httptools>=0.6",
]

setup(
    name="chp-gevent",
    version=VERSION,
    description="configurable-http-proxy in Python: gunicorn, gevent and urllib3",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    packages=find_packages(include=["chp_gevent", "chp_gevent.*"]),
    package_data={"chp_gevent": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "docopt-ng>=0.9",
        "gevent>=25.4",
        "gevent-websocket>=0.10.1",
        "gunicorn>=26.0",
        "msgspec>=0.18",
        # gunicorn's gevent worker imports it without requiring it.
        "packaging>=20",
        "prometheus-client>=0.20",
        "statsd>=4.0",
        "urllib3>=2.6",
    ],
    extras_require={
        "redis": ["redis>=5.0"],
        "test": TEST,
        "dev": [*TEST, "mypy>=1.11", "ruff>=0.6", "py-spy>=0.3", "types-docopt", "types-gevent"],
    },
    entry_points={
        "console_scripts": [
            "chp-gevent = chp_gevent.cli:main",
            "configurable-http-proxy = chp_gevent.cli:main",
        ]
    },
    classifiers=[
        "Environment :: Web Environment",
        "Framework :: Jupyter",
        "License :: OSI Approved :: BSD License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Internet :: Proxy Servers",
    ],
)
