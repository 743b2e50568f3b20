"""Projects and their pipelines in gateway.yaml: what is accepted and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.project import CHECKOUT
from runners.parameters import ParameterType
from tests.support.settings import load, refusal

PIPELINE = "projects: {a: {pipelines: {p: %s}}}"


def test_a_pipeline_declares_its_steps_and_its_parameters(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        default_fabric: 33290
        fabrics: {33290: {name: production}, 7: {}}
        projects:
          41459:
            name: bakehouse
            directory: bakehouse
            branch: main
            fabrics: [33290]
            pipelines:
              report:
                ingester: true
                dbt: {command: run, select: "tag:gold +a,b", exclude: c}
                parameters:
                  since: {type: date, default: 2026-11-01, minimum: 2020-01-01, option: --since}
                  carrier: {choices: [AA, "3"], variable: airline}
                  month: {type: integer, default: 3}
        """,
    )
    project = settings.projects["41459"]
    pipeline = project.pipelines["report"]
    assert settings.fabrics["33290"].name == "production"
    assert settings.fabrics_of("41459") == ("33290",)
    assert pipeline.variables() == {"carrier": "airline", "month": "month"}
    assert pipeline.options() == {"since": "--since"}
    declared = pipeline.declared()
    assert (declared["since"].kind, declared["since"].default, declared["since"].minimum) == (
        ParameterType.DATE,
        "2026-11-01",
        "2020-01-01",
    )
    assert (declared["carrier"].kind, declared["carrier"].choices) == (ParameterType.STRING, ("AA", "3"))
    assert declared["month"].default == 3


def test_a_project_may_run_on_every_fabric_unless_it_names_some(tmp_path: Path) -> None:
    settings = load(tmp_path, "default_fabric: a\nfabrics: {a: {}, b: {}}")
    assert settings.fabrics_of("default") == ("a", "b")


@pytest.mark.parametrize(
    ("repository", "found"),
    [
        ("https://git.example.com/shop.git", "https://git.example.com/shop.git"),
        ("ssh://git@git.example.com:2222/shop.git", "ssh://git@git.example.com:2222/shop.git"),
        ("git@git.example.com:shop/lakehouse.git", "git@git.example.com:shop/lakehouse.git"),
        ("shop.git", "{folder}/shop.git"),
        ("/srv/git/shop.git", "/srv/git/shop.git"),
        ("../a@b:c/shop.git", "{parent}/a@b:c/shop.git"),
    ],
)
def test_a_repository_is_an_address_or_a_path(tmp_path: Path, repository: str, found: str) -> None:
    settings = load(tmp_path, f"projects: {{a: {{repository: '{repository}', branch: main, directory: lake, dbt: t}}}}")
    project = settings.projects["a"]
    assert project.repository == found.format(folder=tmp_path, parent=tmp_path.parent)
    placed = project.moved(CHECKOUT, tmp_path / "checkout")
    assert (placed.directory, placed.dbt) == (tmp_path / "checkout/lake", tmp_path / "checkout/lake/t")


def test_only_paths_inside_a_project_move_with_its_checkout(tmp_path: Path) -> None:
    settings = load(
        tmp_path, "projects: {a: {directory: lake, dbt: ../t, ingester: {command: [x], directory: /opt/ingester}}}"
    )
    placed = settings.projects["a"].moved(tmp_path, Path("/checkout/1"))
    assert (placed.directory, placed.dbt) == (Path("/checkout/1/lake"), Path("/checkout/1/t"))
    assert placed.ingester is not None
    assert placed.ingester.directory == Path("/opt/ingester")


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        (PIPELINE % "{}", ["projects.a.pipelines.p", "would do nothing", "`ingester: true`"]),
        (PIPELINE % "{steps: [dbt]}", ["projects.a.pipelines.p.steps", "no such setting"]),
        (PIPELINE % "{dbt: {command: deps}}", ["p.dbt.command", "'daily', 'run', 'build' or 'test'", "'deps'"]),
        (PIPELINE % "{dbt: {select: '--vars x'}}", ["p.dbt.select", "--vars x", "is refused"]),
        (PIPELINE % "{dbt: {select: ''}}", ["p.dbt.select"]),
        (PIPELINE % "{dbt: {exclude: '-s'}}", ["p.dbt.exclude", "'-s' is refused"]),
        (PIPELINE % "{dbt: {}, parameters: {x: {option: --x}}}", ["has no ingester that could take --x"]),
        (PIPELINE % "{ingester: true, parameters: {x: {}}}", ["parameters.x", "has no dbt", "`option`"]),
        (PIPELINE % "{ingester: true, parameters: {x: {option: -x}}}", ["p.parameters.x.option", "'-x' is refused"]),
        (
            PIPELINE % "{dbt: {}, parameters: {x: {flag: --full-refresh}}}",
            ["parameters.x", "`x: {type: boolean, flag: --full-refresh}`"],
        ),
        (
            PIPELINE % "{dbt: {command: test}, parameters: {x: {type: boolean, flag: --empty}}}",
            ["`dbt test` takes no --empty", "--fail-fast, --store-failures", "`command: build or run`"],
        ),
        (
            PIPELINE % "{ingester: true, parameters: {x: {type: boolean, flag: --empty}}}",
            ["no dbt that could take --empty", "`dbt: {}`"],
        ),
        (
            PIPELINE % "{dbt: {}, parameters: {x: {type: boolean, flag: --debug}}}",
            ["p.parameters.x.flag", "'--full-refresh', '--empty'", "'--debug'"],
        ),
        (
            PIPELINE % "{dbt: {}, parameters: {x: &f {type: boolean, flag: --empty}, y: *f}}",
            ["two of them go to --empty"],
        ),
        (PIPELINE % "{dbt: {}, parameters: {x-y: {}}}", ["p.parameters.x-y"]),
        (PIPELINE % "{dbt: {}, parameters: {x: {type: float}}}", ["p.parameters.x.type", "'float'"]),
        (PIPELINE % "{dbt: {}, parameters: {x: {type: integer, default: a}}}", ["default of parameter x = 'a'"]),
        (
            PIPELINE % "{dbt: {}, parameters: {x: {type: integer, default: 0, minimum: 1}}}",
            ["default of parameter x = 0"],
        ),
        (PIPELINE % "{dbt: {}, parameters: {x: {minimum: a}}}", ["minimum of parameter x = 'a'", "has no bounds"]),
        (PIPELINE % "{dbt: {}, parameters: {x: {choices: []}}}", ["list of choices of parameter x"]),
        (PIPELINE % "{dbt: {}, parameters: {x: {default: '{{ 1 }}'}}}", ["default of parameter x = '{{ 1 }}'"]),
        (
            PIPELINE % "{dbt: {}, parameters: {x: {}, y: {variable: x}}}",
            ["projects.a.pipelines.p", "two of them go to x"],
        ),
        ("projects: {a: {pipelines: {../p: {dbt: {}}}}}", ["projects.a.pipelines.../p"]),
        ("projects: {a: {branch: main, version: latest}}", ["branch and version", "give one of them"]),
        ("projects: {a: {version: '2'}}", ["projects.a.version", "'latest'", "'2'"]),
        ("projects: {a: {branch: --main}}", ["projects.a.branch", "'--main' is refused"]),
        ("projects: {a: {repository: x.git}}", ["projects.a", "working `branch`", "`version: latest`"]),
        ("projects: {a: {repository: 'http://x/y', branch: b}}", ["projects.a.repository", "expected https://"]),
        ("projects: {a: {repository: 'file:///x', branch: b}}", ["projects.a.repository", "expected https://"]),
        ("projects: {a: {repository: --x, branch: b}}", ["projects.a.repository", "a path of this host"]),
        ("projects: {a: {repository: 'https://me:secret1@x/y', branch: b}}", ["projects.a.repository", "no password"]),
        (
            "projects: {a: {repository: 'https://secret1@x/y', branch: b}}",
            ["projects.a.repository", "credential.helper"],
        ),
        ("projects: {a: {repository: x, branch: b, directory: /srv}}", ["directory: expected a folder inside"]),
        ("projects: {a: {repository: x, branch: b, dbt: ../t}}", ["dbt: expected a folder inside"]),
        ("projects: {a: {fabrics: [b]}}", ["projects.a.fabrics", "some of local", "'b'"]),
        (
            "default_fabric: c\nfabrics: {b: {}, c: {}}\nprojects: {a: {fabrics: [b]}}",
            ["default_fabric", "c is none of the fabrics of the project a"],
        ),
        *(
            (
                f"fabrics: {{b: {{dbt: {{arguments: ['{argument}']}}}}}}\n" + PIPELINE % "{dbt: {}}",
                ["fabrics.b.dbt.arguments", argument, "would change what the pipelines of the project a run"],
            )
            for argument in ("--vars={}", "--select=x", "-s=x", "--exclude", "--selector=x", "--resource-type=model")
        ),
    ],
)
def test_an_invalid_pipeline_or_project_is_refused_by_name(tmp_path: Path, text: str, mentions: list[str]) -> None:
    error = refusal(tmp_path, text)
    assert [part for part in mentions if part not in error] == [], error
    assert "secret1" not in error


def test_arguments_that_select_are_accepted_if_no_pipeline_selects(tmp_path: Path) -> None:
    load(tmp_path, "fabrics: {b: {dbt: {arguments: ['--vars={}']}}}\n" + PIPELINE % "{ingester: true}")
