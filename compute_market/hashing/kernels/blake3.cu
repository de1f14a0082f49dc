/* BLAKE3-256 of many slices at once, exactly the standard digest (BLAKE3 paper, sections 2.1 to 2.6).
 *
 * A slice is cut into tiles of TILE chunks of 1024 bytes. `b3_tiles` gives one group to each tile and
 * one work-item to each chunk, and reduces the chunks' chaining values to that of the tile in shared
 * memory. `b3_fold` reduces the tiles of a slice, or of a part of one, to one value. `b3_small` gives
 * one work-item to each slice of at most one chunk. Pairing neighbours and promoting an odd last node
 * unchanged, level by level, yields BLAKE3's tree for every number of chunks: the left subtree of a
 * node is always the largest power of two.
 *
 * Compile-time parameters:
 *   TILE          chunks of a tile and work-items of a group, a power of two of at least 8
 *   ALIGN         16, 4 or 1: what the slices' offsets are multiples of
 *   MULTIPLY_ADD  1 writes a + b as a * one + b. The argument `one` is 1, which no compiler can know:
 *                 NVIDIA GPUs of compute capability 7.0 to 10.x then add in the pipe of the multiplier,
 *                 which is idle otherwise.
 *   READ_AHEAD    1 loads the next block of a chunk before the present one is compressed. It takes 16
 *                 registers more, and nobody waits for memory.
 *   L2_BYTES      64, 128 or 256: so many bytes are fetched into the second cache of an NVIDIA GPU when
 *                 a block is loaded; 0 leaves that to the device. Only with ALIGN 16.
 * Which of them a GPU gets is told in `forms.py`.
 */
#include "dialect.h"

#define CHUNK_BYTES 1024u
#define BLOCK_BYTES 64u

#define CHUNK_START 1u
#define CHUNK_END 2u
#define PARENT 4u
#define ROOT 8u

#ifndef WARP /* Tests make it smaller. */
#define WARP 32u /* work-items that one scheduler of an NVIDIA GPU starts together */
#endif

#if MULTIPLY_ADD
#define ADD(a, b) ((a) * one + (b))
#else
#define ADD(a, b) ((a) + (b))
#endif

#define G(a, b, c, d, x, y)                                     \
    a = ADD(ADD(a, b), x); d = ROTATE_RIGHT(d ^ a, 16);         \
    c = c + d;             b = ROTATE_RIGHT(b ^ c, 12);         \
    a = ADD(ADD(a, b), y); d = ROTATE_RIGHT(d ^ a, 8);          \
    c = c + d;             b = ROTATE_RIGHT(b ^ c, 7);

/* One round, given the order in which it takes the sixteen words of the message. */
#define ROUND(i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, i12, i13, i14, i15)                   \
    G(s0, s4, s8, s12, m[i0], m[i1])   G(s1, s5, s9, s13, m[i2], m[i3])                               \
    G(s2, s6, s10, s14, m[i4], m[i5])  G(s3, s7, s11, s15, m[i6], m[i7])                              \
    G(s0, s5, s10, s15, m[i8], m[i9])  G(s1, s6, s11, s12, m[i10], m[i11])                            \
    G(s2, s7, s8, s13, m[i12], m[i13]) G(s3, s4, s9, s14, m[i14], m[i15])

FUNCTION void start_value(u32 *cv) {
    cv[0] = 0x6A09E667u; cv[1] = 0xBB67AE85u; cv[2] = 0x3C6EF372u; cv[3] = 0xA54FF53Au;
    cv[4] = 0x510E527Fu; cv[5] = 0x9B05688Cu; cv[6] = 0x1F83D9ABu; cv[7] = 0x5BE0CD19u;
}

/* Replace a chaining value by its compression with a block of `length` bytes. */
FUNCTION void compress(u32 *cv, const u32 *m, u64 counter, u32 length, u32 flags, u32 one) {
    u32 s0 = cv[0], s1 = cv[1], s2 = cv[2], s3 = cv[3];
    u32 s4 = cv[4], s5 = cv[5], s6 = cv[6], s7 = cv[7];
    u32 s8 = 0x6A09E667u, s9 = 0xBB67AE85u, s10 = 0x3C6EF372u, s11 = 0xA54FF53Au;
    u32 s12 = (u32)counter, s13 = (u32)(counter >> 32), s14 = length, s15 = flags;
    /* Every index is a constant, so the message stays in registers. */
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
    ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1)
    ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6)
    ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4)
    ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7)
    ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13)
    cv[0] = s0 ^ s8;  cv[1] = s1 ^ s9;  cv[2] = s2 ^ s10; cv[3] = s3 ^ s11;
    cv[4] = s4 ^ s12; cv[5] = s5 ^ s13; cv[6] = s6 ^ s14; cv[7] = s7 ^ s15;
}

/* The chaining value of a node from those of its children, in the two halves of `m`. */
FUNCTION void parent_of(u32 *cv, const u32 *m, u32 root, u32 one) {
    start_value(cv);
    compress(cv, m, 0, BLOCK_BYTES, PARENT | root, one);
}

/* Load the sixteen words of a block of 64 bytes. */
FUNCTION void load_block(u32 *m, GLOBAL const u8 *bytes) {
#if ALIGN >= 16
    GLOBAL const u32x4 *from = (GLOBAL const u32x4 *)bytes;
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        u32x4 four = LOAD_BLOCK_PART(from + i);
        m[4 * i] = four.x; m[4 * i + 1] = four.y; m[4 * i + 2] = four.z; m[4 * i + 3] = four.w;
    }
#elif ALIGN >= 4
    GLOBAL const u32 *from = (GLOBAL const u32 *)bytes;
    UNROLL
    for (u32 i = 0; i < 16; i++) m[i] = from[i];
#else
    UNROLL
    for (u32 i = 0; i < 16; i++)
        m[i] = (u32)bytes[4 * i] | (u32)bytes[4 * i + 1] << 8 | (u32)bytes[4 * i + 2] << 16 |
               (u32)bytes[4 * i + 3] << 24;
#endif
}

/* Load a last block of fewer bytes, filled up with zeros. Not one byte beyond it is touched. */
FUNCTION void load_short_block(u32 *m, GLOBAL const u8 *bytes, u32 length) {
    UNROLL
    for (u32 i = 0; i < 16; i++) {
        u32 word = 0;
        UNROLL
        for (u32 j = 0; j < 4; j++)
            if (4 * i + j < length) word |= (u32)bytes[4 * i + j] << (8 * j);
        m[i] = word;
    }
}

/* Load what is left of a chunk, up to a block of it. */
FUNCTION void load_next(u32 *m, GLOBAL const u8 *bytes, u32 length) {
    if (length >= BLOCK_BYTES)
        load_block(m, bytes);
    else
        load_short_block(m, bytes, length);
}

/* The chaining value of a chunk of at most 1024 bytes. */
FUNCTION void hash_chunk(u32 *cv, GLOBAL const u8 *bytes, u32 length, u64 counter, u32 root, u32 one) {
    u32 m[16];
    u32 flags = CHUNK_START;
#if READ_AHEAD
    u32 next[16];
    load_next(next, bytes, length);
#endif
    start_value(cv);
    /* Not unrolled: the body is 11 KB of machine code as it is. */
    NO_UNROLL
    for (;;) {
        u32 count = length < BLOCK_BYTES ? length : BLOCK_BYTES;
        u32 is_last = length <= BLOCK_BYTES;
        if (is_last) flags |= CHUNK_END | root;
#if READ_AHEAD
        UNROLL
        for (u32 i = 0; i < 16; i++) m[i] = next[i];
        if (!is_last) load_next(next, bytes + BLOCK_BYTES, length - BLOCK_BYTES);
#else
        load_next(m, bytes, count);
#endif
        compress(cv, m, counter, count, flags, one);
        if (is_last) break;
        bytes += BLOCK_BYTES;
        length -= BLOCK_BYTES;
        flags = 0;
    }
}

/* Which pair of a level a work-item takes, a turn through the group's numbers. Levels of at most a warp
 * of pairs, most of them, would all fall to the first warp, and so to one of the four schedulers of a
 * multiprocessor: each goes to the warp behind that of the level before. */
FUNCTION u32 turned(u32 me, u32 pairs, u32 level) {
    return pairs > WARP ? me : (me - WARP * level) & (TILE - 1);
}

/* One group a tile. By a table, if `length` is 0: its arrays have one entry for each of `tiles` tiles and
 * begin, one after another, `at` bytes into `table`:
 *   u64 offsets[]   where the tile begins in `data`
 *   u64 counters[]  the number of its first chunk in its slice
 *   u32 lengths[]   its length, 1 to TILE * 1024 bytes; only the last tile of a slice may be shorter
 *   u32 whole[]     1 if the tile is a whole slice, so that its last node is the root
 * Else the tiles are those of one run of `length` bytes, from `begin` on and from the chunk `counter` of
 * its slice on; if there is but one, it is a whole slice if `is_whole`.
 * Writes eight words of `values` a tile. */
KERNEL(TILE) b3_tiles(GLOBAL const u8 *data, GLOBAL const u8 *table, u64 at, u32 tiles, u64 begin,
                      u64 length, u64 counter, u32 is_whole, GLOBAL u32 *values, u32 one) {
    SHARED u32 nodes[8 * TILE]; /* word by word, so that neighbours lie side by side */
    u32 tile = GROUP_ID, me = LOCAL_ID;
    u64 offset;
    u32 bytes, root;
    if (length) {
        u64 done = (u64)tile * TILE * CHUNK_BYTES;
        offset = begin + done;
        counter += (u64)tile * TILE;
        bytes = length - done < TILE * CHUNK_BYTES ? (u32)(length - done) : TILE * CHUNK_BYTES;
        root = is_whole && tiles == 1 ? ROOT : 0u;
    } else {
        GLOBAL const u64 *offsets = (GLOBAL const u64 *)(table + at);
        GLOBAL const u64 *counters = offsets + tiles;
        GLOBAL const u32 *lengths = (GLOBAL const u32 *)(counters + tiles);
        offset = offsets[tile];
        counter = counters[tile];
        bytes = lengths[tile];
        root = lengths[tiles + tile] ? ROOT : 0u;
    }
    u32 count = (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    u32 cv[8];

    if (me < count) {
        u32 start = me * CHUNK_BYTES;
        u32 rest = bytes - start;
        hash_chunk(cv, data + offset + start, rest < CHUNK_BYTES ? rest : CHUNK_BYTES, counter + me,
                   count == 1 ? root : 0u, one);
        UNROLL
        for (u32 w = 0; w < 8; w++) nodes[w * TILE + me] = cv[w];
    }
    BARRIER(); /* Every chunk is written before its neighbour reads it. */
    NO_UNROLL
    for (u32 level = 0; count > 1; level++) {
        u32 pairs = count / 2, odd = count % 2;
        u32 pair = turned(me, pairs, level);
        if (pair < pairs) {
            u32 m[16];
            UNROLL
            for (u32 w = 0; w < 8; w++) {
                m[w] = nodes[w * TILE + 2 * pair];
                m[w + 8] = nodes[w * TILE + 2 * pair + 1];
            }
            parent_of(cv, m, count == 2 ? root : 0u, one);
        } else if (pair == pairs && odd) {
            UNROLL
            for (u32 w = 0; w < 8; w++) cv[w] = nodes[w * TILE + count - 1];
        }
        BARRIER(); /* Every node is read before its place is taken by a parent. */
        if (pair < pairs + odd) {
            UNROLL
            for (u32 w = 0; w < 8; w++) nodes[w * TILE + pair] = cv[w];
        }
        BARRIER(); /* Every parent is written before the next level reads it. */
        count = pairs + odd;
    }
    if (me < 8) values[8 * (u64)tile + me] = nodes[me * TILE];
}

/* One group a part: fold its values to one. By a table, if `piece` is 0: it lies `at` bytes into `table`
 * and holds u32 first[parts + 1], a part's values being those from first[part] up to first[part + 1], then
 * u32 whole[parts]: 1 if the last node is a root. Else the parts are pieces of `count` values, each of
 * `piece` values but the last; if there is but one, its last node is a root if `is_whole`.
 * Works in place, level by level, in stripes of one pair a work-item. `values` begins at a multiple of 16.
 * Writes eight words of `out` a part. */
KERNEL(TILE) b3_fold(GLOBAL u32 *values, GLOBAL const u8 *table, u64 at, u32 parts, u32 count, u32 piece,
                     u32 is_whole, GLOBAL u32 *out, u32 one) {
    u32 part = GROUP_ID, me = LOCAL_ID;
    u32 begin, root;
    if (piece) {
        begin = part * piece;
        count = count - begin < piece ? count - begin : piece;
        root = is_whole && parts == 1 ? ROOT : 0u;
    } else {
        GLOBAL const u32 *first = (GLOBAL const u32 *)(table + at);
        begin = first[part];
        count = first[part + 1] - begin;
        root = first[parts + 1 + part] ? ROOT : 0u;
    }
    GLOBAL u32 *nodes = values + 8 * (u64)begin;

    NO_UNROLL
    while (count > 1) {
        u32 pairs = count / 2, odd = count % 2;
        NO_UNROLL
        for (u32 stripe = 0; stripe < pairs; stripe += TILE) {
            u32 pair = stripe + me;
            u32 cv[8];
            if (pair < pairs) {
                u32 m[16];
                GLOBAL const u32x4 *from = (GLOBAL const u32x4 *)(nodes + 16 * (u64)pair);
                UNROLL
                for (u32 i = 0; i < 4; i++) {
                    u32x4 four = from[i];
                    m[4 * i] = four.x; m[4 * i + 1] = four.y; m[4 * i + 2] = four.z; m[4 * i + 3] = four.w;
                }
                parent_of(cv, m, count == 2 ? root : 0u, one);
            }
            /* The pairs of this stripe are read before its parents take their places. Later stripes
             * read beyond everything that has been written by then. */
            BARRIER();
            if (pair < pairs) {
                UNROLL
                for (u32 w = 0; w < 8; w++) nodes[8 * (u64)pair + w] = cv[w];
            }
        }
        if (odd && me < 8) nodes[8 * (u64)pairs + me] = nodes[8 * (u64)(count - 1) + me];
        BARRIER(); /* Every parent is written before the next level reads it. */
        count = pairs + odd;
    }
    if (me < 8) out[8 * (u64)part + me] = nodes[me];
}

/* One work-item a slice of at most 1024 bytes; groups of TILE. The table, `at` bytes into `table`,
 * holds u64 offsets[count], then u32 lengths[count]. Writes eight words of `out` a slice, after the
 * first `skipped` values there. */
KERNEL(TILE) b3_small(GLOBAL const u8 *data, GLOBAL const u8 *table, u64 at, u32 count, GLOBAL u32 *out,
                      u32 skipped, u32 one) {
    GLOBAL const u64 *offsets = (GLOBAL const u64 *)(table + at);
    GLOBAL const u32 *lengths = (GLOBAL const u32 *)(offsets + count);
    u64 me = (u64)GROUP_ID * TILE + LOCAL_ID;
    u32 cv[8];
    if (me < count) {
        hash_chunk(cv, data + offsets[me], lengths[me], 0, ROOT, one);
        UNROLL
        for (u32 w = 0; w < 8; w++) out[8 * (skipped + me) + w] = cv[w];
    }
}
