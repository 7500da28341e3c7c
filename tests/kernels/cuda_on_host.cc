// A stand-in for NVIDIA's driver, which runs lstm.cu on a CPU: each thread of a block is a thread.
//
// The environment variable FAILING names the functions that fail, each followed by a space. CALLS
// names a file that gets a line for each call. The test defines the names that cuda.py defines for
// lstm.cu, and replaces `1.f / (` in it by `reciprocal(`.

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sanitizer/asan_interface.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(...)

struct alignas(16) float4 { float x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <typename T>
T __ldg(const T* p) { return *p; }

struct Index { unsigned x, y; };
thread_local Index threadIdx, blockIdx;
std::unique_ptr<std::barrier<>> block_barrier;
std::vector<std::unique_ptr<std::barrier<>>> warp_barriers;
std::vector<float> shuffled;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }
inline void __syncwarp() { warp_barriers[threadIdx.x / 32]->arrive_and_wait(); }
inline float __shfl_xor_sync(unsigned, float x, int distance) {
  thread_local bool second = false;  // With two buffers, one barrier is enough.
  float* const values = shuffled.data() + ((second = !second) ? shuffled.size() / 2 : 0);
  values[threadIdx.x] = x;
  __syncwarp();
  return values[threadIdx.x ^ distance];
}

// The result of a fast instruction: wrong by up to `units` in the last place, which is what NVIDIA
// allows it, and by no less than one unit less. The bits of the operand choose the direction.
inline float off(double exact, float operand, double units) {
  const float near = exact;
  if (!std::isnormal(near)) return std::fabs(near) < 1 ? 0.f : near;
  unsigned bits;
  std::memcpy(&bits, &operand, 4);
  const double unit = std::ldexp(1., std::ilogb(near) - 23);
  return exact + (bits * 2654435761u >> 31 ? 1 : -1) * (units - 0.5) * unit;
}
inline float fast_exp2f(float x) { return off(std::exp2(double(x)), x, 2); }
inline float reciprocal(float x) { return off(1 / double(x), x, 1); }
#define exp2f fast_exp2f

using std::min;
#include "lstm.cu"

alignas(16) float4 memory[232448 / sizeof(float4)];

template <typename... Types, std::size_t... I>
void call(void (*kernel)(Types...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<Types*>(arguments[I])...);
}
template <typename... Types>
void call(void (*kernel)(Types...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<Types...>());
}

// Run a block; say whether it kept to its part of shared memory.
bool run_block(const std::string& kernel, Index block, unsigned shared, void** arguments) {
  std::fill_n(reinterpret_cast<float*>(memory), sizeof(memory) / 4,
              std::numeric_limits<float>::quiet_NaN());
  ASAN_POISON_MEMORY_REGION(reinterpret_cast<char*>(memory) + shared, sizeof(memory) - shared);
  block_barrier = std::make_unique<std::barrier<>>(THREADS);
  warp_barriers.clear();
  for (int i = 0; i < THREADS; i += 32) {
    warp_barriers.push_back(std::make_unique<std::barrier<>>(32));
  }
  shuffled.resize(2 * THREADS);
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < THREADS; thread++) {
    threads.emplace_back([&, thread] {
#ifdef __SSE__
      _mm_setcsr(_mm_getcsr() | 0x8040);  // Take subnormal numbers as 0, as --ftz=true does.
#endif
      threadIdx = {thread, 0}, blockIdx = block;
      kernel == "forward" ? call(forward, arguments) : call(backward, arguments);
    });
  }
  for (auto& thread : threads) thread.join();
  ASAN_UNPOISON_MEMORY_REGION(memory, sizeof(memory));
  const float* const numbers = reinterpret_cast<float*>(memory);
  return std::all_of(numbers + shared / 4, numbers + sizeof(memory) / 4,
                     [](float x) { return std::isnan(x); });
}

using Handle = void*;
constexpr int kInvalidValue = 1, kFails = 700;

// Record a call, and say whether it fails.
int called(const std::string& name, const std::string& arguments = "") {
  if (const char* path = std::getenv("CALLS")) {
    std::FILE* file = std::fopen(path, "a");
    std::fprintf(file, "%s%s\n", name.c_str(), arguments.c_str());
    std::fclose(file);
  }
  const char* failing = std::getenv("FAILING");
  return failing && std::strstr(failing, (name + " ").c_str()) ? kFails : 0;
}

template <typename... Numbers>
std::string text(Numbers... numbers) { return ((" " + std::to_string(numbers)) + ...); }

thread_local Handle context = reinterpret_cast<Handle>(1);  // The device's number plus 1.

extern "C" {
int cuInit(unsigned) { return called("cuInit"); }
int cuGetErrorString(int status, const char** text) {
  if (called("cuGetErrorString")) return kFails;
  *text = status == kFails ? "the stand-in fails" : "another error";
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return called("cuDeviceGet", text(ordinal));
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : 232448;
  return called("cuDeviceGetAttribute", text(attribute));
}
int cuDevicePrimaryCtxRetain(Handle* retained, int device) {
  *retained = reinterpret_cast<Handle>(device + 1L);
  return called("cuDevicePrimaryCtxRetain", text(device));
}
int cuCtxGetCurrent(Handle* current) { return *current = context, called("cuCtxGetCurrent"); }
int cuCtxPushCurrent_v2(Handle) { return called("cuCtxPushCurrent_v2"); }
int cuCtxPopCurrent_v2(Handle*) { return called("cuCtxPopCurrent_v2"); }
int cuCtxSynchronize() { return called("cuCtxSynchronize"); }
int cuModuleLoadData(Handle*, const void* cubin) {
  return called("cuModuleLoadData", std::string(" ") + static_cast<const char*>(cubin));
}
int cuModuleGetFunction(Handle* kernel, Handle, const char* name) {
  *kernel = const_cast<char*>(name);
  return called("cuModuleGetFunction", std::string(" ") + name);
}
int cuFuncSetAttribute(Handle, int attribute, int value) {
  return called("cuFuncSetAttribute", text(attribute, value));
}
int cuLaunchKernel(Handle kernel, unsigned blocks, unsigned models, unsigned z, unsigned threads,
                   unsigned y, unsigned, unsigned shared, Handle stream, void** arguments, void**) {
  const std::string name = static_cast<const char*>(kernel);
  // Pointers are 1, or 0 if null.
  const int arrays = name == "forward" ? 11 : 10;
  std::string given;
  for (int i = 0; i < arrays; i++) given += text(int(*static_cast<Handle*>(arguments[i]) != nullptr));
  for (int i = arrays; i < arrays + 3; i++) given += text(*static_cast<int*>(arguments[i]));
  const auto queue = reinterpret_cast<std::intptr_t>(stream);
  const std::string place = text(blocks, models, threads, shared, queue);
  if (called("cuLaunchKernel", " " + name + place + given)) return kFails;
  if (z != 1 || y != 1 || threads != THREADS || shared > sizeof(memory)) return kInvalidValue;
  for (unsigned model = 0; model < models; model++) {
    for (unsigned block = 0; block < blocks; block++) {
      if (!run_block(name, {block, model}, shared, arguments)) return kInvalidValue;
    }
  }
  return 0;
}
}
