// The kernels compiled by the host compiler, one group after another, so that the sanitizers see what a
// GPU would do. Build with the options of the kernels, -DTILE=… and so on. With -DCOUNTED=… as well it is
// counted how many rotations each work-item does between barriers, of which there are at most so many.
//
// Each work-item is a POSIX thread; the header of C++ threads takes longer to compile than the kernels.
// With -DFIBERS the work-items take turns in one thread, each from barrier to barrier: that is many times
// faster and shows no race.
#include <atomic>
#include <cstdint>
#include <cstdlib>

#ifdef FIBERS
#include <ucontext.h>
#endif
#include <pthread.h>

static thread_local uint32_t local_id;
static thread_local uint32_t group_id;
// Only one kernel runs at a time: the barrier and what is SHARED are the library's.
static pthread_mutex_t alone = PTHREAD_MUTEX_INITIALIZER;

#ifdef FIBERS

static ucontext_t turns, items[TILE];
#ifdef COUNTED
static uint32_t stage[TILE], rotations[COUNTED][TILE];
#endif
static void barrier() {
#ifdef COUNTED
    stage[local_id]++;
#endif
    swapcontext(&items[local_id], &turns);
}

#else

// Not that of POSIX: ThreadSanitizer takes a thread that is late to leave it for ordered after what
// others did since, and misses races.
static std::atomic<uint32_t> arrived, phase;
static void barrier() {
    const uint32_t mine = phase.load();
    if (arrived.fetch_add(1) + 1 == TILE) {
        arrived.store(0);
        phase.fetch_add(1);
        phase.notify_all();
    } else {
        phase.wait(mine);
    }
}

#endif

#include "dialect.h"

#ifdef COUNTED
static u32 counted(u32 rotated) {
    rotations[stage[local_id]][local_id]++;
    return rotated;
}
#undef ROTATE_RIGHT
#define ROTATE_RIGHT(x, n) counted(((x) >> (n)) | ((x) << (32 - (n))))
#endif

#include "blake3.cu"
#include "fma.cu"

#ifdef FIBERS

template <typename Kernel> static const Kernel *running;

template <typename Kernel> static void work() {
    (*running<Kernel>)();
    items[local_id].uc_link = nullptr; // It has ended and gets no further turn.
    setcontext(&turns);
}

// Run a kernel as `groups` groups of TILE work-items, each of which gets its turn until all have ended.
template <typename Kernel> static void launch(uint64_t groups, const Kernel &kernel) {
    constexpr size_t stack_bytes = 32768;
    static char stacks[TILE][stack_bytes];
    pthread_mutex_lock(&alone);
    running<Kernel> = &kernel;
    // From the last to the first: on a GPU nobody knows the order, and nothing may depend on it.
    for (uint64_t group = groups; group--;) {
        group_id = static_cast<uint32_t>(group);
        for (auto &item : items) {
            getcontext(&item);
            item.uc_stack.ss_sp = stacks[&item - items];
            item.uc_stack.ss_size = stack_bytes;
            item.uc_link = &turns;
            makecontext(&item, work<Kernel>, 0);
        }
        for (uint32_t left = TILE; left;)
            for (local_id = 0; local_id < TILE; local_id++)
                if (items[local_id].uc_link) {
                    swapcontext(&turns, &items[local_id]);
                    if (!items[local_id].uc_link) left--;
                }
    }
    pthread_mutex_unlock(&alone);
}

#else

template <typename Kernel> struct Item {
    uint32_t id;
    uint64_t groups;
    const Kernel *kernel;
};

// One thread: the same item of one group after another. The barrier between groups is the launcher's:
// on a GPU, groups share no memory but what they leave for the next kernel.
template <typename Kernel> static void *work(void *given) {
    const auto item = static_cast<Item<Kernel> *>(given);
    local_id = item->id;
    for (uint64_t group = 0; group < item->groups; group++) {
        group_id = static_cast<uint32_t>(group);
        (*item->kernel)();
        barrier();
    }
    return nullptr;
}

// Run a kernel as `groups` groups of TILE threads.
template <typename Kernel> static void launch(uint64_t groups, const Kernel &kernel) {
    pthread_mutex_lock(&alone);
    pthread_t threads[TILE];
    Item<Kernel> items[TILE];
    for (uint32_t id = 0; id < TILE; id++) {
        items[id] = {id, groups, &kernel};
        if (pthread_create(&threads[id], nullptr, work<Kernel>, &items[id])) abort();
    }
    for (auto thread : threads) pthread_join(thread, nullptr);
    pthread_mutex_unlock(&alone);
}

#endif

extern "C" {
void host_b3_tiles(uint64_t groups, const u8 *data, const u8 *table, u64 at, u32 tiles, u64 begin,
                   u64 length, u64 counter, u32 is_whole, u32 *values, u32 one) {
    launch(groups, [=] {
        b3_tiles(data, table, at, tiles, begin, length, counter, is_whole, values, one);
    });
}
void host_b3_fold(uint64_t groups, u32 *values, const u8 *table, u64 at, u32 parts, u32 count, u32 piece,
                  u32 is_whole, u32 *out, u32 one) {
    launch(groups, [=] { b3_fold(values, table, at, parts, count, piece, is_whole, out, one); });
}
void host_b3_small(uint64_t groups, const u8 *data, const u8 *table, u64 at, u32 count, u32 *out,
                   u32 skipped, u32 one) {
    launch(groups, [=] { b3_small(data, table, at, count, out, skipped, one); });
}
#ifdef COUNTED
const uint32_t *host_rotations() { return rotations[0]; }
#endif
void host_fma_rate(uint64_t groups, float *out, u32 trips, float a, float b) {
    launch(groups, [=] { fma_rate(out, trips, a, b); });
}
}
