"""A venue in a box: an exchange on a loopback port that speaks the venue's protocol, for every client.

    async with hlconn.sim.Venue(seed=7) as venue:
        account = venue.account(usdc=10_000)
        ...  # connect to venue.url, sign with account.key

It stands beside the rest of the package and shares no decoder, encoder, hash or rule with it: it is what they are
tested against.
"""

from .exchange import Rules
from .faults import FAULTS, Fault, load_plan
from .info import InfoRefused
from .ledger import Fees
from .limits import Limits
from .markets import DEFAULT_COINS
from .matching import HiddenBook, Level
from .orders import Block, Trade
from .streams import Pipe, Stats
from .venue import History, Party, Venue, serve

__all__ = [
    "DEFAULT_COINS",
    "FAULTS",
    "Block",
    "Fault",
    "Fees",
    "HiddenBook",
    "History",
    "InfoRefused",
    "Level",
    "Limits",
    "Party",
    "Pipe",
    "Rules",
    "Stats",
    "Trade",
    "Venue",
    "load_plan",
    "serve",
]
