"""BLAKE3 in plain Python (BLAKE3 paper, sections 2.1 to 2.6), from any chunk on."""

import struct

CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
START = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A]
START += [0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def _compress(value: bytes, block: bytes, counter: int, flags: int) -> bytes:
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    s = [*struct.unpack("<8I", value), *START[:4]]
    s += [counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(COLUMNS + DIAGONALS):
            for word, first, second in ((m[2 * i], 16, 12), (m[2 * i + 1], 8, 7)):
                s[a] = (s[a] + s[b] + word) & 0xFFFFFFFF
                s[d] = _rotated(s[d] ^ s[a], first)
                s[c] = (s[c] + s[d]) & 0xFFFFFFFF
                s[b] = _rotated(s[b] ^ s[c], second)
        m = tuple(m[i] for i in PERMUTATION)
    return struct.pack("<8I", *(s[i] ^ s[i + 8] for i in range(8)))


def _rotated(word: int, by: int) -> int:
    return (word >> by | word << (32 - by)) & 0xFFFFFFFF


def chunk_value(chunk: bytes, counter: int, root: int = 0) -> bytes:
    """The chaining value of at most 1024 bytes; with ROOT the digest."""
    value, flags = struct.pack("<8I", *START), CHUNK_START
    for at in range(0, max(1, len(chunk)), 64):
        if at + 64 >= len(chunk):
            flags |= CHUNK_END | root
        value, flags = _compress(value, chunk[at : at + 64], counter, flags), 0
    return value


def parent_value(left: bytes, right: bytes, root: int = 0) -> bytes:
    return _compress(struct.pack("<8I", *START), left + right, 0, PARENT | root)


def subtree_value(data: bytes, counter: int, root: int = 0) -> bytes:
    """The chaining value of data whose first chunk has that number; with ROOT the digest."""
    chunks = -(-len(data) // 1024)
    if chunks <= 1:
        return chunk_value(data, counter, root)
    left = 1 << ((chunks - 1).bit_length() - 1)  # the largest power of two below
    at = left * 1024
    parts = subtree_value(data[:at], counter), subtree_value(data[at:], counter + left)
    return parent_value(*parts, root)


def digest(data: bytes) -> bytes:
    return subtree_value(data, 0, ROOT)
