"""The example for Kubernetes is one: by its schemas, and by our own options."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from chp_gevent.cli import parse
from chp_gevent.shared.readiness import CURRENT_PATH, READY_PATH
from tests.kit.server import REPOSITORY

DOCUMENTS: list[dict[str, Any]] = list(
    yaml.safe_load_all((REPOSITORY / "conf" / "kubernetes.yaml").read_text("utf-8"))
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_kubernetes_takes_it(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.32", strict=True)


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in DOCUMENTS if document["kind"] == kind]


def test_the_options_are_ours_and_the_probes_are_answered() -> None:
    (deployment,) = of_kind("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    arguments = [each.replace("$(POD_NAME)", "chp-gevent-5f-x2") for each in container["args"]]
    options = parse(arguments, {"CONFIGPROXY_AUTH_TOKEN": "x"})
    assert options.shared_store is not None
    assert options.drain_timeout + 5 < pod["terminationGracePeriodSeconds"]
    probes = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness")
    }
    assert probes == {"startup": CURRENT_PATH, "readiness": READY_PATH}
    ports = {port["name"] for port in container["ports"]}
    for service in of_kind("Service"):
        assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
