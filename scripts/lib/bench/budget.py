"""What this proxy may cost, and whom it may keep waiting: what a change must not go beyond."""

from __future__ import annotations

# By row and contender: ours divided by theirs; CPU, and memory for the idle tunnels.
BUDGET: dict[str, dict[str, float]] = {
    "http-1k": {"chp": 0.36, "traefik": 1.0, "caddy": 0.85},
    "new-connection": {"chp": 0.25, "traefik": 0.8, "caddy": 0.75},
    "http-100k": {"chp": 0.28, "traefik": 1.0, "caddy": 0.7},
    "download-10m": {"chp": 0.27, "traefik": 1.1, "caddy": 0.9},
    "upload-1m": {"chp": 0.35, "traefik": 1.1, "caddy": 1.1},
    "https-1k": {"chp": 0.5, "traefik": 0.85},
    "https-handshake": {"traefik": 1.2, "nginx": 2.5},
    "https-resumed": {"traefik": 1.0, "caddy": 1.0},
    "ws-64": {"chp": 0.6, "traefik": 1.0, "caddy": 1.0},
    "ws-64k": {"chp": 0.35, "traefik": 0.7, "caddy": 0.7},
    "idle": {"chp": 0.1, "traefik": 0.04, "caddy": 0.04},
    "api-add-1000": {"chp": 1.0},
    "api-add-10000": {"chp": 1.0},
    "api-add-100000": {"chp": 1.0},
}

# By row and contender: p99 of ours divided by theirs, in the same run.
BUDGET_TAIL: dict[str, dict[str, float]] = {
    "beside-bulk": {"traefik": 1.25},
    "beside-bulk-tls": {"traefik": 1.25},
}

# By row: the figure of ours that counts, and its milliseconds at most.
BUDGET_MS: dict[str, tuple[str, float]] = {
    "beside-tiny-chunks": ("p99_ms", 50.0),
    "restart-worker": ("p50_ms", 150.0),
    "restart-management": ("p50_ms", 120.0),
}

# Rows of one contender beside another row of its own, in the same round: CPU, ours at most.
BUDGET_WITHIN: dict[tuple[str, str], float] = {
    ("routes-changing", "routes-10"): 1.1,
    ("routes-big", "routes-10"): 1.1,
    ("store-sqlite", "store-none"): 1.01,
    ("store-redis", "store-none"): 1.01,
}
