# SPDX-License-Identifier: Apache-2.0
"""The restarts a device has time for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.budget import RestartBudget


def test_a_burst_is_free_and_the_rest_queues_up() -> None:
    budget = RestartBudget(rate=10, burst=3)
    waits = []
    for _ in range(6):
        waits.append(budget.wait(100.0))
        budget.take(100.0)
    assert waits == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])


def test_time_gives_restarts_back_up_to_the_burst() -> None:
    budget = RestartBudget(rate=10, burst=3)
    for _ in range(3):
        budget.take(100.0)
    assert budget.wait(100.05) == pytest.approx(0.05)
    assert budget.wait(100.1) == pytest.approx(0)
    for _ in range(3):
        budget.take(1e6)
    assert budget.wait(1e6) == pytest.approx(0.1)


def test_no_rate_is_no_limit() -> None:
    budget = RestartBudget(rate=0, burst=1)
    for _ in range(1000):
        budget.take(1.0)
    assert budget.wait(1.0) == 0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_never_more_than_rate_and_burst_allow(gaps: list[float]) -> None:
    budget = RestartBudget(rate=5, burst=4)
    now, made = 50.0, []
    for gap in gaps:
        now += gap / 50
        made.append(now + budget.wait(now))
        budget.take(now)
    made.sort()
    for i, start in enumerate(made):
        within = sum(1 for at in made[i:] if at <= start + 1)
        assert within <= 4 + 5 + 1
