# codec.pxd: wire bytes -> C values, for the channels hot enough to deserve it.
#
# Every function borrows (buf, size): not NUL-terminated, valid only during the call. None allocates, touches a
# Python object, or knows what a socket is (the raise_* helpers at the end excepted). One scanner: it expects
# today's next key with one compare, and falls back, object by object, to any key order, white space, escapes and
# unknown keys; `reordered` says that it had to.
#
# Imported by: book, feed.  Imports: cursor, errors.
from libc.stdint cimport int8_t, int64_t

from hlconn._core.cursor cimport Cursor, DecodeStatus, Slice

cdef enum Channel:
    CH_OTHER = 0         # named, not decoded here: control frames and unknown channels
    CH_L2BOOK = 1
    CH_BBO = 2
    CH_TRADES = 3
    CH_L2 = 4
    CH_COUNT = 5

cdef enum L2Kind:        # what the one key of an l2 message's data is: "s", "u", "c"
    L2_SNAPSHOT = 0
    L2_UPDATE = 1
    L2_COMPRESSED = 2    # an update, deflated: see inflate_l2

cdef enum:
    MAX_COIN = 64        # bytes of a coin's name
    MAX_LEVELS = 10000   # levels of one side that a message may have
    MAX_TRADES = 100000  # trades that a message may have
    MAX_L2_LEVELS = 200  # levels of one side of an l2 book, and of one l2 message
    MAX_L2_TEXT = 262144     # bytes of base64
    MAX_L2_INFLATED = 1048576

cdef struct Envelope:
    Channel channel
    bint has_name
    Slice name           # the channel's text; points into the message, or into name_text if it was escaped
    const char* data     # where the data value begins, NULL when there is none (pong)
    bint to_the_end      # today's spelling: what follows the data was not looked at yet
    bint reordered
    Slice coin           # routing key of a hot channel; n = 0 for an empty array of trades
    L2Kind l2            # of CH_L2: `data` is where the value of its one key begins
    Slice l2_text        # of L2_COMPRESSED, which does not say its coin
    bint bare            # nothing follows the value: it was inflated
    char name_text[MAX_COIN + 4]
    char coin_text[MAX_COIN + 4]

cdef struct BookSide:    # best first; borrowed memory of `BookMessage.cap` levels
    double* px
    double* sz
    int64_t* n
    Py_ssize_t kept      # levels in the arrays
    Py_ssize_t total     # levels in the message

cdef struct BookMessage:
    Py_ssize_t cap
    BookSide side[2]     # bids, asks
    int64_t time_ms
    bint fast
    bint aggregated      # has a spread: of a subscription with nSigFigs, whose values no message says
    bint reordered

cdef struct L2Update:
    int64_t time_ms
    BookSide side[2]     # levels to insert or to replace by price, in any order; borrowed memory of MAX_L2_LEVELS
    Py_ssize_t removals[2]
    int64_t removed[2][MAX_L2_LEVELS]  # positions in the side as it was before; not checked

cdef struct TradeRow:    # hlconn.types.TRADE_USERS_DTYPE; TRADE_DTYPE ends after `side`
    int64_t time
    double px
    double sz
    int64_t tid
    int8_t side
    char buyer[42]
    char seller[42]

cdef struct TradeMessage:
    char* rows           # borrowed memory of `cap` rows of `stride` bytes
    Py_ssize_t stride
    Py_ssize_t cap
    bint users
    Py_ssize_t total     # trades in the message: more than cap means nothing but the count is good
    bint reordered

# On failure *at is the offset of the first byte that could not be read.
cdef DecodeStatus read_envelope(const char* buf, Py_ssize_t size, Envelope* out, Py_ssize_t* at) noexcept nogil
cdef DecodeStatus read_book(
    const char* buf, Py_ssize_t size, Envelope* envelope, BookMessage* out, Py_ssize_t* at) noexcept nogil
cdef DecodeStatus read_trades(
    const char* buf, Py_ssize_t size, Envelope* envelope, TradeMessage* out, Py_ssize_t* at) noexcept nogil

cdef DecodeStatus read_l2_snapshot(
    const char* buf, Py_ssize_t size, Envelope* envelope, BookMessage* out, Py_ssize_t* at) noexcept nogil
cdef DecodeStatus read_l2_update(
    const char* buf, Py_ssize_t size, Envelope* envelope, L2Update* out, Py_ssize_t* at) noexcept nogil

# The text of a compressed update, bounded by MAX_L2_INFLATED; raises DecodeError. And its envelope.
cdef bytes inflate_l2(Envelope* envelope)
cdef DecodeStatus read_l2_inflated(const char* buf, Py_ssize_t size, Envelope* out, Py_ssize_t* at) noexcept nogil

# Where a status becomes an exception.
cdef int raise_decode(Envelope* envelope, DecodeStatus status, const char* buf, Py_ssize_t size,
                      Py_ssize_t at) except -1
