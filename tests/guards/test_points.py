"""The points at which a gateway or a supervisor under test dies name calls that the product has."""

from __future__ import annotations

import pkgutil

import pytest

from tests.support import dying_gateway, patched_shim


@pytest.mark.parametrize("point", dying_gateway.POINTS)
def test_a_point_of_the_gateway_names_a_call(point: str) -> None:
    call = dying_gateway.POINTS[point]
    assert callable(getattr(pkgutil.resolve_name(call.owner), call.name))


@pytest.mark.parametrize("point", patched_shim.POINTS)
def test_a_point_of_the_supervisor_names_a_call(point: str) -> None:
    owner, name, _ = patched_shim.owner(patched_shim.load(), point)
    assert callable(getattr(owner, name))
