"""The venue's free text to an ErrorCode. The words are in classify_table.py; this is how they are found.

Each part is at least MIN_PART = GRAM + STRIDE - 1 bytes long, so wherever it stands in a text, eight of its bytes begin
at a multiple of four. One hash lookup for every fourth byte therefore finds each candidate; only then is it compared
in full. A text without any part costs a quarter of a lookup a byte and no comparison.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Malloc
from libc.stdint cimport uint16_t, uint64_t

from hlconn._core.classify_table import MIN_PART, PARTS, STATUSES

from hlconn.errors import ErrorCode

cdef extern from "swar.h" nogil:
    uint64_t hl_load8(const char* p)
    int hl_hash8(uint64_t x, int bits)

cdef extern from "Python.h":
    int PyUnicode_1BYTE_KIND
    int PyUnicode_KIND(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    Py_UCS4 PyUnicode_READ(int kind, void* data, Py_ssize_t i) nogil

cdef enum:
    GRAM = 8             # bytes looked up at once
    STRIDE = 4           # between two lookups
    SLOT_BITS = 13
    SLOTS = 8192         # 2 to the SLOT_BITS, of two bytes each, for some 600 entries
    MAX_TEXT = 4096      # bytes of a text that are looked at: bounds the work on a hostile one

cdef struct Entry:       # STRIDE for each part, one for each of its first places
    uint64_t gram        # the bytes part[offset:offset + GRAM], each with bit 0x20 set: superset of lower case
    const char* part
    const char* case_bits  # 0x20 for each letter of the part, 0 for every other byte
    int size
    int offset
    int row              # in the table; the lowest one found wins
    bint last            # of its slot

cdef uint16_t first[SLOTS]   # the first entry of a slot, counted from 1; 0 for none
cdef Entry* entries = NULL
cdef int rows = 0
cdef list texts, cases       # keep what Entry.part and Entry.case_bits point to
cdef tuple codes             # members of ErrorCode by row; UNKNOWN after the last one
cdef dict statuses = STATUSES
cdef object code_rejected = ErrorCode.REJECTED
cdef object code_canceled = ErrorCode.CANCELED
cdef object code_unknown = ErrorCode.UNKNOWN


cdef inline uint64_t gram_at(const char* p) noexcept nogil:
    return hl_load8(p) | 0x2020202020202020ULL


cdef int build_table() except -1:
    global entries, rows, texts, cases, codes
    cdef list table = list(PARTS)
    cdef list found = []
    cdef bytes part
    cdef Py_ssize_t i
    cdef int offset
    table += [(status, code) for status, code in STATUSES.items() if len(status) >= MIN_PART]
    texts = [text.lower().encode("ascii") for text, _ in table]
    cases = [bytes([0x20 if c'a' <= c <= c'z' else 0 for c in text]) for text in texts]
    codes = tuple([code for _, code in table] + [ErrorCode.UNKNOWN])
    if MIN_PART != GRAM + STRIDE - 1 or min(map(len, texts)) < MIN_PART:
        raise ImportError(f"every part of hlconn._core.classify_table needs {GRAM + STRIDE - 1} bytes or more")
    for i, part in enumerate(texts):
        for offset in range(STRIDE):
            found.append((hl_hash8(gram_at(PyBytes_AS_STRING(part) + offset), SLOT_BITS), i, offset))
    found.sort()
    entries = <Entry*>PyMem_Malloc(len(found) * sizeof(Entry))
    if entries == NULL:
        raise MemoryError
    for i in range(SLOTS):
        first[i] = 0
    for i, (slot, row, offset) in enumerate(found):
        part = texts[row]
        entries[i].gram = gram_at(PyBytes_AS_STRING(part) + offset)
        entries[i].part = PyBytes_AS_STRING(part)
        entries[i].case_bits = PyBytes_AS_STRING(cases[row])
        entries[i].size = <int>PyBytes_GET_SIZE(part)
        entries[i].offset = offset
        entries[i].row = row
        entries[i].last = i + 1 == len(found) or found[i + 1][0] != slot
        if not first[<int>slot]:
            first[<int>slot] = <uint16_t>(i + 1)
    rows = <int>len(texts)
    return 0


build_table()


cdef inline bint same8(const char* p, Entry* entry, int i) noexcept nogil:
    return (hl_load8(p + i) | hl_load8(entry.case_bits + i)) == hl_load8(entry.part + i)


# Eight bytes at a time, the last eight perhaps again. p has as many bytes as the part.
cdef inline bint stands_at(const char* p, Entry* entry) noexcept nogil:
    cdef int i = 0
    while i + GRAM < entry.size:
        if not same8(p, entry, i):
            return False
        i += GRAM
    return same8(p, entry, entry.size - GRAM)


# The lowest row whose part stands anywhere in [p, p + n), `rows` when none does.
cdef int find_row(const char* p, Py_ssize_t n) noexcept nogil:
    cdef int best = rows
    cdef Py_ssize_t at = 0, begin
    cdef uint64_t gram
    cdef Entry* entry
    cdef int slot
    while at + GRAM <= n:
        gram = gram_at(p + at)
        slot = first[hl_hash8(gram, SLOT_BITS)]
        at += STRIDE
        if slot == 0:
            continue
        entry = &entries[slot - 1]
        while True:
            begin = at - STRIDE - entry.offset
            if (entry.gram == gram and entry.row < best and begin >= 0 and begin + entry.size <= n
                    and stands_at(p + begin, entry)):
                best = entry.row
            if entry.last:
                break
            entry += 1
    return best


# Of two or four bytes a character, narrowed: what is not ASCII is in no part.
cdef int find_row_wide(int kind, void* data, Py_ssize_t n) noexcept nogil:
    cdef char narrow[MAX_TEXT]
    cdef Py_ssize_t i
    cdef Py_UCS4 c
    for i in range(n):
        c = PyUnicode_READ(kind, data, i)
        narrow[i] = <char>(c if c < 0x80 else 0x7F)
    return find_row(narrow, n)


def classify(text: str | bytes, /):
    """The ErrorCode of the venue's words: an error text, or an order status. UNKNOWN when the table has none of them.

    The distinctive part decides, wherever it stands and in whatever case; prefixes (`L1 error: `) and suffixes
    (` asset=5`) do not matter. With several, the first in the table wins. Looks at the first 4096 characters (of bytes:
    bytes), allocates nothing. TypeError for anything but str and bytes.
    """
    cdef int row, kind
    if isinstance(text, str):
        kind = PyUnicode_KIND(text)
        if kind == PyUnicode_1BYTE_KIND:
            row = find_row(<const char*>PyUnicode_DATA(text), min(PyUnicode_GET_LENGTH(text), <Py_ssize_t>MAX_TEXT))
        else:
            row = find_row_wide(kind, PyUnicode_DATA(text), min(PyUnicode_GET_LENGTH(text), <Py_ssize_t>MAX_TEXT))
    elif isinstance(text, bytes):
        row = find_row(PyBytes_AS_STRING(text), min(PyBytes_GET_SIZE(text), <Py_ssize_t>MAX_TEXT))
    else:
        raise TypeError(f"classify takes str or bytes, not {type(text).__name__}")
    return codes[row]


def classify_status(status: str, /):
    """Why an order has this status: the ErrorCode of the text that says the same, NONE for open, triggered, filled.

    An unknown status in ...Rejected is REJECTED, one in ...Canceled or ...Cancel is CANCELED, any other is UNKNOWN.
    """
    code = statuses.get(status)
    if code is not None:
        return code
    if status.endswith("Rejected"):
        return code_rejected
    return code_canceled if status.endswith(("Canceled", "Cancel")) else code_unknown
