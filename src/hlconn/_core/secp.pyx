"""libsecp256k1, through coincurve's cffi module: plain C pointers, no call through Python."""
from libc.stdint cimport uint8_t, uintptr_t

from hlconn._core.keccak cimport hl_keccak256

import os

from hlconn.errors import ConfigError

cdef enum:
    CONTEXT_NONE = 1
    UNCOMPRESSED = 2

ctypedef void* (*context_create_fn)(unsigned int) noexcept
ctypedef int (*context_randomize_fn)(void*, const uint8_t*) noexcept

cdef Secp SECP
cdef bint ready = False
cdef object keep = None          # the module that holds the code behind the pointers


cdef uintptr_t address(ffi, lib, str name) except 0:
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, "secp256k1_" + name)))


cdef Secp* library() except NULL:
    global ready, keep
    cdef bytes seed
    if ready:
        return &SECP
    try:
        from coincurve import _libsecp256k1
    except ImportError as exc:
        raise ConfigError(f"signing needs coincurve: pip install coincurve ({exc})") from exc
    keep = _libsecp256k1
    ffi, lib = _libsecp256k1.ffi, _libsecp256k1.lib
    SECP.seckey_verify = <verify_fn>address(ffi, lib, "ec_seckey_verify")
    SECP.pubkey_create = <create_fn>address(ffi, lib, "ec_pubkey_create")
    SECP.pubkey_serialize = <serialize_fn>address(ffi, lib, "ec_pubkey_serialize")
    SECP.sign_recoverable = <sign_fn>address(ffi, lib, "ecdsa_sign_recoverable")
    SECP.serialize_compact = <compact_fn>address(ffi, lib, "ecdsa_recoverable_signature_serialize_compact")
    SECP.parse_compact = <parse_fn>address(ffi, lib, "ecdsa_recoverable_signature_parse_compact")
    SECP.recover = <recover_fn>address(ffi, lib, "ecdsa_recover")
    SECP.seckey_tweak_add = <tweak_fn>address(ffi, lib, "ec_seckey_tweak_add")
    SECP.seckey_tweak_mul = <tweak_fn>address(ffi, lib, "ec_seckey_tweak_mul")
    SECP.seckey_negate = <negate_fn>address(ffi, lib, "ec_seckey_negate")
    SECP.nonce_rfc6979 = <nonce_fn><uintptr_t>int(ffi.cast("uintptr_t", lib.secp256k1_nonce_function_rfc6979))
    SECP.context = (<context_create_fn>address(ffi, lib, "context_create"))(CONTEXT_NONE)
    if SECP.context == NULL:
        raise MemoryError
    seed = os.urandom(32)  # blinds the multiplications against side channels; has no influence on any signature
    if not (<context_randomize_fn>address(ffi, lib, "context_randomize"))(SECP.context, <const uint8_t*>seed):
        raise RuntimeError("libsecp256k1 could not be randomized")
    ready = True
    return &SECP


cdef int address_of(Secp* lib, const PublicKey* key, uint8_t* out) noexcept:
    cdef uint8_t text[65]
    cdef uint8_t digest[32]
    cdef size_t size = sizeof(text)
    cdef int i
    if not lib.pubkey_serialize(lib.context, text, &size, key, UNCOMPRESSED):
        return -1
    hl_keccak256(text + 1, 64, digest)
    for i in range(20):
        out[i] = digest[12 + i]
    return 0


cdef int recover_address(Secp* lib, const uint8_t* digest, const uint8_t* rs, int recovery, uint8_t* out) noexcept:
    cdef Recoverable signature
    cdef PublicKey key
    if not 0 <= recovery <= 3 or not lib.parse_compact(lib.context, &signature, rs, recovery):
        return -1
    if not lib.recover(lib.context, &key, &signature, digest):
        return -1
    return address_of(lib, &key, out)
