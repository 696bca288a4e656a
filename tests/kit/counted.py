"""Which test files scripts/test counts branches in: most branches for the least of CPU.

Counting makes a test two to three times as expensive, and starts a process 0.1 s later. So it is
for the files of units, but those that compute for long to take the same branches again, and for
integration tests that take many branches with few servers. scripts/coverage counts in all tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]

UNITS: Final = frozenset(
    "acme config http management master names proxy routing runtime shared stores".split()
)
"""Folders whose files are counted."""

WITHOUT: Final = frozenset(
    {
        # Thousands of examples, of branches that other tests of the same folders take.
        "http/h1/test_grammar_fuzz.py",
        "http/h1/test_grammar_llhttp.py",
        "http/h1/test_section_memory.py",
        "routing/test_table_model.py",
        # It has clients that are in time only if nothing slows the server down.
        "management/test_management_server.py",
        # Processes that are killed, and whose figures are lost.
        "management/test_process.py",
        "shared/test_crashes.py",
    }
)
"""Files in those folders that are not."""

INTEGRATION: Final = frozenset(
    f"integration/test_{name}.py"
    for name in (
        "api connect_timeout disconnects errors exchanges forwarding_bodies forwarding_headers "
        "hostile_requests hostile_responses options_errors options_redirect proxy_protocol routing "
        "shared_losses shared_routes stale_connections streaming supervision upgrades"
    ).split()
)
"""Other files that are counted."""


def is_counted(path: Path) -> bool:
    """Whether scripts/test counts branches in a test file."""
    name = path.relative_to(TESTS).as_posix()
    return name in INTEGRATION or (name.partition("/")[0] in UNITS and name not in WITHOUT)
