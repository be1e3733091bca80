"""Shared by all tests: hypothesis profiles, the two readers of the core, and where the optional captures are.

HLCONN_HYPOTHESIS=long looks for longer: more examples, whole recordings instead of samples. "first" is for planted
bugs: the first example that fails will do, no smaller one is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from hlconn._core import book as book_module
from hlconn._core import codec

pytest_plugins = ["hlconn.sim.pytest_plugin", "key_search"]

PROFILE = os.environ.get("HLCONN_HYPOTHESIS", "ci")

# function_scoped_fixture: the only such fixture is `reader`, which is the same for every example of a test.
_quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("ci", max_examples=100, deadline=None, database=None, suppress_health_check=_quiet)
settings.register_profile("long", settings.get_profile("ci"), max_examples=5000)
settings.register_profile("first", settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate))
settings.load_profile(PROFILE)


@pytest.fixture
def long_run() -> bool:
    return PROFILE == "long"


@pytest.fixture(params=["best", "portable"])
def reader(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test twice: with what the processor offers (AVX2), and with the readers for every other machine."""
    portable = request.param == "portable"
    codec._use_portable(portable)
    book_module._use_portable(portable)
    yield request.param
    codec._use_portable(False)
    book_module._use_portable(False)


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """Captures of the real venue: beside the repository where they are at hand, never in it."""
    path = Path(__file__).resolve().parents[1] / ".." / "shared" / "fixtures"
    if not path.is_dir():
        pytest.skip("no captures of the real venue beside the repository")
    return path
