// The kernels compiled by the host compiler: one thread a work-item, one group after another, so that
// the sanitizers see what a GPU would do. Build with -DTILE=…, -DALIGN=… and -DMULTIPLY_ADD=….
#include <barrier>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

static thread_local uint32_t local_id;
static thread_local uint32_t group_id;
static std::barrier<> *group_barrier;
static void barrier() { group_barrier->arrive_and_wait(); }

#include "blake3.cu"
#include "fma.cu"

// Run a kernel as `groups` groups of TILE threads. The barrier at the end of a group is the launcher's:
// on a GPU, groups share no memory but what they leave for the next kernel.
static void launch(uint64_t groups, const std::function<void()> &kernel) {
    static std::mutex one_at_a_time; // Shared memory is that of the library.
    std::lock_guard<std::mutex> alone(one_at_a_time);
    std::barrier<> shared(TILE);
    group_barrier = &shared;
    std::vector<std::thread> items;
    for (uint32_t item = 0; item < TILE; item++)
        items.emplace_back([&, item] {
            local_id = item;
            for (uint64_t group = 0; group < groups; group++) {
                group_id = static_cast<uint32_t>(group);
                kernel();
                shared.arrive_and_wait();
            }
        });
    for (auto &item : items) item.join();
}

extern "C" {
void host_b3_tiles(uint64_t groups, const u8 *data, const u8 *table, u64 at, u32 tiles, u32 *values,
                   u32 one) {
    launch(groups, [=] { b3_tiles(data, table, at, tiles, values, one); });
}
void host_b3_fold(uint64_t groups, u32 *values, const u8 *table, u64 at, u32 parts, u32 *out, u32 one) {
    launch(groups, [=] { b3_fold(values, table, at, parts, out, one); });
}
void host_b3_small(uint64_t groups, const u8 *data, const u8 *table, u64 at, u32 count, u32 *out,
                   u32 skipped, u32 one) {
    launch(groups, [=] { b3_small(data, table, at, count, out, skipped, one); });
}
void host_fma_rate(uint64_t groups, float *out, u32 trips, float a, float b) {
    launch(groups, [=] { fma_rate(out, trips, a, b); });
}
}
