"""Error output of docker and Compose as a sentence that says what to do. Pure."""

from __future__ import annotations

import re

from runners.report import one_line

# In all patterns here: the names of containers, images, services and files stand in the same lines, so a single word
# decides nothing unless punctuation marks it as docker's own.

# A line of the docker command line that did not reach the engine. An answer of the engine is no such line, even if it
# says that the engine in turn did not reach a registry.
UNREACHABLE = re.compile(
    r"^(?!.*Error response from daemon:).*(?:cannot connect to the docker daemon|failed to connect to the docker api"
    r"|error during connect: |\bdial (?:unix|tcp) |\bunexpected EOF$)",
    re.IGNORECASE | re.MULTILINE,
)
# A registry that refused or was not reached. With `pull_policy: always` Compose asks it for an image that is there too.
_NOT_PULLED = (
    r'pull access denied|manifest unknown|manifest for|failed to resolve reference|\bGet "https?://|\bdial tcp\b'
)
_COMPOSE_FILE = (
    r"(?:^|: )yaml: |empty compose file|^validating |\bundefined \w+ |invalid compose project"
    r"|error while interpolating |invalid interpolation |\benv file |no configuration file"
)
_AGAIN = "then trigger it again"
# A pattern of the error line and what the user can do. The first pattern that matches decides.
_REMEDIES = (
    (
        rf"{UNREACHABLE.pattern}|\bdid not answer within \d",
        f"start the Docker engine, or set context or host of the fabric's compose, {_AGAIN}",
    ),
    (
        r"permission denied while trying to connect",
        f"let the gateway's user use the engine (group docker), {_AGAIN}",
    ),
    (r"^the folder .* does not exist", f"set compose.directory of the fabric, {_AGAIN}"),
    (r"does not run: .*no such file", f"install the docker command line, {_AGAIN}"),
    (
        r"'compose' is not a docker command|unknown (?:shorthand )?flag: |unknown docker command",
        f"install the Compose v2 plugin, {_AGAIN}",
    ),
    (r"\bvariable \w+ is (?:missing|not set)", f"set it where the gateway runs, in .env or by --env-file, {_AGAIN}"),
    (r"no such service", f"set the service's name in the fabric's compose, or add it to the compose file, {_AGAIN}"),
    (
        r"executable file not found|no such file or directory: unknown|exec format error",
        f"the image has no such program: install it there, or set the program in the configuration, {_AGAIN}",
    ),
    (r"permission denied: unknown", f"make that program executable in the image, {_AGAIN}"),
    (r"no such image", f"build or pull the image, {_AGAIN}"),
    (
        _NOT_PULLED,
        f"let the engine reach the registry, or set `pull_policy: missing` where the image is there, {_AGAIN}",
    ),
    (r"container name .* is already in use", f"remove or rename that container, {_AGAIN}"),
    (r"out of memory|cannot allocate|resource temporarily unavailable", f"free memory or processes, {_AGAIN}"),
    (r"no space left", f"free disk space where the engine keeps its data, {_AGAIN}"),
    (_COMPOSE_FILE, f"mend the compose file, {_AGAIN}"),
    (
        r"\bnetwork \S+ (?:not found|declared as external)|(?:create|find|up container) network",
        f"see that the service's networks exist and can be made, {_AGAIN}",
    ),
)
_DEFAULT_REMEDY = f"solve that, {_AGAIN}"
# Lines that are no reason: warnings, progress, the id of a container, and that a container failed to start.
_NOISE = re.compile(
    r'^(?:time="[^"]*" level=(?:warning|info|debug)|[0-9a-f]{64}$|Error: failed to start containers:|\s*$)'
)
_ERROR = re.compile(r'(?:time="[^"]*" level=(?:error|fatal)|error[ :])', re.IGNORECASE)
_PREFIX = re.compile(r"^(?:Error response from daemon: |Error: |error: |time=\"[^\"]*\" level=\w+ msg=)+")


def explain(error: str, what: str = "The container could not be started") -> str:
    """A sentence about a failure. error: the error output of docker. what: the beginning of the sentence."""
    lines = [line for line in error.splitlines() if not _NOISE.match(line)]
    line = next((line for line in lines if _ERROR.match(line)), lines[-1] if lines else "docker did not say why")
    reason = one_line(_PREFIX.sub("", line.strip())).rstrip(".")
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, line, re.IGNORECASE)), _DEFAULT_REMEDY)
    return f"{what}: {reason}; {remedy}."
