"""Which tags a version may be, and which of many is the highest."""

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
def test_a_version_may_be_a_tag_with_a_v_or_a_project_in_front(version: str, tags: tuple[str, ...]) -> None:
    assert version_tags(version, ("shop", "41459")) == tags


def test_without_projects_a_version_is_a_tag_or_one_with_a_v() -> None:
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
def test_the_highest_version_is_by_pep_440_and_other_tags_do_not_count(
    tags: list[str], latest: tuple[str, ...]
) -> None:
    assert highest_version_tags(tags, ("shop",)) == latest
    assert highest_version_tags(reversed(tags), ("shop",)) == latest


@given(st.lists(st.text(max_size=12)), st.lists(st.text(max_size=4)))
def test_no_tag_is_too_strange_to_be_passed_over(tags: list[str], projects: list[str]) -> None:
    assert set(highest_version_tags(tags, projects)) <= set(tags)


def test_a_number_of_thousands_of_digits_is_passed_over() -> None:
    assert highest_version_tags(["9" * 5000, "v1"], ()) == ("v1",)
