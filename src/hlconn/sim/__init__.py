"""A venue in a box: a made-up market on a loopback port that speaks the venue's protocol.

    async with hlconn.sim.Venue(seed=7) as venue:
        ...  # connect to venue.endpoints

It stands beside the rest of the package and shares no decoder, encoder or rule with it: it is what they are
tested against.
"""

from .coins import DEFAULT_COINS
from .market import Block, HiddenBook, Level, Market, Trade
from .venue import Stats, Venue, serve

__all__ = ["DEFAULT_COINS", "Block", "HiddenBook", "Level", "Market", "Stats", "Trade", "Venue", "serve"]
