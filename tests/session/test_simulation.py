"""Market, pool and links against the modelled network and venue of `simulation.py`, seed by seed.

HLCONN_HYPOTHESIS=long tries 10,000 seeds. A seed that fails says how to try it alone. The planted bugs that this has to
find are tests/mutants/session_*.patch; see tools/mutants.py.
"""

from __future__ import annotations

import os

import pytest
from session.simulation import World

SEEDS = {"ci": 500, "first": 500, "long": 10_000}[os.environ.get("HLCONN_HYPOTHESIS", "ci")]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_the_session_serves_what_is_wanted_and_says_what_it_does_not(seed: int) -> None:
    world = World(seed)
    try:
        world.live()
    except BaseException as exc:
        name = "test_whatever_happens_the_session_serves_what_is_wanted_and_says_what_it_does_not"
        exc.add_note(f"again: HLCONN_HYPOTHESIS=long pytest 'tests/session/test_simulation.py::{name}[{seed}]'")
        exc.add_note("\n".join(str(entry)[:300] for entry in world.log))
        raise
