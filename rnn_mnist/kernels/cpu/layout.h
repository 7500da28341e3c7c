// The layout of an LSTM layer: sizes, tiles of the batch, working memory and packed weights.
//
// B rows in the batch, T steps of F features, H hidden units; the gates are i, f, g, o. The second
// part is compiled for one instruction set. ../README.md explains the layout.

#pragma once

#include <cstdint>
#include <cstring>
#include <tuple>

// What is always inlined leaves no copy for the linker. It could choose one whose instructions the
// processor does not have.
#define INLINE __attribute__((always_inline)) inline

namespace lstm {

using Index = std::int64_t;

constexpr Index kGroup = 5;       // Rows of the batch that share a loaded vector of weights.
constexpr Index kMostLanes = 16;  // Elements of the widest vector.

INLINE Index divide_up(Index a, Index b) { return (a + b - 1) / b; }
INLINE Index round_up(Index a, Index b) { return divide_up(a, b) * b; }

// Sizes, arguments, working memory and results. H is padded to a multiple of four, so that the
// gates of a row fill vectors. Arrays of the other pass, and those that nobody wants, are null.
template <typename T>
struct Layer {
  Index batch, steps, features, hidden;
  bool reverse;
  bool dense;  // Multiply zeros too: an infinite weight makes NaN of them.
  bool zeros;  // All first hidden states are zero, and products with them are left out.
  bool share;  // The first steps without input are computed once for all rows of a tile.
  const T *weight_ih, *weight_hh, *bias_ih, *bias_hh, *inputs, *h0, *c0;
  T *hidden_states, *h, *c, *saved;
  const T *d_hidden_states, *d_h, *d_c;
  T *d_weight_ih, *d_weight_hh, *d_bias, *d_inputs, *d_h0, *d_c0;
  T *packed_ih, *packed_hh, *packed_bias;
  T* partial;  // Each tile's gradients of all weights: weight_rows() rows of interleaved columns.

  INLINE Index padded() const { return round_up(hidden, 4); }
  INLINE Index columns() const { return 4 * padded(); }
  INLINE Index weight_rows() const { return features + hidden + 1; }  // The last one is the bias.
  INLINE bool small() const { return columns() * (features + hidden) <= 6000; }

  // Rows of a tile. Tiles are larger where weights come from the second cache, so that they are
  // loaded less often, and in large batches.
  INLINE Index tile_rows() const {
    const Index least = small() ? 2 : 5, share = divide_up(divide_up(batch, kGroup), 64);
    return (least > share ? least : share) * kGroup;
  }
  INLINE Index tiles() const { return divide_up(batch, tile_rows()); }
  INLINE Index rows_of(Index tile) const {
    return tile + 1 < tiles() ? tile_rows() : batch - tile * tile_rows();
  }

  // Steps of a tile whose products for the weights' gradients are computed together.
  INLINE Index window() const { return tile_rows() < 50 ? 50 / tile_rows() : 1; }

  // Units of a tile, and room for a last vector that they do not fill.
  INLINE Index tile_units() const { return tile_rows() * padded() + kMostLanes; }

  // Elements that the forward pass saves before a tile: i, f, g, o, c and tanh(c) of every step.
  INLINE Index saved_before(Index tile) const { return steps * 6 * tile * tile_units(); }

  // Elements that the forward pass saves at least; the room between tiles is not counted.
  INLINE Index saved_size() const { return batch * steps * 6 * padded(); }

  // Elements of packed weights; the bias has two rows, because packing needs the second.
  INLINE Index packed_ih_size() const { return round_up(features, kMostLanes) * columns(); }
  INLINE Index packed_hh_size() const { return round_up(hidden, kMostLanes) * columns(); }
  INLINE Index packed_size() const { return packed_ih_size() + packed_hh_size() + 2 * columns(); }

  // Elements of a thread's working memory: the arrays that `forward` or `backward` keep in it.
  INLINE Index scratch_size() const {
    const Index rows = tile_rows(), units = tile_units();
    const Index in_window = 5 * units + rows * (features + 5 * kMostLanes);
    const Index in_step = 3 * units + rows * features + 2 * kMostLanes;
    return round_up(window() * in_window + in_step, kMostLanes) + kMostLanes;
  }
};

template <typename T>
struct Routines {
  void (*pack_forward)(const Layer<T>&);
  void (*pack_backward)(const Layer<T>&);
  void (*forward)(const Layer<T>&, Index tile, T* scratch);
  void (*backward)(const Layer<T>&, Index tile, T* scratch);
  void (*add_up)(const Layer<T>&, Index row);
};

// The kernel for one instruction set.
struct Level {
  const char* name;
  std::tuple<Routines<float>, Routines<double>> routines;  // Of double only in the baseline.
};

}  // namespace lstm

#ifdef LSTM_LEVEL
namespace lstm::LSTM_LEVEL {
namespace {

template <typename T>
constexpr int kLanes = LSTM_BYTES / sizeof(T) < 4 ? 4 : LSTM_BYTES / sizeof(T);

// Columns of a product fill vectors; the last one is padded. A block's sums fit in registers.
template <typename T>
struct Columns {
  Index vectors, blocks;

  INLINE explicit Columns(Index columns)
      : vectors(divide_up(columns, kLanes<T>)), blocks(divide_up(vectors, LSTM_COLUMNS)) {}
  INLINE Index begin(Index block) const { return vectors * block / blocks; }
};

// Weights (rows, 4H) in the order in which the forward products read them: for each block, the
// rows of its vectors. A vector of W lanes holds the four gates of W / 4 units.
template <typename T>
void pack_gates(const Layer<T>& layer, const T* weights, Index rows, T* packed) {
  constexpr Index U = kLanes<T> / 4;
  const Index hidden = layer.hidden;
  const Columns<T> columns(layer.columns());
  for (Index block = 0; block < columns.blocks; block++) {
    for (Index k = 0; k < rows; k++) {
      for (Index v = columns.begin(block); v < columns.begin(block + 1); v++) {
        for (Index gate = 0; gate < 4; gate++, packed += U) {
          const T* row = weights + (k * 4 + gate) * hidden;
          if ((v + 1) * U <= hidden) {
            std::memcpy(packed, row + v * U, U * sizeof(T));
          } else {
            for (Index l = 0; l < U; l++) packed[l] = v * U + l < hidden ? row[v * U + l] : T(0);
          }
        }
      }
    }
  }
}

template <typename T>
void pack_forward(const Layer<T>& layer) {
  const Index width = layer.columns();
  pack_gates(layer, layer.weight_ih, layer.features, layer.packed_ih);
  pack_gates(layer, layer.weight_hh, layer.hidden, layer.packed_hh);
  pack_gates(layer, layer.bias_ih, 1, layer.packed_bias);
  pack_gates(layer, layer.bias_hh, 1, layer.packed_bias + width);
  for (Index i = 0; i < width; i++) layer.packed_bias[i] += layer.packed_bias[width + i];
}

// The last columns of a backward product, if they fill a quarter of a vector: the columns after the
// last full vector, padded to a multiple of four as H is.
template <typename T>
INLINE Index last_columns(Index columns) {
  return round_up(columns, 4) % kLanes<T> == kLanes<T> / 4 ? columns % kLanes<T> : 0;
}

// Weights (rows, 4H) transposed, in the order in which the backward products read them: for each
// block of rows, the interleaved gates. Of the last columns, a vector has the four gates of a unit.
template <typename T>
void pack_transposed(const Layer<T>& layer, const T* weights, Index rows, T* packed) {
  constexpr Index U = kLanes<T> / 4;
  const Index hidden = layer.hidden, last = last_columns<T>(rows);
  const Columns<T> columns(rows - last);
  for (Index block = 0; block < columns.blocks; block++) {
    const Index from = columns.begin(block) * kLanes<T>;
    const Index size = columns.begin(block + 1) * kLanes<T> - from;
    // Four rows at a time: rows that are a power of two apart evict each other from the cache.
    for (Index part = 0; part < size; part += 4) {
      const Index first = from + part, left = rows - first;
      T* to = packed + part;
      for (Index vector = 0; vector < layer.padded(); vector += U) {
        for (Index gate = 0; gate < 4; gate++) {
          for (Index unit = vector; unit < vector + U; unit++, to += size) {
            const T* source = weights + (first * 4 + gate) * hidden + unit;
            const Index found = unit < hidden ? left : 0;
            for (Index k = 0; k < 4; k++) to[k] = k < found ? source[k * 4 * hidden] : T(0);
          }
        }
      }
    }
    packed += size * layer.columns();
  }
  for (Index unit = 0; last && unit < layer.padded(); unit++) {
    for (Index gate = 0; gate < 4; gate++, packed += U) {
      const T* source = weights + ((rows - last) * 4 + gate) * hidden + unit;
      for (Index k = 0; k < U; k++) {
        packed[k] = k < last && unit < hidden ? source[k * 4 * hidden] : T(0);
      }
    }
  }
}

template <typename T>
void pack_backward(const Layer<T>& layer) {
  if (layer.d_inputs) pack_transposed(layer, layer.weight_ih, layer.features, layer.packed_ih);
  pack_transposed(layer, layer.weight_hh, layer.hidden, layer.packed_hh);
}

// The first `size` elements of rows that are `from_stride` apart.
template <typename T>
void copy_rows(Index rows, Index size, const T* from, Index from_stride, T* to, Index to_stride) {
  for (Index m = 0; m < rows && size > 0; m++) {  // An empty array is null, unfit for memcpy.
    std::memcpy(to + m * to_stride, from + m * from_stride, size * sizeof(T));
  }
}

// Rows of H units, padded; zeros fill the last vector.
template <typename T>
void widen(const Layer<T>& layer, const T* from, Index rows, T* to) {
  std::memset(to, 0, round_up(rows * layer.padded(), kLanes<T>) * sizeof(T));
  copy_rows(rows, layer.hidden, from, layer.hidden, to, layer.padded());
}

}  // namespace
}  // namespace lstm::LSTM_LEVEL
#endif
