// lstm.cu on a CPU: each CUDA thread is a thread, and each barrier or shuffle a barrier among them.
//
// The program reads int32 numbers (pass, models, batch, steps, reverse, blocks, threads, bytes of
// shared memory), then for each array an int64 size and its floats: first the kernel's arguments,
// then the sizes of its results alone. It writes the results. A size of 0 is a null pointer.

#include <barrier>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(...)
#define __restrict__

struct float4 { float x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct Index { unsigned x, y; };
thread_local Index threadIdx, blockIdx;

using Barrier = std::barrier<>;
std::unique_ptr<Barrier> block_barrier;
std::vector<std::unique_ptr<Barrier>> warp_barriers;
std::vector<float> shuffled;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }
inline void __syncwarp() { warp_barriers[threadIdx.x / 32]->arrive_and_wait(); }
inline float __shfl_xor_sync(unsigned, float x, int distance) {
  shuffled[threadIdx.x] = x;
  __syncwarp();
  const float other = shuffled[threadIdx.x ^ distance];
  __syncwarp();
  return other;
}
template <typename T>
T __ldg(const T* p) { return *p; }

// The worst that NVIDIA allows its fast instructions, with a sign that changes with the operand.
inline float off(float x, float units) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return x * (1 + (bits * 2654435761u >> 31 ? units : -units) * 5.96e-8f);
}
inline float __fdividef(float a, float b) { return off(a / b, OFF); }
inline float fast_exp2f(float x) { return off(exp2f(x), OFF); }
#define exp2f fast_exp2f

using std::min;
#include "lstm.cu"

alignas(16) float4 memory[232448 / 16];

void call(bool back, std::vector<float*>& a, int batch, int steps, int reverse) {
  if (back) {
    backward(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], batch, steps, reverse);
  } else {
    forward(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], batch, steps, reverse);
  }
}

template <typename T>
void read(T* values, std::size_t count) {
  if (std::fread(values, sizeof(T), count, stdin) != count) std::abort();
}

int main() {
  std::int32_t numbers[8];
  read(numbers, 8);
  const auto [back, models, batch, steps, reverse, blocks, threads, bytes] = numbers;
  const int inputs = back ? 7 : 6, arrays = back ? 10 : 11;
  std::vector<std::unique_ptr<float[]>> owned;
  std::vector<std::int64_t> sizes(arrays);
  std::vector<float*> pointers;
  for (int i = 0; i < arrays; i++) {
    read(&sizes[i], 1);
    owned.emplace_back(new float[sizes[i]]);
    if (i < inputs) read(owned[i].get(), sizes[i]);
    pointers.push_back(sizes[i] ? owned[i].get() : nullptr);
  }
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(reinterpret_cast<char*>(memory) + bytes, sizeof(memory) - bytes);
#endif
  shuffled.resize(threads);
  for (unsigned model = 0; model < unsigned(models); model++) {
    for (unsigned block = 0; block < unsigned(blocks); block++) {
      block_barrier = std::make_unique<Barrier>(threads);
      warp_barriers.clear();
      for (int warp = 0; warp < threads / 32; warp++) {
        warp_barriers.push_back(std::make_unique<Barrier>(32));
      }
      std::vector<std::thread> team;
      for (unsigned thread = 0; thread < unsigned(threads); thread++) {
        team.emplace_back([&, thread] {
          threadIdx = {thread, 0}, blockIdx = {block, model};
          call(back, pointers, batch, steps, reverse);
        });
      }
      for (auto& thread : team) thread.join();
    }
  }
  for (int i = inputs; i < arrays; i++) std::fwrite(owned[i].get(), 4, sizes[i], stdout);
}
