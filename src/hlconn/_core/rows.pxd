# rows.pxd: JSON objects of a known shape -> rows of a structured array, for all that comes as many like objects.
#
# One reader for every shape. A Plan says what is wanted of an object: key, kind of value, where it goes in the row.
# Keys may come in any order: which one followed which is remembered from object to object, so that after the first one
# each key costs one compare, whatever the venue's order is. White space, escapes and unknown keys are read over.
#
# Functions borrow the buffer; none below Python's level allocates. Imported by: nothing compiled.
# Imports: cursor, errors, types, classify.
from libc.stdint cimport int64_t, uint64_t

from hlconn._core.cursor cimport Cursor, DecodeStatus

cdef enum:
    MAX_FIELDS = 32
    MAX_KEY = 40         # bytes of a key with its quotes and its colon
    MAX_STATUSES = 64

cdef enum Kind:
    K_INT                # int64
    K_DECIMAL            # float64, finite
    K_PAIR               # two decimals in an array, to two float64 that lie side by side
    K_TEXT               # bytes; too long is an error
    K_CLIP               # bytes for people; cut to what fits, not within a character
    K_BOOL
    K_SIDE               # int8: "B" 0, "A" 1
    K_STATUS             # three fields: the text, OrderStatus, ErrorCode
    K_NAME               # has to be the channel's name; nothing is stored
    K_OBJECT             # another plan, into the same row
    K_ROWS               # an array of objects of another plan, or one alone: a row each

cdef struct Field:
    uint64_t head        # the first eight bytes of `key`, as many as there are
    uint64_t mask
    char key[40]         # as it stands in JSON: "px":
    int size             # of it
    Kind kind
    bint nullable        # null leaves what the row holds without it
    Py_ssize_t offset    # in the row
    Py_ssize_t width     # of a text
    Py_ssize_t offset_status, offset_code
    Plan* inner

cdef struct Plan:
    Field fields[32]
    int count
    uint64_t required    # a bit each
    unsigned char after[33]  # which field came after this one the last time; [count]: which came first
    const char* blank    # what a row holds before it is read
    Py_ssize_t stride

cdef struct Reading:     # of one text
    char* head           # a row for what stands around the rows
    char* rows           # borrowed memory of `cap` rows
    Py_ssize_t cap
    Py_ssize_t count
    const char* name     # of the channel
    Py_ssize_t name_size
    const Field* culprit

cdef class Shape:
    cdef Plan plan
    cdef readonly object dtype   # of a row, None for what stands around them
    cdef readonly Py_ssize_t least   # bytes that one object takes at least
    cdef list _kept              # what the plan points to

cdef DecodeStatus read_object(Cursor* c, Plan* plan, char* row, Reading* reading) noexcept nogil
