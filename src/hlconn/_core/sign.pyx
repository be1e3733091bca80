"""From an action to the bytes that are sent, signed. See sign.pxd."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from hlconn._core.action cimport Action, shown
from hlconn._core.cursor cimport hex_digit
from hlconn._core.keccak cimport hl_keccak256
from hlconn._core.oneshot cimport new_pool
from hlconn._core.secp cimport PublicKey, Recoverable, address_of, library, recover_address

import orjson

from hlconn._core.action import raw
from hlconn.config import Network
from hlconn.errors import Closed, ConfigError

cdef extern from "wipe.h" nogil:
    void hl_wipe(void* memory, size_t size)

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    SUFFIX = 38          # bytes after the msgpack: nonce 8, vault 1 + 20, expiry 1 + 8
    ENVELOPE = 420       # bytes of a payload around its action
    ON_STACK = 4096
    MAX_PRESIGN = 10000

# Source: the reference of signing, section 3: EIP-712 domain "Exchange", version 1, chain 1337; type Agent.
cdef bytes DOMAIN = bytes.fromhex("d79297fcdf2ffcd4ae223d01edaa2ba214ff8f401d7c9300d995d17c82aa4040")
cdef bytes AGENT_TYPE = bytes.fromhex("26f05c2f7239b6983075e58321292d77b3aa173d19b27257ac96ab362570f508")
cdef bytes SOURCE_A = bytes.fromhex("3ac225168df54212a25c1c01fd35bebfea408fdac2e31ddd6f80a4bbf9a5f1cb")
cdef bytes SOURCE_B = bytes.fromhex("b5553de315e0edf504d9150af82dafa5c4667fa618ed0a6f19c69b41166c5510")

cdef const char* HEX = b"0123456789abcdef"
cdef object UNSAID = object()

# Signed as readable EIP-712 data by hlconn.account (or, multi-sig, not at all): this hash would name another signer.
OTHER_SCHEMES = frozenset((
    "usdSend", "spotSend", "sendAsset", "withdraw3", "usdClassTransfer", "approveAgent", "approveBuilderFee",
    "tokenDelegate", "cDeposit", "cWithdraw", "userDexAbstraction", "userSetAbstraction", "userPortfolioMargin",
    "convertToMultiSigUser", "linkStakingUser", "stakingLinkDisableTradingUser", "sendToEvmWithData", "multiSig"))
cdef object MAINNET = Network.MAINNET


# 2 * n hex digits at p to n bytes; False when one is no hex digit.
cdef bint from_hex(const char* p, Py_ssize_t n, uint8_t* out) noexcept nogil:
    cdef Py_ssize_t i
    cdef int high
    cdef int low
    for i in range(n):
        high = hex_digit(p[2 * i])
        low = hex_digit(p[2 * i + 1])
        if high < 0 or low < 0:
            return False
        out[i] = <uint8_t>(high << 4 | low)
    return True


cdef char* to_hex(const uint8_t* data, Py_ssize_t n, char* out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[2 * i] = HEX[data[i] >> 4]
        out[2 * i + 1] = HEX[data[i] & 15]
    return out + 2 * n


cdef char* put(char* out, const char* text, Py_ssize_t n) noexcept nogil:
    memcpy(out, text, <size_t>n)
    return out + n


cdef char* put_int(char* out, int64_t value) noexcept nogil:
    cdef char digits[24]
    cdef int n = 0
    while value or n == 0:
        digits[n] = <char>(c'0' + value % 10)
        value //= 10
        n += 1
    while n:
        n -= 1
        out[0] = digits[n]
        out += 1
    return out


cdef void big_endian(uint64_t value, uint8_t* out) noexcept nogil:
    cdef int i
    for i in range(8):
        out[i] = <uint8_t>(value >> (56 - 8 * i) & 0xFF)


# Arguments that end here are declared `object`: as `int`, Cython would round a float.
cdef int64_t whole(value, what) except -1:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ConfigError(f"{what} must be an int from 0 to 2^63 - 1, not {shown(value)}")
    return value


cdef object network_of(value):
    for network in Network:
        if value is network or (isinstance(value, str) and value == network._value_):
            return network
    # not from within an `except`: the error of Network() would come along, and with it the value
    raise ConfigError(f"unknown network {shown(value)}: say mainnet, testnet or local")


# For arguments annotated `object`: Cython would turn True and 1.5 into 1 for one annotated `int`.
cdef Py_ssize_t count(value, Py_ssize_t most, what) except -1:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ConfigError(f"{what} must be an int from 0 to {most}, not {shown(value)}")
    return value


cdef str address_text(const uint8_t* address):
    cdef char text[42]
    text[0] = c'0'
    text[1] = c'x'
    to_hex(address, 20, text + 2)
    return text[:42].decode("ascii")


cdef str read_address(value, uint8_t* out):
    cdef Py_ssize_t size = 0
    cdef const char* text
    if isinstance(value, str) and value.isascii():
        text = PyUnicode_AsUTF8AndSize(value, &size)
        if size == 42 and text[0] == c'0' and text[1] == c'x' and from_hex(text + 2, 20, out):
            return address_text(out)
    raise ConfigError(f"an address is 0x and 40 hex digits, not {shown(value)}")


# The digest that is signed for an L1 action; `vault` NULL and `expires_after` -1: none.
cdef int digest_of(bytes msgpack, int64_t nonce, const uint8_t* vault, int64_t expires_after, bint mainnet,
                   uint8_t* connection_id, uint8_t* digest) except -1:
    cdef uint8_t local[ON_STACK]
    cdef uint8_t block[98]
    cdef uint8_t* buffer = local
    cdef Py_ssize_t n = PyBytes_GET_SIZE(msgpack)
    if n + SUFFIX > ON_STACK:
        buffer = <uint8_t*>malloc(<size_t>(n + SUFFIX))
        if buffer == NULL:
            raise MemoryError
    memcpy(buffer, PyBytes_AS_STRING(msgpack), <size_t>n)
    big_endian(<uint64_t>nonce, buffer + n)
    n += 8
    buffer[n] = vault != NULL
    n += 1
    if vault != NULL:
        memcpy(buffer + n, vault, 20)
        n += 20
    if expires_after >= 0:
        buffer[n] = 0
        big_endian(<uint64_t>expires_after, buffer + n + 1)
        n += 9
    hl_keccak256(buffer, <size_t>n, connection_id)
    if buffer != local:
        free(buffer)
    memcpy(block, PyBytes_AS_STRING(AGENT_TYPE), 32)
    memcpy(block + 32, PyBytes_AS_STRING(SOURCE_A if mainnet else SOURCE_B), 32)
    memcpy(block + 64, connection_id, 32)
    hl_keccak256(block, 96, digest)
    block[0] = 0x19
    block[1] = 0x01
    memcpy(block + 2, PyBytes_AS_STRING(DOMAIN), 32)
    memcpy(block + 34, digest, 32)
    hl_keccak256(block, 66, digest)
    return 0


cdef class Signed:
    """A signed action. Sending `payload` is all that is left to do; nothing in it can be changed.

    payload: the JSON body of POST /exchange. action: the venue's name of what it does. nonce, vault, expires_after
    (ms): what was hashed, and stands in the envelope. r, s: int; v: 27 or 28. network: whose signing domain it is.
    """

    @property
    def r(self) -> int:
        return int.from_bytes(self._rs[:32], "big")

    @property
    def s(self) -> int:
        return int.from_bytes(self._rs[32:64], "big")

    def post(self, id: object) -> bytes:
        """The WebSocket message that sends it: {"method":"post","id":...}. id: unique among those in flight."""
        cdef Py_ssize_t n = PyBytes_GET_SIZE(self.payload)
        cdef int64_t number = whole(id, "id")
        cdef bytes message
        cdef char* out
        cdef char head[96]
        cdef char* end = put(head, b'{"method":"post","id":', 22)
        end = put_int(end, number)
        end = put(end, b',"request":{"type":"action","payload":', 38)
        message = PyBytes_FromStringAndSize(NULL, end - head + n + 2)
        out = put(PyBytes_AS_STRING(message), head, end - head)
        out = put(out, PyBytes_AS_STRING(self.payload), n)
        put(out, b'}}', 2)
        return message

    def signer_address(self) -> str:
        """The address that the venue will recover from `payload`, computed from those very bytes, lower case."""
        cdef uint8_t connection_id[32]
        cdef uint8_t digest[32]
        cdef uint8_t vault[20]
        cdef uint8_t rs[64]
        cdef uint8_t out[20]
        cdef bytes both
        sent = orjson.loads(self.payload)
        signature = sent["signature"]
        both = int(signature["r"], 16).to_bytes(32, "big") + int(signature["s"], 16).to_bytes(32, "big")
        memcpy(rs, PyBytes_AS_STRING(both), 64)
        if sent.get("vaultAddress") is not None:
            read_address(sent["vaultAddress"], vault)
        expires_after = sent.get("expiresAfter")
        digest_of((<Action>raw(sent["action"])).msgpack, sent["nonce"],
                  vault if sent.get("vaultAddress") is not None else NULL,
                  -1 if expires_after is None else expires_after, self.network is MAINNET, connection_id, digest)
        if recover_address(library(), digest, rs, signature["v"] - 27, out) != 0:
            raise ConfigError("no address can be recovered from this payload")
        return address_text(out)

    def __repr__(self) -> str:
        return f"<Signed {self.action}, nonce {self.nonce}>"


cdef class Signer:
    """Signs actions with one key, for one network.

    key: 64 hex digits (0x or not), 32 bytes, or an eth_account account. network: a Network or its name; it decides
    the signing domain. "local" signs as testnet does. vault: address of a vault or sub-account to act for.
    presign: one-time nonces to keep ready, at most 10000, for signatures without their slowest part; 0: none. Made
    here (about 50 us each) and by `refill`. Never on a machine that is snapshotted or cloned live: docs/oneshot.md.
    address: of the key, lower case. The key is never shown, copied or pickled; `close` wipes it.
    Raises ConfigError, never naming the key.
    """

    def __init__(self, key: object, network: object, vault: str | None = None, *, presign: object = 0):
        cdef PublicKey public
        cdef uint8_t address[20]
        cdef Py_ssize_t ready = count(presign, MAX_PRESIGN, "presign")
        self.close()  # a second call: nothing made with the first key may meet this one
        self._pool = None
        self._lib = library()
        self.network = network_of(network)
        self.vault = None if vault is None else read_address(vault, self._vault)
        self._take_key(key)
        if not self._lib.pubkey_create(self._lib.context, &public, self._key) or address_of(
                self._lib, &public, address) != 0:
            raise ConfigError("the key is not one")
        self.address = address_text(address)
        if ready:
            self._pool = new_pool(self._lib, ready)
            self._pool.refill(self._key, ready)
        self._open = True

    cdef int _take_key(self, object key) except -1:
        cdef const char* text
        cdef Py_ssize_t size = 0
        cdef bint good = False
        inner = getattr(key, "key", key)  # an eth_account account
        if isinstance(inner, str) and inner.isascii():  # else an error in encoding it would hold, and show, the key
            text = PyUnicode_AsUTF8AndSize(inner, &size)
            if size == 66 and text[0] == c'0' and (text[1] == c'x' or text[1] == c'X'):
                text += 2
                size -= 2
            good = size == 64 and from_hex(text, 32, self._key)
        elif isinstance(inner, (bytes, bytearray)) and len(inner) == 32:
            if isinstance(inner, bytes):
                memcpy(self._key, <const char*><bytes>inner, 32)
            else:
                memcpy(self._key, <const char*><bytearray>inner, 32)
            good = True
        if not good or not self._lib.seckey_verify(self._lib.context, self._key):
            hl_wipe(self._key, 32)
            raise ConfigError("key must be 64 hex digits, 32 bytes or an eth_account account, and a valid private key")
        return 0

    @classmethod
    def from_keystore(cls, path: object, password: str, network: object, vault: str | None = None, *,
                      presign: object = 0) -> Signer:
        """The key of an encrypted JSON keystore file (the format of geth and eth_account). Needs eth-account.

        What eth-account leaves in freed memory while it decrypts cannot be wiped. ConfigError for an unreadable file
        or a wrong password.
        """
        cdef bytes secret
        from hlconn.keystore import decrypt

        secret = decrypt(path, password)
        try:
            return cls(secret, network, vault, presign=presign)
        finally:
            hl_wipe(PyBytes_AS_STRING(secret), <size_t>PyBytes_GET_SIZE(secret))

    cdef int _sign(self, const uint8_t* digest, uint8_t* rs) except -1:
        cdef Recoverable signature
        cdef int recovery = 0
        if not self._open:
            raise Closed("the signer was closed: its key is gone")
        if self._pool is not None:
            recovery = self._pool.sign(digest, rs)
            if recovery >= 0:
                return recovery
            if not self._open:  # closed while it signed: by a signal's handler, or another thread
                raise Closed("the signer was closed: its key is gone")
        if not self._lib.sign_recoverable(self._lib.context, &signature, digest, self._key, NULL, NULL):
            raise ConfigError("libsecp256k1 did not sign")
        self._lib.serialize_compact(self._lib.context, rs, &recovery, &signature)
        return recovery

    def sign(self, action: object, nonce: object, expires_after: object = None, *, vault: object = UNSAID) -> Signed:
        """Sign an action: an `Action`, or a mapping hashed in its own key order.

        nonce: ms, unique for this key. expires_after: venue time in ms after which the venue will not execute it.
        vault: by default the signer's; an address or None says it explicitly. ConfigError when the signer has a
        vault, the action does not take one, and nothing was said explicitly. Closed after `close`.
        """
        cdef uint8_t connection_id[32]
        cdef uint8_t digest[32]
        cdef uint8_t said[20]
        cdef const uint8_t* vault_bytes = NULL
        cdef int64_t when = whole(nonce, "nonce")
        cdef int64_t expires = -1 if expires_after is None else whole(expires_after, "expires_after")
        cdef Action typed = action if isinstance(action, Action) else raw(action)
        cdef Signed signed = Signed.__new__(Signed)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(typed.json)
        cdef bytes payload
        cdef char* start
        cdef char* out
        if typed.type in OTHER_SCHEMES:
            raise ConfigError(f"{typed.type} is not signed this way: see hlconn.account")
        if vault is UNSAID:
            signed.vault = self.vault
            if self.vault is not None:
                if not typed.takes_vault:
                    raise ConfigError(
                        f"{typed.type} cannot be sent for a vault: say vault=None to send it for yourself")
                vault_bytes = self._vault
        elif vault is not None:
            signed.vault = read_address(vault, said)
            vault_bytes = said
        digest_of(typed.msgpack, when, vault_bytes, expires, self.network is MAINNET, connection_id, digest)
        signed.v = 27 + self._sign(digest, signed._rs)
        payload = PyBytes_FromStringAndSize(NULL, n + ENVELOPE)
        start = out = PyBytes_AS_STRING(payload)
        out = put(out, b'{"action":', 10)
        out = put(out, PyBytes_AS_STRING(typed.json), n)
        out = put(out, b',"nonce":', 9)
        out = put_int(out, when)
        out = put(out, b',"signature":{"r":"0x', 21)
        out = to_hex(signed._rs, 32, out)
        out = put(out, b'","s":"0x', 9)
        out = to_hex(signed._rs + 32, 32, out)
        out = put(out, b'","v":', 6)
        out = put_int(out, signed.v)
        out = put(out, b'}', 1)
        if vault_bytes != NULL:
            out = put(out, b',"vaultAddress":"0x', 19)
            out = to_hex(vault_bytes, 20, out)
            out = put(out, b'"', 1)
        if expires >= 0:
            out = put(out, b',"expiresAfter":', 16)
            out = put_int(out, expires)
        out = put(out, b'}', 1)
        signed.payload = PyBytes_FromStringAndSize(start, out - start)
        signed.action = typed.type
        signed.nonce = when
        signed.expires_after = expires_after
        signed.network = self.network
        return signed

    def _sign_digest(self, digest: bytes) -> tuple[int, int, int]:
        """r, s, v of a digest that hlconn.account made: user-signed actions."""
        cdef uint8_t rs[64]
        cdef int recovery
        if len(digest) != 32:
            raise ConfigError("a digest has 32 bytes")
        recovery = self._sign(<const uint8_t*>PyBytes_AS_STRING(digest), rs)
        return int.from_bytes(rs[:32], "big"), int.from_bytes(rs[32:64], "big"), 27 + recovery

    def refill(self, limit: object = None) -> int:
        """Make one-time nonces until `presign` are ready, or at most `limit`; returns how many were made.

        About 50 us each, with the interpreter lock held: call it when nothing waits. 0 without `presign`. Closed after
        `close`; ConfigError when the system gives no randomness.
        """
        cdef Py_ssize_t most = MAX_PRESIGN if limit is None else count(limit, MAX_PRESIGN, "limit")
        if not self._open:
            raise Closed("the signer was closed: its key is gone")
        return 0 if self._pool is None else self._pool.refill(self._key, most)

    @property
    def presigned(self) -> int:
        """One-time nonces that are ready."""
        return 0 if self._pool is None else self._pool.left()

    @property
    def presign_misses(self) -> int:
        """Signatures made by RFC 6979 instead, as no one-time nonce was left."""
        return 0 if self._pool is None else self._pool.misses

    @property
    def presign_guards(self) -> tuple[str, ...]:
        """What protects the memory of the nonces: those of "wiped on fork", "not dumped", "locked" that hold."""
        return () if self._pool is None else self._pool.guards()

    def close(self) -> None:
        """Wipe the key and the one-time nonces.

        Whoever holds the str or bytes that the key came from still has it: that cannot be wiped from here.
        """
        hl_wipe(self._key, sizeof(self._key))
        self._open = False
        if self._pool is not None:
            self._pool.close()

    def __dealloc__(self):
        hl_wipe(self._key, sizeof(self._key))

    def __reduce_ex__(self, protocol):
        raise TypeError("a Signer is not copied or pickled: it holds a key")

    def __repr__(self) -> str:
        return f"<Signer {self.address} on {self.network._value_}{'' if self._open else ', closed'}>"


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it."""
    cdef uint8_t out[32]
    hl_keccak256(<const uint8_t*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), out)
    return out[:32]


def hash_of(action: object, nonce: object, vault: str | None, expires_after: object, network: object) -> tuple:
    """(connection id, digest) of an L1 action, as 32 bytes each: to compare with other implementations."""
    cdef uint8_t connection_id[32]
    cdef uint8_t digest[32]
    cdef uint8_t address[20]
    cdef Action typed = action if isinstance(action, Action) else raw(action)
    if vault is not None:
        read_address(vault, address)
    digest_of(typed.msgpack, whole(nonce, "nonce"), NULL if vault is None else address,
              -1 if expires_after is None else whole(expires_after, "expires_after"),
              network_of(network) is MAINNET, connection_id, digest)
    return connection_id[:32], digest[:32]
