/* The words in which the kernels are written, for three compilers: CUDA (nvcc, NVRTC), OpenCL C 1.2
 * and, for tests, C++20 on the host.
 *
 * A kernel runs as groups of work-items. LOCAL_ID is the place of a work-item in its group, GROUP_ID
 * the place of the group. BARRIER makes every work-item of a group wait for the others and makes what
 * each of them wrote, in shared and in global memory, visible to all. No work-item may return before
 * a barrier that others reach.
 */
#ifndef DIALECT_H
#define DIALECT_H

#if defined(__CUDACC__) /* NVRTC defines it too. */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef uint4 u32x4;

#define KERNEL(group) extern "C" __global__ void __launch_bounds__(group)
#define FUNCTION static __device__ __forceinline__
#define GLOBAL
#define SHARED __shared__
#define LOCAL_ID threadIdx.x
#define GROUP_ID blockIdx.x
#define BARRIER() __syncthreads()
#define ROTATE_RIGHT(x, n) __funnelshift_r(x, x, n)

#if L2_BYTES
#define L2_HINT_(bytes) #bytes
#define L2_HINT(bytes) L2_HINT_(bytes)
/* 16 bytes of the slices, which no kernel writes. */
static __device__ __forceinline__ u32x4 load_with_hint(const u32x4 *from) {
    u32x4 four;
    asm("ld.global.L2::" L2_HINT(L2_BYTES) "B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(four.x), "=r"(four.y), "=r"(four.z), "=r"(four.w)
        : "l"(from));
    return four;
}
#define LOAD_BLOCK_PART(from) load_with_hint(from)
#endif

#elif defined(__OPENCL_VERSION__)

typedef uchar u8;
typedef uint u32;
typedef ulong u64;
typedef uint4 u32x4;

#define KERNEL(group) __kernel __attribute__((reqd_work_group_size(group, 1, 1))) void
#define FUNCTION static inline
#define GLOBAL __global
#define SHARED __local
#define LOCAL_ID ((u32)get_local_id(0))
#define GROUP_ID ((u32)get_group_id(0))
/* Both kinds of memory: the fold works in global memory. */
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define ROTATE_RIGHT(x, n) rotate((u32)(x), (u32)(32 - (n)))

#else /* C++: whoever includes this provides local_id, group_id and barrier(). */

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
struct alignas(16) u32x4 { u32 x, y, z, w; };

#define KERNEL(group) static void
#define FUNCTION static inline
#define GLOBAL
#define SHARED static /* Host groups run one after another. */
#define LOCAL_ID local_id
#define GROUP_ID group_id
#define BARRIER() barrier()
#define ROTATE_RIGHT(x, n) (((x) >> (n)) | ((x) << (32 - (n))))

#endif

#ifndef LOAD_BLOCK_PART
#define LOAD_BLOCK_PART(from) (*(from))
#endif

/* A loop over registers has to be unrolled, or they become memory. */
#ifdef __cplusplus
#ifndef __CUDACC__
#define UNROLL
#define NO_UNROLL
#endif
#endif
#ifndef UNROLL
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#endif

#endif
