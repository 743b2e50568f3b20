"""The tags that a version may have, and the tags of the highest version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.git.refs import highest_version_tags, version_tags


@pytest.mark.parametrize(
    ("version", "tags"),
    [
        ("2", ("2", "v2", "shop/2", "shop/v2", "41459/2", "41459/v2")),
        ("v2", ("v2", "shop/v2", "41459/v2")),
        ("shop/2", ("shop/2", "shop/shop/2", "41459/shop/2")),
        ("stable", ("stable", "shop/stable", "41459/stable")),
    ],
)
def test_the_tag_of_a_version_may_have_a_v_or_a_project_as_prefix(version: str, tags: tuple[str, ...]) -> None:
    assert version_tags(version, ("shop", "41459")) == tags


def test_without_projects_the_tag_of_a_version_may_have_a_v_as_prefix() -> None:
    assert version_tags("2", ()) == ("2", "v2")


@pytest.mark.parametrize(
    ("tags", "latest"),
    [
        (["v9", "v10"], ("v10",)),
        (["1.9.0", "1.10.0", "1.10.0rc1"], ("1.10.0",)),
        (["v1.0.0", "v2.0.0-beta.1"], ("v2.0.0-beta.1",)),
        (["v1", "shop/2", "shop/v3", "other/9"], ("shop/v3",)),
        (["v1", "nightly", "2024-01-15", "release", "a/b/2", ""], ("v1",)),
        (["2024.01.15", "2024.1.9"], ("2024.01.15",)),
        (["2", "v2", "2.0", "1"], ("2", "2.0", "v2")),
        (["nightly"], ()),
        ([], ()),
    ],
)
def test_versions_are_compared_by_pep_440_and_other_tags_are_ignored(tags: list[str], latest: tuple[str, ...]) -> None:
    assert highest_version_tags(tags, ("shop",)) == latest
    assert highest_version_tags(reversed(tags), ("shop",)) == latest


@given(st.lists(st.text(max_size=12)), st.lists(st.text(max_size=4)))
def test_any_tag_is_compared_or_ignored_without_an_error(tags: list[str], projects: list[str]) -> None:
    assert set(highest_version_tags(tags, projects)) <= set(tags)


def test_a_tag_of_thousands_of_digits_is_ignored() -> None:
    assert highest_version_tags(["9" * 5000, "v1"], ()) == ("v1",)
