"""The environment variables of a step in a container: the service's own, the configured ones and the gateway's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.fabrics import compose_dbt
from gateway.model.plan import PlannedStep, StepName
from runners import ingester
from runners.containers.compose_project import ComposeService
from runners.dbt import variables as dbt_variables


@dataclass(frozen=True, slots=True)
class ContainerVariables:
    """The variables of a fabric's containers.

    environment: of the docker command line, which has the values. configured: the names of those that the configuration
    sets for containers.
    """

    environment: Mapping[str, str]
    configured: frozenset[str]

    def known(self, service: ComposeService) -> Mapping[str, str]:
        """The variables of a container of a service, without the gateway's defaults."""
        configured = self.configured & self.environment.keys()
        return {**service.environment, **{name: self.environment[name] for name in configured}}

    def for_docker(self, planned: PlannedStep) -> Mapping[str, str]:
        """The whole environment of the docker command line that runs a step."""
        defaults = {name: value for name, value in _defaults(planned).items() if name not in self.configured}
        # empty, dbt takes them for unset
        ignored = dict.fromkeys(dbt_variables.SELECTION_VARIABLES, "") if planned.selective else {}
        return {**self.environment, **defaults, **ignored, "COMPOSE_IGNORE_ORPHANS": "true"}

    def names(self, planned: PlannedStep, service: ComposeService) -> list[str]:
        """The names of the variables that the container of a step gets besides those of its service."""
        known = frozenset(service.environment) | self.configured
        lineage_is_known = any(name.startswith(compose_dbt.LINEAGE_VARIABLES) for name in known)
        defaults = (
            name
            for name in _defaults(planned)
            if name not in known and not (lineage_is_known and name.startswith(compose_dbt.LINEAGE_VARIABLES))
        )
        ignored = dbt_variables.SELECTION_VARIABLES & known if planned.selective else frozenset()
        return [*defaults, *(self.configured | ignored)]


def _defaults(planned: PlannedStep) -> Mapping[str, str]:
    """Variables that the gateway sets where neither the configuration nor the service does."""
    if planned.name is StepName.INGESTER:
        return ingester.DEFAULT_VARIABLES
    return compose_dbt.variables(lineage=planned.lineage)
