"""Adds and deletes routes through the REST API at a steady rate; prints one JSON line.

Usage: churn_client.py PORT TOKEN CHANGES_PER_SECOND SECONDS TARGET
"""

from __future__ import annotations

import http.client
import json
import sys
import time


def main() -> None:
    """Alternate POST and DELETE of routes on a fixed schedule."""
    port, token, rate, seconds, target = sys.argv[1:]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
    headers = {"Authorization": f"token {token}"}
    body = json.dumps({"target": target})
    began = time.perf_counter()
    done = wrong = 0
    while done < float(rate) * float(seconds):
        ahead = began + done / float(rate) - time.perf_counter()
        if ahead > 0:
            time.sleep(ahead)
        elif time.perf_counter() - began > float(seconds) + 5:
            break
        method, expected = ("POST", 201) if done % 2 == 0 else ("DELETE", 204)
        path = f"/api/routes/churn/c{done // 2}"
        connection.request(method, path, body if method == "POST" else None, headers)
        answer = connection.getresponse()
        answer.read()
        wrong += answer.status != expected
        done += 1
    spent = time.perf_counter() - began
    print(json.dumps({"units": done, "seconds": spent, "wrong": wrong}))


if __name__ == "__main__":
    main()
