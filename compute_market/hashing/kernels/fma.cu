/* Fused multiply-adds in single precision, to rate a device in GFLOPS.
 *
 * Sixteen chains that do not depend on each other keep every pipe busy; each trip of the loop does 256
 * multiply-adds, 512 floating-point operations. With a near -1 the values keep changing: operands that
 * settle draw less power and rate too high.
 */
#include "dialect.h"

#ifdef __OPENCL_VERSION__
#define MULTIPLY_ADD_FLOAT(x) fma(x, a, b)
#elif defined(__CUDACC__)
#define MULTIPLY_ADD_FLOAT(x) __fmaf_rn(x, a, b)
#else
#define MULTIPLY_ADD_FLOAT(x) ((x) * a + b)
#endif

#define CHAINS 16
#define STEPS 16

KERNEL(TILE) fma_rate(GLOBAL float *out, u32 trips, float a, float b) {
    float chain[CHAINS];
    UNROLL
    for (u32 c = 0; c < CHAINS; c++) chain[c] = (float)(LOCAL_ID + c) * 0.001f;
    NO_UNROLL
    for (u32 trip = 0; trip < trips; trip++) {
        UNROLL
        for (u32 step = 0; step < STEPS; step++) {
            UNROLL
            for (u32 c = 0; c < CHAINS; c++) chain[c] = MULTIPLY_ADD_FLOAT(chain[c]);
        }
    }
    float sum = 0.0f;
    UNROLL
    for (u32 c = 0; c < CHAINS; c++) sum += chain[c];
    /* Never true, which the compiler cannot know, so nothing above is thrown away. */
    if (sum == 1.0e30f) out[GROUP_ID] = sum;
}
