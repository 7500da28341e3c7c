// Grids: values row by row, and what pictures/ computes with NumPy and SciPy. -------------------

const makeGrid = (width, height, values = new Float64Array(width * height)) =>
  ({ width, height, values });
const mapGrid = (grid, change) => makeGrid(grid.width, grid.height, grid.values.map(change));

/** Where a condition holds: 1, elsewhere 0. */
function makeMask({ width, height, values }, holds) {
  const mask = new Uint8Array(values.length);
  for (let k = 0; k < mask.length; k++) if (holds(values[k])) mask[k] = 1;
  return makeGrid(width, height, mask);
}

const largest = (values) => values.reduce((a, b) => Math.max(a, b));
const smallest = (values) => values.reduce((a, b) => Math.min(a, b));

const floorHalfUp = (value) => Math.floor(value + 0.5);
const rounded = (value) => Math.floor(value + 0.5 + 1e-6); // Halves, despite errors of a sum.
const longest = ({ width, height }) => Math.max(width, height);
const equal = (one, other) => one.values.every((value, k) => value === other.values[k]);

/** Round as Python does: halves go to the even number. */
function roundEven(value) {
  const down = Math.floor(value);
  if (value - down !== 0.5) return floorHalfUp(value);
  return down % 2 ? down + 1 : down;
}

/** The grid with its rows as columns. */
function transposed({ width, height, values }) {
  const turned = new values.constructor(values.length), tile = 16; // Tiles fit into caches.
  for (let top = 0; top < height; top += tile) {
    const bottom = Math.min(top + tile, height);
    for (let x = 0; x < width; x++) {
      for (let y = top; y < bottom; y++) turned[x * height + y] = values[y * width + x];
    }
  }
  return makeGrid(height, width, turned);
}

/** The part of a grid from `top` to before `bottom`, and from `left` to before `right`. */
function cutOut({ width, values }, { top, left, bottom, right }) {
  const size = (right - left) * (bottom - top);
  const part = makeGrid(right - left, bottom - top, new values.constructor(size));
  for (let y = top; y < bottom; y++) {
    part.values.set(values.subarray(y * width + left, y * width + right), (y - top) * part.width);
  }
  return part;
}

/** The values at the edge; those in the corners are there twice. */
function borderOf({ width, height, values }) {
  const border = [];
  for (let x = 0; x < width; x++) border.push(values[x], values[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) border.push(values[y * width], values[(y + 1) * width - 1]);
  return border;
}

/** The centre of mass: { down, across }. */
function centreOf({ width, values }) {
  let mass = 0, down = 0, across = 0;
  values.forEach((value, k) => {
    mass += value;
    down += value * Math.floor(k / width);
    across += value * (k % width);
  });
  return { down: down / mass, across: across / mass };
}

/** Add a margin of zeros. */
function padded({ width, height, values }, margin) {
  const wide = width + 2 * margin, around = makeGrid(
    wide, height + 2 * margin, new values.constructor(wide * (height + 2 * margin)));
  for (let y = 0; y < height; y++) {
    around.values.set(values.subarray(y * width, (y + 1) * width), (y + margin) * wide + margin);
  }
  return around;
}

/** The box around all places where a condition holds. */
function boxWhere({ width, height, values }, holds) {
  let top = height, bottom = 0, left = width, right = 0;
  for (let y = 0, k = 0; y < height; y++) {
    for (let x = 0; x < width; x++, k++) {
      if (!holds(values[k])) continue;
      [top, bottom] = [Math.min(top, y), y + 1];
      [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
    }
  }
  return { top, left, bottom, right };
}

/** The largest value of `size` neighbours in each row, as ndimage.maximum_filter1d counts them. */
function maximumOfRow({ width, height, values }, size, sign = 1) {
  const before = size >> 1, after = size - before - 1, out = values.slice();
  const queue = new Int32Array(width); // Places whose values fall; the first is the largest.
  for (let row = 0; row < values.length; row += width) {
    let first = 0, end = 0;
    for (let x = 0; x < width + after; x++) {
      if (x < width) {
        const value = sign * values[row + x];
        while (end > first && sign * values[row + queue[end - 1]] <= value) end--;
        queue[end++] = x;
      }
      if (x < after) continue;
      while (queue[first] < x - after - before) first++;
      out[row + x - after] = values[row + queue[first]];
    }
  }
  return makeGrid(width, height, out);
}

/** The largest value in a square of `size` pixels around each pixel; the smallest for sign -1. */
const maximumFilter = (grid, size, sign = 1) =>
  transposed(maximumOfRow(transposed(maximumOfRow(grid, size, sign)), size, sign));

/** The smallest value in a square of `size` pixels around each pixel. */
const minimumFilter = (grid, size) => maximumFilter(grid, size, -1);

/** The sum over a square of 2 * radius + 1 pixels; what is outside equals the edge. */
function boxSum(grid, radius) {
  const row = ({ width, height, values }) => {
    const out = makeGrid(width, height);
    const at = (y, x) => values[y * width + Math.min(Math.max(x, 0), width - 1)];
    for (let y = 0, k = 0; y < height; y++) {
      let total = 0;
      for (let x = -radius; x < radius; x++) total += at(y, x);
      for (let x = 0; x < width; x++) {
        total += at(y, x + radius);
        out.values[k++] = total;
        total -= at(y, x - radius);
      }
    }
    return out;
  };
  return transposed(row(transposed(row(grid))));
}

/** Number the connected parts of a mask from 1, in the order of their first pixels. */
function labelled({ width, height, values: mask }) {
  const labels = new Int32Array(mask.length), waiting = [];
  let count = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    labels[start] = ++count;
    waiting.push(start);
    while (waiting.length) {
      const k = waiting.pop(), x = k % width;
      for (let up = k - width; up <= k + width; up += width) {
        for (let near = x ? up - 1 : up; near <= (x < width - 1 ? up + 1 : up); near++) {
          if (!mask[near] || labels[near]) continue; // Outside, `mask` is undefined.
          labels[near] = count;
          waiting.push(near);
        }
      }
    }
  }
  return { width, height, values: labels, count };
}

/** The median of levels. */
function median(values) {
  const sorted = Float64Array.from(values).sort(), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
