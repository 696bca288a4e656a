"""What this proxy may cost beside its peers: the ratios that a change must not go beyond."""

from __future__ import annotations

# By row and contender: ours divided by theirs; CPU, and memory for the idle tunnels.
BUDGET: dict[str, dict[str, float]] = {
    "http-1k": {"chp": 0.36, "traefik": 1.0, "caddy": 0.85},
    "new-connection": {"chp": 0.25, "traefik": 0.8, "caddy": 0.75},
    "http-100k": {"chp": 0.28, "traefik": 1.0, "caddy": 0.7},
    "download-10m": {"chp": 0.27, "traefik": 1.1, "caddy": 0.9},
    "upload-1m": {"chp": 0.35, "traefik": 1.1, "caddy": 1.1},
    "https-1k": {"chp": 0.5},
    "ws-64": {"chp": 0.6, "traefik": 1.0, "caddy": 1.0},
    "ws-64k": {"chp": 0.35, "traefik": 0.7, "caddy": 0.7},
    "idle": {"chp": 0.1, "traefik": 0.04, "caddy": 0.04},
    "api-add-1000": {"chp": 1.0},
    "api-add-10000": {"chp": 1.0},
    "api-add-100000": {"chp": 1.0},
}

# Rows of one contender beside another row of its own, in the same round: CPU, ours at most.
BUDGET_WITHIN: dict[tuple[str, str], float] = {
    ("routes-changing", "routes-10"): 1.1,
    ("routes-big", "routes-10"): 1.1,
}
