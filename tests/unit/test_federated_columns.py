"""Which columns a federated training uses: one list for all datasites, matched by name."""

from __future__ import annotations

from typing import Any

import pytest

from central.federated.columns import Columns, fixed, problem, unused

FIRST = ("speed", "load", "heat", "wear")
SWAPPED = ("wear", "heat", "speed", "load")


def test_the_first_datasite_fixes_the_list() -> None:
    """Target is its last column, features are the others in its order, whatever order the next one has."""
    assert Columns("wear", ("speed", "load", "heat")) == fixed([FIRST, SWAPPED], {})
    assert "" == problem(SWAPPED, Columns("wear", ("speed", "load", "heat")))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"target": "heat"}, Columns("heat", ("speed", "load", "wear"))),
        ({"features": ["heat", "speed"]}, Columns("wear", ("heat", "speed"))),
        ({"features": "heat", "target": "load"}, Columns("load", ("heat",))),
        ({"target": "heat", "features": ()}, Columns("heat", ("speed", "load", "wear"))),
    ],
)
def test_the_configuration_goes_before_the_table(config: dict[str, Any], expected: Columns) -> None:
    """What CONFIG names is used as it is named; the rest follows the table."""
    assert expected == fixed([FIRST], config)


def test_a_datasite_without_the_named_columns_fixes_nothing() -> None:
    """The list comes from the first datasite that has what CONFIG names; if none has, there is no list."""
    assert Columns("wear", ("speed",)) == fixed([("speed", "weer"), ("speed", "wear")], {"target": "wear"})
    assert None is fixed([FIRST], {"target": "weer"})
    assert None is fixed([], {})


def test_what_is_missing_and_what_is_extra_is_named() -> None:
    """A datasite that lacks a column is refused with its name; a column that nobody asked for is told."""
    wanted = Columns("wear", ("speed", "load"))
    assert "has no column 'load'; it has 'speed', 'wear'" == problem(("speed", "wear"), wanted)
    assert "has no columns 'load', 'wear'; it has 'speed'" == problem(("speed",), wanted)
    assert "its column 'heat' is not used" == unused(FIRST, wanted)
    assert "its columns 'a', 'b' are not used" == unused(("a", "b", "speed", "load", "wear"), wanted)
    assert "" == unused(("wear", "load", "speed"), wanted)
