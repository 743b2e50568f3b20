"""An error of docker or Compose becomes one sentence with the remedy. The errors were recorded in November 2026
from Compose 2.40.3, docker 28.2.2 and Docker Engine 20.10.24."""

from __future__ import annotations

import pytest

from runners.containers.docker_errors import explain

ID = "878c1dc16a6d6cb793d17e53a0e68f649384f4d21168d2793399339264f4af84"
ORPHANS = 'time="2026-11-22T01:37:28Z" level=warning msg="Found orphan containers ([n1]) for this project."'

RUNC = "Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: exec: "
NO_PROGRAM = (
    f'{ORPHANS}\n{RUNC}"nosuch": executable file not found in $PATH: unknown\nError: failed to start containers: {ID}'
)
NOT_EXECUTABLE = f'{RUNC}"/etc/passwd": permission denied: unknown'
NO_REGISTRY = (
    'Error response from daemon: Get "https://registry.example/v2/": dial tcp: lookup registry.example on 10.0.0.1:53: '
    "no such host"
)
REGISTRY_REFUSES = (
    'Error response from daemon: Get "https://10.0.0.1:5000/v2/": dial tcp 10.0.0.1:5000: connect: connection refused'
)


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        ("no such service: nosuch", "no such service: nosuch", "set the service's name"),
        (NO_PROGRAM, '"nosuch": executable file not found in $PATH', "the image has no such program"),
        (NOT_EXECUTABLE, "permission denied", "make that program executable"),
        (
            "Error response from daemon: No such image: nosuch-image:1",
            "No such image: nosuch-image:1",
            "build or pull the image",
        ),
        (NO_REGISTRY, "no such host", "set `pull_policy: missing` where the image is there"),
        (REGISTRY_REFUSES, "connection refused", "let the engine reach the registry"),
        ('error during connect: Get "http://10.0.0.7:2375/v1.50/containers": EOF', "EOF", "start the Docker engine"),
        (
            'Error response from daemon: Conflict. The container name "/n1" is already in use by container "fcb6".',
            'The container name "/n1" is already in use',
            "remove or rename that container",
        ),
        (
            "Cannot connect to the Docker daemon at unix:///docker.sock. Is the docker daemon running?",
            "Cannot connect to the Docker daemon at unix:///docker.sock",
            "start the Docker engine",
        ),
        ("it did not answer within 10 s", "it did not answer within 10 s", "start the Docker engine"),
        (
            "docker does not run: [Errno 2] No such file or directory: 'docker'",
            "docker does not run",
            "install the docker command line",
        ),
        ("no configuration file provided: not found", "no configuration file provided", "mend the compose file"),
        ("yaml: line 3: mapping values are not allowed in this context", "yaml: line 3", "mend the compose file"),
        (
            'error while interpolating services.dbt.image: required variable X is missing a value: "set it"',
            "required variable X is missing a value",
            "set it where the gateway runs",
        ),
        ("Error response from daemon: network nowhere not found", "network nowhere not found", "networks exist"),
        ("something that nobody has seen", "something that nobody has seen", "solve that"),
        ("", "docker did not say why", "solve that"),
        (f"{ORPHANS}\n{ID}\n", "docker did not say why", "solve that"),
    ],
)
def test_an_error_becomes_one_sentence_with_its_cause_and_the_remedy(error: str, cause: str, remedy: str) -> None:
    sentence = explain(error)
    assert cause in sentence
    assert remedy in sentence
    assert sentence.startswith("The container could not be started: ")
    assert sentence.endswith(", then trigger it again.")
    assert "\n" not in sentence
    assert "Error" not in sentence


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("network yaml declared as external, but could not be found", "networks exist"),
        ("Error response from daemon: Could not find the file /srv/eof in container run-eof-1", "solve that"),
        ("Error response from daemon: No such image: registry-lookup:1", "build or pull"),
        ("service error-report can't be used: network-undefined", "solve that"),
    ],
)
def test_no_name_of_the_users_decides_what_an_error_means(said: str, remedy: str) -> None:
    assert remedy in explain(said).rpartition("; ")[2]
