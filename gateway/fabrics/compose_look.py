"""What a look into the service of dbt finds there: programs, the Elementary package, the profile of the project."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from gateway.fabrics import fabric as shared
from gateway.fabrics.step_services import StepService
from runners.containers.compose_project import ComposeService
from runners.dbt import profile as dbt_profile
from runners.dbt.command import DbtConfig
from runners.dbt.profile import ProfileFiles
from runners.yaml_file import parse_mapping

_DBT, _LINEAGE, _OTHER_DBT, _EDR, _ELEMENTARY = "dbt", "dbt-ol", "other-dbt", "edr", "elementary"
_FIELDS = 5  # of the script's output, each after a NUL, which no YAML file has
_ELEMENTARY_PACKAGE = (
    r"(package|git|tarball|local|name):.*[/ \"](elementary|dbt-data-reliability)(\.git)?/?\"?[[:space:]]*(#.*)?$"
)
_READ = rf"""if [ -f "$project/dbt_packages/elementary/dbt_project.yml" ] ||
    grep -Eqs '{_ELEMENTARY_PACKAGE}' "$project/packages.yml" "$project/dependencies.yml"; then echo {_ELEMENTARY}; fi
if [ -z "$profiles" ]; then if [ -f profiles.yml ]; then profiles=.; else profiles=$HOME/.dbt; fi; fi
printf '\000%s\000%s\000' "$PWD" "$profiles/profiles.yml"
cat "$profiles/profiles.yml" 2>/dev/null
printf '\000'
cat "$project/dbt_project.yml" 2>/dev/null
exit 0"""


@dataclass(frozen=True, slots=True)
class Look:
    """The service as it was found. fabric: its id. dbt: how it is called, and in which folder.

    words: what the script found. files: None where they can't be read. environment: of a container of the service.
    """

    fabric: str
    step_service: StepService
    dbt: DbtConfig
    words: frozenset[str]
    folder: str
    files: ProfileFiles | None = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    @property
    def has_package(self) -> bool:
        """Whether the project has the Elementary package."""
        return _ELEMENTARY in self.words

    def lineage_problem(self, remedy: str = "") -> str | None:
        """Why steps can't run through dbt-ol. remedy: for a missing program."""
        problem = None
        if _LINEAGE not in self.words:
            problem = f"{self.dbt.lineage_executable} was not found"
        elif _OTHER_DBT in self.words:
            problem = f"dbt-ol calls another program than {self.dbt.executable}: the `dbt` of PATH"
        if problem is not None:
            return f"{problem}: {remedy}" if remedy else problem
        return dbt_profile.lineage_problem(self.files, self.dbt, self.environment)

    @property
    def _is_wrapped(self) -> bool:
        """Whether a wrapper runs the programs, which may find other ones; a look doesn't run it, since it may wait."""
        service = self.step_service.service
        return bool(service.entrypoint) and _own_dbt(service) is None

    def no_dbt(self) -> str | None:
        """That dbt is missing, in a sentence that says what to do; else None."""
        return None if _DBT in self.words else self._missing(self.dbt.executable, "dbt", "dbt.executable")

    def no_edr(self) -> str | None:
        """The same for the program that makes reports, where one is configured."""
        if self.dbt.edr is None or _EDR in self.words:
            return None
        return self._missing(self.dbt.edr, "elementary-data", "dbt.edr")

    def faults(self, *, wants_lineage: bool) -> Iterator[str]:
        """What is wrong for the configuration, in sentences that say what to do. wants_lineage: it asks for dbt-ol."""
        no_lineage = None
        if wants_lineage and _LINEAGE not in self.words:
            setting = "dbt.openlineage_executable"
            no_lineage = self._missing(self.dbt.lineage_executable, "openlineage-dbt", setting)
        found = (self.no_dbt(), no_lineage, self.no_edr(), self.throwaway_database())
        yield from (fault for fault in found if fault is not None)

    def throwaway_database(self) -> str | None:
        """A database that is removed with the checkout, in a sentence that says what to do; else None."""
        mount, service = self.step_service.mount, self.step_service.service
        found = dbt_profile.output(self.files, self.dbt, self.environment)
        if mount is None or found is None:
            return None
        kept = [volume for volume in service.volumes if PurePosixPath(volume) != PurePosixPath(mount.target)]
        for path in found.files(self.environment):
            file = PurePosixPath(posixpath.normpath(posixpath.join(self.folder, path)))
            if file.is_relative_to(mount.target) and not any(
                file.is_relative_to(volume) and PurePosixPath(volume).is_relative_to(mount.target) for volume in kept
            ):
                return (
                    f"The database {path} of the target {found.target} in {found.file} is a file of the checkout, "
                    f"which is mounted at {mount.target} and removed a day after its last job. Give it a path on a "
                    f"volume of the service {service.name}, such as `path: /srv/{file.name}`."
                )
        return None

    def _missing(self, program: str, what: str, setting: str) -> str | None:
        if self._is_wrapped:
            return None
        where = f" in the service {self.step_service.service.name}"
        return shared.missing_program(program, where, f"install {what} in its image", f"{self.fabric}.{setting}")


def script(dbt: DbtConfig, service: ComposeService, profiles: str | None, project: str | None) -> str:
    """A shell script for the folder in which dbt is called, whose output `read` takes.

    profiles: the configured folder of profiles.yml. project: where the checkout is mounted; None without one.
    """
    own = _own_dbt(service) if dbt.executable == "dbt" else None
    programs = {_DBT: own or dbt.executable, _LINEAGE: dbt.lineage_executable, _EDR: dbt.edr}
    found = [
        f"command -v {shlex.quote(program)} >/dev/null && echo {word}"
        for word, program in programs.items()
        if program is not None
    ]
    if dbt.executable != "dbt":  # dbt-ol calls the first `dbt` on PATH, whatever the fabric's is
        found.append(f'[ "$(command -v dbt)" -ef "$(command -v {shlex.quote(dbt.executable)})" ] || echo {_OTHER_DBT}')
    chosen = '"${DBT_ENGINE_PROFILES_DIR:-$DBT_PROFILES_DIR}"' if profiles is None else shlex.quote(profiles)
    folder = '"${DBT_ENGINE_PROJECT_DIR:-${DBT_PROJECT_DIR:-.}}"' if project is None else shlex.quote(project)
    return "\n".join(("printf '\\000'", *found, f"project={folder}", f"profiles={chosen}", _READ))


def _own_dbt(service: ComposeService) -> str | None:
    """The dbt that the entrypoint of a service runs, which then takes its arguments only: see with_entrypoint."""
    last = service.entrypoint[-1] if service.entrypoint else ""
    return last if posixpath.basename(last) == "dbt" else None


def read(
    said: bytes, fabric: str, step_service: StepService, dbt: DbtConfig, environment: Mapping[str, str]
) -> Look | None:
    """What the script found; None if it was not run to its end, as in an image without a shell."""
    parts = said.split(b"\0")[1:]
    if len(parts) != _FIELDS:
        return None
    words, folder, file = (part.decode(errors="replace") for part in parts[:3])
    file = posixpath.normpath(posixpath.join(folder, file))
    profiles, project = (parse_mapping(part, file) for part in parts[3:])
    files = None if isinstance(profiles, str) or isinstance(project, str) else ProfileFiles(project, profiles, file)
    return Look(fabric, step_service, dbt, frozenset(words.split()), folder, files, environment)
