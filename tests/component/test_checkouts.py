"""The life of checkouts and mirrors, with real git; their age is set through the files' times."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.fabrics import checkouts
from gateway.fabrics.checkouts import Checkout, Checkouts
from gateway.model.job import SourceCommit
from tests.support import repositories
from tests.support.jobs import make_job
from tests.support.settings import load

DAY = 86400


class ProjectState:
    """A project's checkouts and the state directory that they are in."""

    def __init__(self, folder: Path) -> None:
        self.repository = repositories.repository(folder / "shop", {"model.sql": "select 1"})
        settings = load(folder, "projects: {shop: {directory: shop, branch: main}}")
        self.state = settings.state_directory
        self.checkouts = Checkouts(settings, os.environ)

    async def source(self) -> SourceCommit:
        found = await self.checkouts.resolve("shop", None, None)
        assert found is not None
        return found

    def checkout(self, source: SourceCommit, fabric: str = "local") -> Checkout:
        found = self.checkouts.checkout(fabric, source)
        assert found is not None
        return found


@pytest.fixture
def kept(tmp_path: Path) -> ProjectState:
    return ProjectState(tmp_path)


def age(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(folder, (then, then))


async def test_a_checkout_unused_for_a_day_is_removed_and_made_again_on_demand(kept: ProjectState) -> None:
    source = await kept.source()
    checkout = kept.checkout(source)
    assert await checkout.prepare("job-1") is None
    checkout.remove_user("job-1")
    age(checkout.root, 0.9)
    await kept.checkouts.sweep([])
    assert (checkout.root / "model.sql").exists()
    age(checkout.root, 1.1)
    await kept.checkouts.sweep([])
    assert not checkout.root.exists()
    assert await kept.checkout(source).prepare("job-2") is None
    assert (checkout.root / "model.sql").read_text() == "select 1"


async def test_the_checkout_of_an_active_job_stays_however_old(kept: ProjectState) -> None:
    source = await kept.source()
    checkout = kept.checkout(source)
    await checkout.prepare("job-1")
    age(checkout.root, 30)
    await kept.checkouts.sweep([])  # the job was accepted after the list of active jobs was read
    assert checkout.root.exists()
    checkout.remove_user("job-1")
    await kept.checkouts.sweep([replace(make_job(), source=source, fabric="local")])
    assert checkout.root.exists()
    await kept.checkouts.sweep([replace(make_job(), source=source, fabric="other")])
    assert not checkout.root.exists()


async def test_each_use_renews_a_checkout(kept: ProjectState) -> None:
    source = await kept.source()
    checkout = kept.checkout(source)
    await checkout.prepare("job-1")
    age(checkout.root, 30)
    await kept.checkout(source).prepare("job-2")
    assert time.time() - checkout.root.stat().st_mtime < DAY


async def test_each_fabric_has_its_own_checkouts(kept: ProjectState) -> None:
    source = await kept.source()
    roots = {kept.checkout(source, fabric).root for fabric in ("local", "33290")}
    assert len(roots) == 2


async def test_a_checkout_in_use_is_not_changed(kept: ProjectState) -> None:
    source = await kept.source()
    first = kept.checkout(source)
    await first.prepare("job-1")
    (first.root / "model.sql").write_text("changed by the job")
    assert await kept.checkout(source).prepare("job-2") is None

    async def look() -> str:
        return (first.root / "model.sql").read_text()

    assert await kept.checkout(source).inspect(look) == "changed by the job"


async def test_a_checkout_removed_during_a_job_is_made_again_for_the_next(kept: ProjectState) -> None:
    source = await kept.source()
    first = kept.checkout(source)
    await first.prepare("job-1")
    first.root.rename(kept.state / "taken")
    assert await kept.checkout(source).prepare("job-2") is None
    assert (first.root / "model.sql").exists()


async def test_files_that_a_job_left_are_removed_once_the_checkout_is_unused(kept: ProjectState) -> None:
    source = await kept.source()
    first, second = kept.checkout(source), kept.checkout(source)
    await first.prepare("job-1")
    (first.root / "made").touch()
    await second.prepare("job-2")
    assert (first.root / "made").exists()
    first.remove_user("job-1")
    second.remove_user("job-2")
    await kept.checkout(source).prepare("job-3")
    assert not (first.root / "made").exists()


async def test_a_mirror_unused_for_a_month_is_removed_and_made_again_on_demand(kept: ProjectState) -> None:
    source = await kept.source()
    [mirror] = (kept.state / "repositories").glob("*.git")
    age(mirror, 29)
    await kept.checkouts.sweep([])
    assert mirror.exists()
    age(mirror, 31)
    await kept.checkouts.sweep([])
    assert not mirror.exists()
    assert await kept.checkout(source).prepare("job-1") is None
    assert await kept.source() == source


async def test_a_commit_that_no_longer_exists_is_named_in_the_error(kept: ProjectState) -> None:
    source = await kept.source()
    repositories.git(kept.repository, "commit", "--quiet", "--amend", "--message=another")
    repositories.git(kept.repository, "reflog", "expire", "--expire=now", "--all")
    repositories.git(kept.repository, "gc", "--quiet", "--prune=now")
    [mirror] = (kept.state / "repositories").glob("*.git")
    mirror.rename(kept.state / "lost")
    why = await kept.checkout(source).prepare("job-1")
    assert why is not None
    assert source.commit in why
    assert "not in the repository" in why


async def test_the_mirror_keeps_the_commits_of_active_jobs_alone(
    kept: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await kept.source()
    [mirror] = (kept.state / "repositories").glob("*.git")

    def commits() -> str:
        return repositories.git(mirror, "for-each-ref", "--format=%(objectname)", "refs/gateway")

    await kept.checkouts.sweep([])  # its job is about to be recorded
    assert commits() == source.commit
    monkeypatch.setattr(checkouts, "_ACCEPTANCE", 0)
    age(mirror, 31)
    await kept.checkouts.sweep([replace(make_job(), source=source, fabric="local")])
    assert commits() == source.commit
    repositories.git(mirror, "update-ref", "-d", f"refs/gateway/{source.commit}")  # as an earlier version left it
    await kept.checkouts.sweep([replace(make_job(), source=source, fabric="local")])
    assert commits() == source.commit
    await kept.checkouts.sweep([])
    assert commits() == ""


async def dbt_project(folder: Path, branch: str = "main") -> str:
    """What is in the dbt project of the project at this path, on a checkout of a branch."""
    settings = load(folder.parent, f"projects: {{shop: {{directory: {folder.name}}}}}")
    checkouts = Checkouts(settings, os.environ)
    source = await checkouts.resolve("shop", branch, None)
    assert source is not None
    checkout = checkouts.checkout("local", source)
    assert await checkout.prepare("job-1") is None
    project = checkout.project_in(settings.projects["shop"])
    assert project.dbt.is_relative_to(checkout.root)
    return (project.dbt / "name").read_text()


@pytest.mark.parametrize("target", ["repo/green", "repo"])
async def test_a_link_into_a_repository_is_the_folder_that_it_names(tmp_path: Path, target: str) -> None:
    """Also where the repository has another folder with the name of the link."""
    repositories.repository(tmp_path / "repo", {"name": "repo", "green/name": "repo/green", "blue/name": "repo/blue"})
    (tmp_path / "blue").symlink_to(target)
    assert await dbt_project(tmp_path / "blue") == target


async def test_a_link_in_a_repository_is_what_the_commit_has_it_name(tmp_path: Path) -> None:
    """A link that the commit does not have is what it is now."""
    repository = repositories.repository(tmp_path / "repo", {"releases/41/name": "41", "releases/42/name": "42"})
    (repository / "current").symlink_to("releases/42")
    assert await dbt_project(repository / "current") == "42"
    repositories.commit(repository, {})
    repositories.branch(repository, "next")
    (repository / "current").unlink()
    (repository / "current").symlink_to("releases/41")
    repositories.commit(repository, {})
    assert await dbt_project(repository / "current", "next") == "41"
    assert await dbt_project(repository / "current", "main") == "42"
