// Long straight lines of a mask: ruled paper, tables, frames. As pictures/lines.py has it. -------

const LINE_SIDE = 128; // Lines are looked for in masks of this side, or a little more.
const SLANTS = [-4, -3, -2, -1, 0, 1, 2, 3, 4]; // In pixels down for 50 pixels across.
const THICKEST = 0.05; // A thicker line is no line; a share of the picture's longer side.

/**
 * The longest straight line through each pixel, as a share of the picture: nearly level ones
 * across, and nearly upright ones down, with the picture's rows as columns.
 */
const findLines = (mask) =>
  ({ across: lineLengths(mask), down: lineLengths(transposed(mask)) });

/** Remove the lines that have at least this share, but keep the strokes that cross them. */
function withoutLines(mask, { across, down }, share) {
  const kept = withoutLevel(mask, across, share);
  return transposed(withoutLevel(transposed(kept), down, share));
}

/** Measure nearly level lines, in a smaller mask, along rows that are slanted. */
function lineLengths(mask) {
  const factor = Math.max(1, Math.floor(longest(mask) / LINE_SIDE));
  const small = thicker(reducedMask(mask, factor)), { width, height } = small;
  const lengths = makeGrid(width, height, new Int32Array(width * height));
  const slanted = makeGrid(width, height, new Uint8Array(width * height));
  for (const slant of SLANTS) {
    const shifts = Int32Array.from({ length: width }, (_, x) =>
      Math.floor((slant * (x - Math.floor(width / 2)) + 25) / 50));
    for (let y = 0, k = 0; y < height; y++) {
      for (let x = 0; x < width; x++, k++) {
        const row = y + shifts[x];
        slanted.values[k] = row >= 0 && row < height ? small.values[row * width + x] : 0;
      }
    }
    const runs = runLengths(slanted).values;
    for (let y = 0, k = 0; y < height; y++) {
      for (let x = 0; x < width; x++, k++) {
        if (!runs[k]) continue;
        const at = (y + shifts[x]) * width + x;
        if (runs[k] > lengths.values[at]) lengths.values[at] = runs[k];
      }
    }
  }
  const found = thicker(lengths).values, shares = makeGrid(mask.width, mask.height);
  for (let y = 0, k = 0; y < mask.height; y++) {
    const row = Math.floor(y / factor) * width;
    for (let x = 0; x < mask.width; x++) {
      shares.values[k++] = found[row + Math.floor(x / factor)] / width;
    }
  }
  return shares;
}

/** The largest of each value and those above and below it. */
function thicker({ width, height, values }) {
  const thick = values.slice();
  for (let k = 0; k < values.length; k++) {
    if (k >= width) thick[k] = Math.max(thick[k], values[k - width]);
    if (k + width < values.length) thick[k] = Math.max(thick[k], values[k + width]);
  }
  return makeGrid(width, height, thick);
}

/** A smaller mask, which is set where any of its pixels was. */
function reducedMask({ width, height, values }, factor) {
  const [wide, tall] = [width, height].map((size) => Math.ceil(size / factor));
  const small = new Uint8Array(wide * tall);
  for (let y = 0, k = 0; y < height; y++) {
    const row = Math.floor(y / factor) * wide;
    for (let x = 0; x < width; x++) small[row + Math.floor(x / factor)] |= values[k++];
  }
  return makeGrid(wide, tall, small);
}

/** Remove the pixels of nearly level lines, except where the ink is much taller than these. */
function withoutLevel(mask, { values: lengths }, share) {
  const drawn = mask.values.slice();
  for (let k = 0; k < drawn.length; k++) if (lengths[k] < share) drawn[k] = 0;
  if (!drawn.includes(1)) return mask;
  const tall = transposed(runLengths(transposed(mask))).values;
  const usual = median(tall.filter((_, k) => drawn[k]));
  if (usual > THICKEST * longest(mask) + 2) return mask;
  const kept = mask.values.slice();
  for (let k = 0; k < kept.length; k++) if (drawn[k] && tall[k] <= 1.6 * usual + 1) kept[k] = 0;
  return makeGrid(mask.width, mask.height, kept);
}

/** The length of the run of pixels along the row in which each pixel is; 0 outside of runs. */
function runLengths({ width, height, values }) {
  const lengths = new Int32Array(values.length);
  for (let row = 0; row < values.length; row += width) {
    for (let begin = row; begin < row + width; begin++) {
      if (!values[begin]) continue;
      let end = begin;
      while (end < row + width && values[end]) end++;
      lengths.fill(end - begin, begin, end);
      begin = end;
    }
  }
  return makeGrid(width, height, lengths);
}
