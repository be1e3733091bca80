# secp.pxd: the few functions of libsecp256k1 that signing needs, by pointer, from the build of the library that
# coincurve carries. This file and secp.pyx are all that another build of the library would replace.
#
# Imported by: sign, oneshot.  Imports: coincurve, at first use.
from libc.stdint cimport uint8_t

cdef struct Recoverable:
    uint8_t data[65]

cdef struct PublicKey:
    uint8_t data[64]

ctypedef int (*nonce_fn)(uint8_t*, const uint8_t*, const uint8_t*, const uint8_t*, void*, unsigned int) noexcept nogil
ctypedef int (*verify_fn)(const void*, const uint8_t*) noexcept nogil
ctypedef int (*create_fn)(const void*, PublicKey*, const uint8_t*) noexcept nogil
ctypedef int (*serialize_fn)(const void*, uint8_t*, size_t*, const PublicKey*, unsigned int) noexcept nogil
ctypedef int (*sign_fn)(const void*, Recoverable*, const uint8_t*, const uint8_t*, nonce_fn, const void*) noexcept nogil
ctypedef int (*compact_fn)(const void*, uint8_t*, int*, const Recoverable*) noexcept nogil
ctypedef int (*parse_fn)(const void*, Recoverable*, const uint8_t*, int) noexcept nogil
ctypedef int (*recover_fn)(const void*, PublicKey*, const Recoverable*, const uint8_t*) noexcept nogil
ctypedef int (*tweak_fn)(const void*, uint8_t*, const uint8_t*) noexcept nogil
ctypedef int (*negate_fn)(const void*, uint8_t*) noexcept nogil

cdef struct Secp:
    void* context            # ours, with its blinding randomized
    verify_fn seckey_verify
    create_fn pubkey_create
    serialize_fn pubkey_serialize
    sign_fn sign_recoverable
    compact_fn serialize_compact
    parse_fn parse_compact
    recover_fn recover
    tweak_fn seckey_tweak_add
    tweak_fn seckey_tweak_mul
    negate_fn seckey_negate
    nonce_fn nonce_rfc6979

cdef Secp* library() except NULL

# The 20 bytes of the address of a public key / of the signer of a digest. -1: there is none.
cdef int address_of(Secp* lib, const PublicKey* key, uint8_t* out) noexcept
cdef int recover_address(Secp* lib, const uint8_t* digest, const uint8_t* rs, int recovery, uint8_t* out) noexcept
