"""The kernels, one source for CUDA, OpenCL C and C++, and their text as a compiler takes it."""
