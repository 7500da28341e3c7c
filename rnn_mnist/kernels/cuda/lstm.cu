// The recurrence of an LSTM on a GPU, forward and backward, in float32.
//
// A block reads ROWS sequences from the first step to the last. SPLIT neighbouring threads share a
// hidden unit: each adds up the products with its part of the hidden units, K of them, and shuffles
// add the parts. A thread holds its weights of REGISTERS of the K units in registers, of SHARED
// units in shared memory, and reads those of the other units from the L2 cache in every step.
//
// cuda.py compiles this file for a hidden size and a device: it defines HIDDEN, SPLIT, ROWS,
// REGISTERS, SHARED, and AHEAD, the number of steps that are loaded ahead. Shapes are written with
// B sequences, T steps and H units; gates are in the order i, f, g, o. The models of a `vmap` lie
// one after another in every array; blockIdx.y is the model. Sums have a fixed order, so the same
// arrays give the same bits.

constexpr int H = HIDDEN;
constexpr int K = (H + 4 * SPLIT - 1) / (4 * SPLIT) * 4;
constexpr int PART = SPLIT > 1 ? K + 4 : K;  // Parts a little apart are in different banks.
constexpr int WIDTH = SPLIT * PART;
constexpr int THREADS = (H * SPLIT + 31) / 32 * 32;

// e^x. The product with 1 / log(2) is exact in two floats; exp2f is off by 2 units in the last place.
__device__ float exponential(float x) {
  const float y = x * 1.442695041f;
  const float low = fmaf(x, 1.92596299e-8f, fmaf(x, 1.442695041f, -y));
  const float e = exp2f(y);
  return fmaf(e, low * 0.6931471806f, e);
}

__device__ float sigmoid(float x) {
  return __fdividef(1.f, 1.f + exponential(x < -88.f ? 88.f : -x));  // NaN stays NaN.
}

__device__ float hyperbolic_tangent(float x) {
  const float y = fabsf(x), s = x * x;
  const float far = 1.f - __fdividef(2.f, 1.f + exponential(y > 15.f ? 30.f : 2.f * y));
  // A polynomial with a relative error of 3e-9, where the difference above would cancel.
  float near = fmaf(-0.005895158618f, s, 0.02079597214f);
  near = fmaf(fmaf(fmaf(near, s, -0.05378383042f), s, 0.1333192413f), s, -0.33333298f);
  return y < 0.6f ? fmaf(x * s, near, x) : copysignf(far, x);
}

// A thread's weights: for each of its part's K units, those of the four gates.
//
// `Unit` and `Gate` are the distances in the matrix between units and between gates.
template <int Unit, int Gate>
struct Weights {
  const float* matrix;
  const bool used;
  const int first;  // The part's first unit.
  float4* const shared;
  float4 own[REGISTERS];

  __device__ Weights(const float* matrix, bool used, int first, float4* shared)
      : matrix(matrix), used(used), first(first), shared(shared + threadIdx.x) {
#pragma unroll
    for (int j = 0; j < REGISTERS; j++) own[j] = load(j);
    for (int j = 0; j < SHARED; j++) this->shared[j * THREADS] = load(REGISTERS + j);
  }

  __device__ float4 load(int j) const {
    if (!used || first + j >= H) return make_float4(0.f, 0.f, 0.f, 0.f);
    const float* w = matrix + (first + j) * Unit;
    return make_float4(__ldg(w), __ldg(w + Gate), __ldg(w + 2 * Gate), __ldg(w + 3 * Gate));
  }

  // Call use(j, weights of the units j to j + 3) for the whole part.
  template <typename Use>
  __device__ void each(Use use) const {
#pragma unroll
    for (int j = 0; j < REGISTERS; j += 4) use(j, own[j], own[j + 1], own[j + 2], own[j + 3]);
#pragma unroll 4
    for (int j = 0; j < SHARED; j += 4) {
      const float4* w = shared + j * THREADS;
      use(REGISTERS + j, w[0], w[THREADS], w[2 * THREADS], w[3 * THREADS]);
    }
#pragma unroll 4
    for (int j = REGISTERS + SHARED; j < K; j += 4) {
      use(j, load(j), load(j + 1), load(j + 2), load(j + 3));
    }
  }
};

__device__ void barrier() {
  if (THREADS == 32) __syncwarp(); else __syncthreads();
}

__device__ float over_parts(float x) {
#pragma unroll
  for (int distance = 1; distance < SPLIT; distance *= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, distance);
  }
  return x;
}

// A thread's place: its unit, its part, its block's first sequence, and the model's first sequence.
struct Place {
  const int unit = threadIdx.x / SPLIT, part = threadIdx.x % SPLIT;
  const bool used = unit < H;
  const int slot = unit / K * PART + unit % K;  // The unit's place among a row of hidden states.
  const int row = blockIdx.x * ROWS;
  const long long model;
  __device__ Place(int batch) : model(1LL * blockIdx.y * batch) {}
};

extern __shared__ float4 memory[];

// All steps forward. `gates` and `cells` are for the backward pass; they and `hidden` may be null.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
forward(const float* __restrict__ products,  // (B, T, 4H), inputs times weight_ih
        const float* __restrict__ weight_hh, // (H, 4H)
        const float* __restrict__ bias_ih, const float* __restrict__ bias_hh,  // (4H), (4H)
        const float* __restrict__ h0, const float* __restrict__ c0,            // (B, H), (B, H)
        float* __restrict__ gates, float* __restrict__ cells,                  // (B, T, 4H), (B, T, H)
        float* __restrict__ hidden, float* __restrict__ h_last, float* __restrict__ c_last,
        int batch, int steps, int reverse) {
  const Place at(batch);
  const Weights<4 * H, H> weights(weight_hh + 1LL * blockIdx.y * H * 4 * H + at.unit, at.used,
                                  at.part * K, memory + 2 * ROWS * WIDTH / 4);
  float* const states = reinterpret_cast<float*>(memory);  // [2][ROWS][WIDTH], hidden states
  const bool adds = at.used && at.part == 0;  // The thread that adds what is no product of a part.
  float bias[4], c[ROWS], h[ROWS];
  float4 ahead[AHEAD][ROWS];

#pragma unroll
  for (int g = 0; g < 4; g++) {
    const int i = blockIdx.y * 4 * H + g * H + at.unit;
    bias[g] = adds ? bias_ih[i] + bias_hh[i] : 0.f;
  }
  const auto fetch = [&](float4 (&x)[ROWS], int t) {
#pragma unroll
    for (int b = 0; b < ROWS; b++) {
      x[b] = make_float4(0.f, 0.f, 0.f, 0.f);
      if (!adds || at.row + b >= batch || t < 0 || t >= steps) continue;
      const float* p = products + ((at.model + at.row + b) * steps + t) * 4 * H + at.unit;
      x[b] = make_float4(__ldg(p), __ldg(p + H), __ldg(p + 2 * H), __ldg(p + 3 * H));
    }
  };
  const int direction = reverse ? -1 : 1;
  int t = reverse ? steps - 1 : 0;
#pragma unroll
  for (int r = 0; r < AHEAD; r++) fetch(ahead[r], t + r * direction);
  for (int i = threadIdx.x; i < 2 * ROWS * WIDTH; i += THREADS) states[i] = 0.f;
  __syncthreads();
#pragma unroll
  for (int b = 0; b < ROWS; b++) {
    const bool real = at.used && at.row + b < batch;
    const long long i = (at.model + at.row + b) * H + at.unit;
    c[b] = real ? c0[i] : 0.f;
    h[b] = real ? h0[i] : 0.f;
    if (at.used) states[b * WIDTH + at.slot] = h[b];
  }
  __syncthreads();

  for (int i0 = 0; i0 < steps; i0 += AHEAD) {
#pragma unroll
    for (int r = 0; r < AHEAD; r++, t += direction) {
      if (i0 + r >= steps) break;
      const float* before = states + ((i0 + r) & 1) * ROWS * WIDTH + at.part * PART;
      float* after = states + ((i0 + r + 1) & 1) * ROWS * WIDTH;
      float4 sum[ROWS];
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        const float4 x = ahead[r][b];
        sum[b] = make_float4(x.x + bias[0], x.y + bias[1], x.z + bias[2], x.w + bias[3]);
      }
      fetch(ahead[r], t + AHEAD * direction);
      weights.each([&](int j, float4 w0, float4 w1, float4 w2, float4 w3) {
#pragma unroll
        for (int b = 0; b < ROWS; b++) {
          const float4 x = *reinterpret_cast<const float4*>(before + b * WIDTH + j);
          const auto add = [&](float x, float4 w) {
            sum[b].x = fmaf(x, w.x, sum[b].x), sum[b].y = fmaf(x, w.y, sum[b].y);
            sum[b].z = fmaf(x, w.z, sum[b].z), sum[b].w = fmaf(x, w.w, sum[b].w);
          };
          add(x.x, w0), add(x.y, w1), add(x.z, w2), add(x.w, w3);
        }
      });
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        const float i = sigmoid(over_parts(sum[b].x)), f = sigmoid(over_parts(sum[b].y));
        const float g = hyperbolic_tangent(over_parts(sum[b].z)), o = sigmoid(over_parts(sum[b].w));
        c[b] = fmaf(f, c[b], i * g);
        h[b] = o * hyperbolic_tangent(c[b]);
        if (!adds) continue;
        after[b * WIDTH + at.slot] = h[b];
        if (at.row + b >= batch) continue;
        const long long step = (at.model + at.row + b) * steps + t;
        if (hidden) hidden[step * H + at.unit] = h[b];
        if (gates) {
          float* to = gates + step * 4 * H + at.unit;
          to[0] = i, to[H] = f, to[2 * H] = g, to[3 * H] = o;
          cells[step * H + at.unit] = c[b];
        }
      }
      barrier();
    }
  }
#pragma unroll
  for (int b = 0; b < ROWS; b++) {
    if (!adds || at.row + b >= batch) continue;
    const long long i = (at.model + at.row + b) * H + at.unit;
    h_last[i] = h[b], c_last[i] = c[b];
  }
}

// All steps backward: the gradients of the gates before sigmoid and tanh, and of the first carry.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
backward(const float* __restrict__ gates, const float* __restrict__ cells,  // of the forward pass
         const float* __restrict__ c0,                                      // (B, H)
         const float* __restrict__ transposed,                              // weight_hh (4H, H)
         const float* __restrict__ d_hidden,                                // (B, T, H), or null
         const float* __restrict__ d_h_last, const float* __restrict__ d_c_last,  // (B, H)
         float* __restrict__ d_gates, float* __restrict__ d_h0, float* __restrict__ d_c0,
         int batch, int steps, int reverse) {
  const Place at(batch);
  const Weights<H, H * H> weights(transposed + 1LL * blockIdx.y * H * 4 * H + at.unit, at.used,
                                  at.part * K, memory + 2 * ROWS * WIDTH);
  const bool adds = at.used && at.part == 0;
  // What a step needs of the forward pass.
  struct Step { float i, f, g, o, c_before, d_hidden; };
  Step ahead[AHEAD][ROWS];
  float c[ROWS], d_h[ROWS], d_c[ROWS];

  const int direction = reverse ? 1 : -1;
  const auto fetch = [&](Step (&x)[ROWS], int t) {
#pragma unroll
    for (int b = 0; b < ROWS; b++) {
      x[b] = Step{};
      if (!at.used || at.row + b >= batch || t < 0 || t >= steps) continue;
      const long long sequence = at.model + at.row + b, step = sequence * steps + t;
      const float* p = gates + step * 4 * H + at.unit;
      const bool first = t + direction < 0 || t + direction >= steps;
      const float* before = first ? c0 + sequence * H : cells + (step + direction) * H;
      x[b] = Step{__ldg(p), __ldg(p + H), __ldg(p + 2 * H), __ldg(p + 3 * H),
                  __ldg(before + at.unit),
                  d_hidden ? __ldg(d_hidden + step * H + at.unit) : 0.f};
    }
  };
  int t = reverse ? 0 : steps - 1;
#pragma unroll
  for (int r = 0; r < AHEAD; r++) fetch(ahead[r], t + r * direction);
  for (int i = threadIdx.x; i < 2 * ROWS * WIDTH; i += THREADS) {
    memory[i] = make_float4(0.f, 0.f, 0.f, 0.f);  // [2][ROWS][WIDTH], gradients of a step's gates
  }
#pragma unroll
  for (int b = 0; b < ROWS; b++) {
    const bool real = at.used && at.row + b < batch;
    const long long sequence = at.model + at.row + b, i = sequence * H + at.unit;
    d_h[b] = real ? d_h_last[i] : 0.f;
    d_c[b] = real ? d_c_last[i] : 0.f;
    c[b] = real && steps ? cells[(sequence * steps + t) * H + at.unit] : 0.f;
  }
  __syncthreads();

  for (int i0 = 0; i0 < steps; i0 += AHEAD) {
#pragma unroll
    for (int r = 0; r < AHEAD; r++, t += direction) {
      if (i0 + r >= steps) break;
      float4* const d = memory + ((i0 + r) & 1) * ROWS * WIDTH;
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        const Step s = ahead[r][b];
        const float tanh_c = hyperbolic_tangent(c[b]);
        const float slope = s.o * fmaf(-tanh_c, tanh_c, 1.f);  // of h along c
        const float slope_i = s.g * s.i * (1.f - s.i), slope_f = s.c_before * s.f * (1.f - s.f);
        const float slope_g = s.i * fmaf(-s.g, s.g, 1.f), slope_o = tanh_c * s.o * (1.f - s.o);
        const float d_hidden_state = d_h[b] + s.d_hidden;
        const float d_cell = fmaf(d_hidden_state, slope, d_c[b]);
        const float4 d_gate = make_float4(d_cell * slope_i, d_cell * slope_f, d_cell * slope_g,
                                          d_hidden_state * slope_o);
        d_c[b] = d_cell * s.f;
        c[b] = s.c_before;
        if (!adds) continue;
        d[b * WIDTH + at.slot] = d_gate;
        if (at.row + b >= batch) continue;
        float* to = d_gates + ((at.model + at.row + b) * steps + t) * 4 * H + at.unit;
        to[0] = d_gate.x, to[H] = d_gate.y, to[2 * H] = d_gate.z, to[3 * H] = d_gate.w;
      }
      barrier();
      fetch(ahead[r], t + AHEAD * direction);
      float4 sum[ROWS];
#pragma unroll
      for (int b = 0; b < ROWS; b++) sum[b] = make_float4(0.f, 0.f, 0.f, 0.f);
      weights.each([&](int j, float4 w0, float4 w1, float4 w2, float4 w3) {
#pragma unroll
        for (int b = 0; b < ROWS; b++) {
          const float4* x = d + b * WIDTH + at.part * PART + j;
          const auto add = [&](float4 x, float4 w) {
            sum[b].x = fmaf(x.x, w.x, sum[b].x), sum[b].y = fmaf(x.y, w.y, sum[b].y);
            sum[b].z = fmaf(x.z, w.z, sum[b].z), sum[b].w = fmaf(x.w, w.w, sum[b].w);
          };
          add(x[0], w0), add(x[1], w1), add(x[2], w2), add(x[3], w3);
        }
      });
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        d_h[b] = over_parts((sum[b].x + sum[b].y) + (sum[b].z + sum[b].w));
      }
    }
  }
#pragma unroll
  for (int b = 0; b < ROWS; b++) {
    if (!adds || at.row + b >= batch) continue;
    const long long i = (at.model + at.row + b) * H + at.unit;
    d_h0[i] = d_h[b], d_c0[i] = d_c[b];
  }
}
