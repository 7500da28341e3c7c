// The recurrence of an LSTM on a GPU, forward and backward, in float32.
//
// A block reads ROWS sequences from the first step to the last. SPLIT neighbouring threads share a
// hidden unit: each adds up the products with its part of the hidden units, K of them, and shuffles
// add the parts. A thread holds its weights of REGISTERS of the K units in registers and of SHARED
// units in shared memory. It reads those of the other units from the L2 cache in every step.
//
// cuda.py compiles this file for a hidden size and a device: it defines HIDDEN, SPLIT, ROWS,
// REGISTERS, SHARED, and AHEAD, the number of steps that are loaded ahead. Shapes are written with
// B sequences, T steps and H units; gates are in the order i, f, g, o. The models of a `vmap` lie
// one after another in every array; blockIdx.y is the model. Sums have a fixed order, so the same
// arrays give the same bits.

constexpr int H = HIDDEN;
constexpr int K = (H + 4 * SPLIT - 1) / (4 * SPLIT) * 4;
constexpr int PART = SPLIT > 1 ? K + 4 : K;  // The gap puts the parts in different banks.
constexpr int WIDTH = SPLIT * PART;
constexpr int GATE = (WIDTH + 31) / 32 * 32 + 8;  // The gap puts the gates in different banks.
constexpr int THREADS = (H * SPLIT + 31) / 32 * 32;

// Distances in the backward pass's weights. Weights that are read in every step are transposed
// before, so that neighbouring threads read neighbouring weights.
constexpr int UNIT = REGISTERS + SHARED < K ? 1 : 4 * H;
constexpr int COLUMN = REGISTERS + SHARED < K ? H : 1;

extern __shared__ float4 memory[];

// 1 / (1 + e^-x). The compiler's options make 2^x and 1 / x single instructions, which are off by 2
// and 1 units in the last place. So the result is within 7 units in the last place, and within 3 if
// it is at least a half. `low` is what rounding takes from x / log(2).
__device__ float sigmoid(float x) {
  const float y = fabsf(x) > 88.f ? copysignf(88.f, -x) : -x;  // NaN stays NaN.
  const float high = y * 1.442695041f;
  const float low = fmaf(y, 1.92596299e-8f, fmaf(y, 1.442695041f, -high));
  const float e = exp2f(high);
  return 1.f / (1.f + fmaf(e * 0.6931471806f, low, e));
}

// 1 - 2 / (1 + e^2x), within 3 units in the last place. Near zero, where this difference cancels, a
// polynomial with a relative error of 3e-9 takes its place.
__device__ float hyperbolic_tangent(float x) {
  const float far = fmaf(-2.f, 1.f / (1.f + exp2f(fabsf(x) * 2.885390082f)), 1.f);
  const float s = x * x;
  float near = fmaf(-0.005895158618f, s, 0.02079597214f);
  near = fmaf(fmaf(fmaf(near, s, -0.05378383042f), s, 0.1333192413f), s, -0.33333298f);
  return fabsf(x) < 0.6f ? fmaf(x * s, near, x) : copysignf(far, x);
}

__device__ float4 fma4(float4 x, float4 w, float4 sum) {
  return make_float4(fmaf(x.x, w.x, sum.x), fmaf(x.y, w.y, sum.y), fmaf(x.z, w.z, sum.z),
                     fmaf(x.w, w.w, sum.w));
}

__device__ float4 four(float x) { return make_float4(x, x, x, x); }

// Read a value of each gate, `distance` apart.
__device__ float4 load_gates(const float* from, int distance) {
  return make_float4(__ldg(from), __ldg(from + distance), __ldg(from + 2 * distance),
                     __ldg(from + 3 * distance));
}

__device__ void store_gates(float* to, int distance, float4 gates) {
  to[0] = gates.x, to[distance] = gates.y, to[2 * distance] = gates.z, to[3 * distance] = gates.w;
}

// The value of another thread of the warp.
__device__ float exchange(float x, int distance) {
  return __shfl_xor_sync(0xffffffffu, x, distance);
}

__device__ float over_parts(float x) {
#pragma unroll
  for (int distance = 1; distance < SPLIT; distance *= 2) x += exchange(x, distance);
  return x;
}

// Add the sums of a group's four threads; each keeps that of its own unit.
__device__ float over_gates(float4 sum, int gate) {
  const bool high = gate & 2, odd = gate & 1;
  const float x = (high ? sum.z : sum.x) + exchange(high ? sum.x : sum.z, 2 * SPLIT);
  const float y = (high ? sum.w : sum.y) + exchange(high ? sum.y : sum.w, 2 * SPLIT);
  return (odd ? y : x) + exchange(odd ? x : y, SPLIT);
}

__device__ void barrier() {
  if (THREADS == 32) __syncwarp(); else __syncthreads();
}

// A thread's place. A thread without a unit or a sequence reads those of another thread. So all
// threads of a warp take the same branches; only `stores` differs.
struct Place {
  const int unit = min(int(threadIdx.x) / SPLIT, H - 1), part = threadIdx.x % SPLIT;
  const int slot = unit / K * PART + unit % K;  // The unit's place in a row of hidden states.
  const bool used = threadIdx.x / SPLIT < H && part == 0;
  const long long first;  // The block's first sequence, counted over all models.
  int row[ROWS];
  bool stores[ROWS];

  __device__ Place(int batch) : first(1LL * blockIdx.y * batch + blockIdx.x * ROWS) {
    const int rows = batch - blockIdx.x * ROWS;
#pragma unroll
    for (int b = 0; b < ROWS; b++) row[b] = min(b, rows - 1), stores[b] = used && b < rows;
  }
};

// A thread's weights: four for each of the K values that it multiplies in a step.
//
// `from` is the first; `Value` is the distance between values in the matrix, and `Weight` the one
// between the four weights. `values` and `weights` count those that exist; the others are zero.
template <int Value, int Weight>
struct Weights {
  struct Four { float4 of[4]; };  // The weights of four values.
  const float* const from;
  const int values, weights;
  float4* const shared;
  Four own[REGISTERS / 4];

  __device__ Weights(const float* from, int values, int weights, float4* memory)
      : from(from), values(values), weights(weights), shared(memory + threadIdx.x) {
#pragma unroll
    for (int j = 0; j < REGISTERS; j += 4) own[j / 4] = load(j);
    for (int j = 0; j < SHARED; j += 4) {
      const Four w = load(REGISTERS + j);
#pragma unroll
      for (int k = 0; k < 4; k++) shared[(j + k) * THREADS] = w.of[k];
    }
  }

  __device__ float load(int j, int k) const {
    return j < values && k < weights ? __ldg(from + j * Value + k * Weight) : 0.f;
  }

  __device__ Four load(int j) const {
    if constexpr ((Value == 1 || Weight == 1) && H % 4 == 0) {
      return load_vectors(j);
    } else {
      Four w;
#pragma unroll
      for (int k = 0; k < 4; k++) {
        w.of[k] = make_float4(load(j + k, 0), load(j + k, 1), load(j + k, 2), load(j + k, 3));
      }
      return w;
    }
  }

  __device__ Four load_vectors(int j) const {
    Four w = {four(0.f), four(0.f), four(0.f), four(0.f)};
    if (j >= values || weights <= 0) return w;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const float* p = from + (Weight == 1 ? (j + k) * Value : j + k * Weight);
      w.of[k] = __ldg(reinterpret_cast<const float4*>(p));
    }
    if (Weight == 1) return w;
    const float4 a = w.of[0], b = w.of[1], c = w.of[2], d = w.of[3];
    return {make_float4(a.x, b.x, c.x, d.x), make_float4(a.y, b.y, c.y, d.y),
            make_float4(a.z, b.z, c.z, d.z), make_float4(a.w, b.w, c.w, d.w)};
  }

  // Add the products with `values`, which are in shared memory: K for each row, `distance` apart.
  __device__ void multiply(const float* values, int distance, float4 (&sum)[ROWS]) const {
    const auto add = [&](int j, const Four& w) {
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        const float4 x = *reinterpret_cast<const float4*>(values + b * distance + j);
        sum[b] = fma4(four(x.x), w.of[0], sum[b]), sum[b] = fma4(four(x.y), w.of[1], sum[b]);
        sum[b] = fma4(four(x.z), w.of[2], sum[b]), sum[b] = fma4(four(x.w), w.of[3], sum[b]);
      }
    };
#pragma unroll
    for (int j = 0; j < REGISTERS; j += 4) add(j, own[j / 4]);
#pragma unroll 4
    for (int j = 0; j < SHARED; j += 4) {
      const float4* w = shared + j * THREADS;
      add(REGISTERS + j, Four{w[0], w[THREADS], w[2 * THREADS], w[3 * THREADS]});
    }
#pragma unroll 4
    for (int j = REGISTERS + SHARED; j < K; j += 4) add(j, load(j));
  }
};

// All steps forward. `gates` and `cells` are for the backward pass; they and `hidden` may be null.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
forward(const float* __restrict__ products,   // (B, T, 4H), inputs times weight_ih
        const float* __restrict__ weight_hh,  // (H, 4H)
        const float* __restrict__ bias_ih, const float* __restrict__ bias_hh,  // (4H), (4H)
        const float* __restrict__ h0, const float* __restrict__ c0,            // (B, H), (B, H)
        float* __restrict__ gates, float* __restrict__ cells,  // (B, T, 4H), (B, T, H)
        float* __restrict__ hidden,                            // (B, T, H)
        float* __restrict__ h_last, float* __restrict__ c_last, int batch, int steps, int reverse) {
  if (batch == 0) return;
  const Place at(batch);
  weight_hh += 4LL * blockIdx.y * H * H + at.part * K * 4 * H + at.unit;
  const Weights<4 * H, H> weights(weight_hh, H - at.part * K, 4, memory + ROWS * WIDTH / 2);
  float* const states = reinterpret_cast<float*>(memory);  // [2][ROWS][WIDTH], hidden states
  const long long first_step = at.first * steps;
  const int start = reverse ? steps - 1 : 0, direction = reverse ? -1 : 1;
  float c[ROWS], h[ROWS];
  float4 ahead[AHEAD][ROWS];

  const auto fetch = [&](float4 (&x)[ROWS], int i) {
    const int t = start + min(i, steps - 1) * direction;
#pragma unroll
    for (int b = 0; b < ROWS; b++) {
      const int step = at.row[b] * steps + t;
      x[b] = load_gates(products + first_step * 4 * H + step * 4 * H + at.unit, H);
    }
  };
  if (steps > 0) {
#pragma unroll
    for (int r = 0; r < AHEAD; r++) fetch(ahead[r], r);
  }
  float4 bias = load_gates(bias_ih + blockIdx.y * 4 * H + at.unit, H);
  bias = fma4(load_gates(bias_hh + blockIdx.y * 4 * H + at.unit, H), four(1.f), bias);
  for (int i = threadIdx.x; i < 2 * ROWS * WIDTH; i += THREADS) states[i] = 0.f;
  __syncthreads();
#pragma unroll
  for (int b = 0; b < ROWS; b++) {
    const long long i = (at.first + at.row[b]) * H + at.unit;
    c[b] = c0[i], h[b] = h0[i];
    if (at.used) states[b * WIDTH + at.slot] = h[b];
  }
  __syncthreads();

  for (int i0 = 0; i0 < steps; i0 += AHEAD) {
#pragma unroll
    for (int r = 0; r < AHEAD; r++) {
      const int i = i0 + r, t = start + i * direction;
      if (i >= steps) break;
      const float* before = states + (i & 1) * ROWS * WIDTH + at.part * PART;
      float* after = states + (~i & 1) * ROWS * WIDTH + at.slot;
      float4 sum[ROWS];
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        sum[b] = at.part == 0 ? fma4(ahead[r][b], four(1.f), bias) : four(0.f);
      }
      fetch(ahead[r], i + AHEAD);
      weights.multiply(before, WIDTH, sum);
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        const float4 a = make_float4(
            sigmoid(over_parts(sum[b].x)), sigmoid(over_parts(sum[b].y)),
            hyperbolic_tangent(over_parts(sum[b].z)), sigmoid(over_parts(sum[b].w)));
        c[b] = fmaf(a.y, c[b], a.x * a.z);
        h[b] = a.w * hyperbolic_tangent(c[b]);
        if (at.used) after[b * WIDTH] = h[b];
        const long long step = first_step + (b * steps + t);
        if (at.stores[b] && hidden) hidden[step * H + at.unit] = h[b];
        if (at.stores[b] && gates) {
          store_gates(gates + step * 4 * H + at.unit, H, a);
          cells[step * H + at.unit] = c[b];
        }
      }
      barrier();
    }
  }
#pragma unroll
  for (int b = 0; b < ROWS; b++) {
    const long long i = (at.first + b) * H + at.unit;
    if (at.stores[b]) h_last[i] = h[b], c_last[i] = c[b];
  }
}

// All steps backward: the gradients of the gates before sigmoid and tanh, and of the first carry.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
backward(const float* __restrict__ gates, const float* __restrict__ cells,  // of the forward pass
         const float* __restrict__ c0,                                      // (B, H)
         const float* __restrict__ weight_hh,  // (H, 4H); (4H, H) if it is read in every step
         const float* __restrict__ d_hidden,                                // (B, T, H), or null
         const float* __restrict__ d_h_last, const float* __restrict__ d_c_last,  // (B, H)
         float* __restrict__ d_gates, float* __restrict__ d_h0, float* __restrict__ d_c0,
         int batch, int steps, int reverse) {
  if (batch == 0) return;
  const Place at(batch);
  // Four units are a group: each of their threads adds up the products of one gate for all four.
  const int gate = threadIdx.x / SPLIT % 4, group = threadIdx.x / SPLIT - gate;
  const int first = gate * H + at.part * K;  // The first column of weight_hh that it multiplies.
  weight_hh += 4LL * blockIdx.y * H * H + group * UNIT + first * COLUMN;
  const Weights<COLUMN, UNIT> weights(weight_hh, H - at.part * K, H - group,
                                      memory + 2 * ROWS * GATE);
  const long long first_step = at.first * steps;
  const int start = reverse ? 0 : steps - 1, direction = reverse ? 1 : -1;
  struct Step { float4 gates; float c_before, d_hidden; };  // What a step needs.
  Step ahead[AHEAD][ROWS];
  float c[ROWS], c_first[ROWS], d_h[ROWS], d_c[ROWS];

  const auto fetch = [&](Step (&x)[ROWS], int i) {
    const int t = start + min(i, steps - 1) * direction;
    const int t_before = start + min(i + 1, steps - 1) * direction;
#pragma unroll
    for (int b = 0; b < ROWS; b++) {
      const long long step = first_step + (at.row[b] * steps + t);
      x[b].gates = load_gates(gates + step * 4 * H + at.unit, H);
      const long long before = first_step + (at.row[b] * steps + t_before);
      const float loaded = __ldg(cells + before * H + at.unit);
      x[b].c_before = i < steps - 1 ? loaded : c_first[b];
      x[b].d_hidden = d_hidden ? __ldg(d_hidden + step * H + at.unit) : 0.f;
    }
  };
#pragma unroll
  for (int b = 0; b < ROWS; b++) {
    const long long i = (at.first + at.row[b]) * H + at.unit;
    d_h[b] = d_h_last[i], d_c[b] = d_c_last[i], c_first[b] = c0[i];
    if (steps) c[b] = cells[(first_step + at.row[b] * steps + start) * H + at.unit];
  }
  if (steps) {
#pragma unroll
    for (int r = 0; r < AHEAD; r++) fetch(ahead[r], r);
  }
  float* const slopes = reinterpret_cast<float*>(memory);  // [2][ROWS][4][GATE], of a step's gates
  for (int i = threadIdx.x; i < 8 * ROWS * GATE; i += THREADS) slopes[i] = 0.f;
  __syncthreads();

  for (int i0 = 0; i0 < steps; i0 += AHEAD) {
#pragma unroll
    for (int r = 0; r < AHEAD; r++) {
      const int i = i0 + r, t = start + i * direction;
      if (i >= steps) break;
      float* const d = slopes + (i & 1) * ROWS * 4 * GATE;
      float4 sum[ROWS];
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        const float4 a = ahead[r][b].gates;
        const float c_before = ahead[r][b].c_before, tanh_c = hyperbolic_tangent(c[b]);
        const float slope = a.w * fmaf(-tanh_c, tanh_c, 1.f);  // of h along c
        const float slope_i = a.z * a.x * (1.f - a.x), slope_f = c_before * a.y * (1.f - a.y);
        const float slope_g = a.x * fmaf(-a.z, a.z, 1.f), slope_o = tanh_c * a.w * (1.f - a.w);
        const float d_state = d_h[b] + ahead[r][b].d_hidden;
        const float d_cell = fmaf(d_state, slope, d_c[b]);
        const float4 d_gate =
            make_float4(d_cell * slope_i, d_cell * slope_f, d_cell * slope_g, d_state * slope_o);
        d_c[b] = d_cell * a.y;
        c[b] = c_before;
        if (at.used) store_gates(d + b * 4 * GATE + at.slot, GATE, d_gate);
        const long long step = first_step + (b * steps + t);
        if (at.stores[b]) store_gates(d_gates + step * 4 * H + at.unit, H, d_gate);
        sum[b] = four(0.f);
      }
      barrier();
      fetch(ahead[r], i + AHEAD);
      weights.multiply(d + gate * GATE + at.part * PART, 4 * GATE, sum);
#pragma unroll
      for (int b = 0; b < ROWS; b++) {
        d_h[b] = over_parts(over_gates(sum[b], gate));
      }
    }
  }
#pragma unroll
  for (int b = 0; b < ROWS; b++) {
    const long long i = (at.first + b) * H + at.unit;
    if (at.stores[b]) d_h0[i] = d_h[b], d_c0[i] = d_c[b];
  }
}
