"""Load before a measurement, so that it meets a proxy at its usual speed."""

from __future__ import annotations

import time
from collections.abc import Callable

from scripts.lib.bench.definitions import Timing
from scripts.lib.bench.loads import Load
from scripts.lib.bench.proxies import RunningProxy

Work = Callable[[RunningProxy, float], Load]

WARM_UP_LIMIT = 5.0  # the warm-up takes at most so many times as long as on an idle machine


def warm_up(timing: Timing, proxy: RunningProxy, work: Work) -> None:
    """Load until the proxy has spent ``warm_up`` seconds of CPU: on a busy machine some seconds
    of time are too little for a just-in-time compiler."""
    enough = proxy.cpu() + timing.warm_up
    end = time.monotonic() + WARM_UP_LIMIT * timing.warm_up
    while proxy.cpu() < enough and time.monotonic() < end:
        work(proxy, 1.0)
