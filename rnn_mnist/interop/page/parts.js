// Parts: a mask's connected parts, grouped into things. As pictures/parts.py has it. -------------

const MOST_PARTS = 300, LINE_SIDE = 128;
const SLOPES = [-4, -3, -2, -1, 0, 1, 2, 3, 4].map((k) => k * 0.02);
const heightOf = ({ top, bottom }) => bottom - top, widthOf = ({ left, right }) => right - left;
const sizeOf = (box) => Math.max(heightOf(box), widthOf(box));
const areaOfBox = (box) => heightOf(box) * widthOf(box);

/** The connected parts of a mask, the largest first: { labels, parts }. */
function connected(mask) {
  const labels = labelled(mask), { width, height } = mask;
  const parts = Array.from({ length: labels.count }, (_, k) => (
    { label: k + 1, area: 0, top: height, left: width, bottom: 0, right: 0 }));
  for (let y = 0, k = 0; y < height; y++) {
    for (let x = 0; x < width; x++, k++) {
      const part = parts[labels.values[k] - 1];
      if (!part) continue;
      part.area++;
      if (y < part.top) part.top = y;
      part.bottom = y + 1;
      if (x < part.left) part.left = x;
      if (x >= part.right) part.right = x + 1;
    }
  }
  return { labels, parts: parts.sort((a, b) => b.area - a.area).slice(0, MOST_PARTS) };
}

/** The parts that do not touch the edge, and are no frame and no line. */
function insideOf({ labels, parts }) {
  const kept = parts.filter(({ top, left, bottom, right }) =>
    top > 0 && left > 0 && bottom < labels.height && right < labels.width);
  return kept.filter((part) => !isLine(part) && !isFrame(part, labels, kept));
}

const isLine = (part) =>
  widthOf(part) > 8 * heightOf(part) || heightOf(part) > 25 * widthOf(part);

/** Whether most of a part lies along its own box, around another part. */
function isFrame(part, labels, others) {
  const shorter = Math.min(heightOf(part), widthOf(part));
  const around = others.some((other) => other.top > part.top && other.left > part.left
    && other.bottom < part.bottom && other.right < part.right && sizeOf(other) > 0.1 * shorter);
  if (!around) return false;
  const rim = Math.max(1, roundEven(0.12 * shorter));
  let inner = 0;
  for (let y = part.top + rim; y < part.bottom - rim; y++) {
    for (let x = part.left + rim; x < part.right - rim; x++) {
      if (labels.values[y * labels.width + x] === part.label) inner++;
    }
  }
  return inner < 0.15 * part.area;
}

/** Group parts that belong to one digit; the group with the largest box first. */
function thingsOf(parts) {
  if (!parts.length) return [];
  const most = Math.max(...parts.map(sizeOf)), groups = [];
  let left = parts.filter((part) =>
    sizeOf(part) >= 0.12 * most || part.area > 0.05 * parts[0].area);
  while (left.length) {
    const group = [left[0]];
    let near = group;
    while (near.length) {
      left = left.filter((part) => !near.includes(part));
      near = left.filter((part) => belongs(part, around(group)));
      group.push(...near);
    }
    groups.push(group);
  }
  return groups.sort((a, b) => areaOfBox(around(b)) - areaOfBox(around(a)));
}

/** The box around parts. */
const around = (group) => ({
  top: Math.min(...group.map((part) => part.top)),
  left: Math.min(...group.map((part) => part.left)),
  bottom: Math.max(...group.map((part) => part.bottom)),
  right: Math.max(...group.map((part) => part.right)),
});

/** Whether a part is so near to a group's box that it is a piece of the group. */
function belongs(part, box) {
  const size = sizeOf(box);
  const down = Math.max(part.top - box.bottom, box.top - part.bottom);
  const across = Math.max(part.left - box.right, box.left - part.right);
  const narrower = Math.min(widthOf(part), widthOf(box));
  const lower = Math.min(heightOf(part), heightOf(box));
  if (across < 0 && down < 0) return true;
  const reach = sizeOf(part) < 0.6 * size ? 0.25 : 0.1;
  if (across < -0.4 * narrower && down < reach * size) return true;
  if (down < -0.4 * lower && across < 0.08 * size) return true;
  return Math.max(down, across) < 0.06 * size;
}

/** How long the straight lines through each pixel are, as shares of the picture's sides. */
const findLines = (mask) =>
  ({ across: lineLengths(mask), down: transposed(lineLengths(transposed(mask))) });

/** The share of the width that the longest nearly level line through each pixel has. */
function lineLengths(mask) {
  const factor = Math.max(1, Math.floor(longest(mask) / LINE_SIDE));
  const { width, height, values: small } = blocksWithAny(mask, factor);
  const thick = small.map((value, k) => value | small[k - width] | small[k + width]);
  const found = new Int32Array(small.length), sheared = makeGrid(width, height, small.slice());
  for (const slope of SLOPES) {
    const shifts = Int32Array.from({ length: width }, (_, x) =>
      floorHalfUp(slope * (x - Math.floor(width / 2))));
    for (let y = 0, k = 0; y < height; y++) {
      for (let x = 0; x < width; x++, k++) {
        const row = y + shifts[x];
        sheared.values[k] = row >= 0 && row < height ? thick[row * width + x] : 0;
      }
    }
    const runs = runLengths(sheared).values;
    for (let y = 0, k = 0; y < height; y++) {
      for (let x = 0; x < width; x++, k++) {
        const at = (y + shifts[x]) * width + x;
        if (runs[k] > found[at]) found[at] = runs[k]; // Outside, `runs` is 0.
      }
    }
  }
  const large = makeGrid(mask.width, mask.height);
  for (let y = 0, k = 0; y < mask.height; y++) {
    for (let x = 0; x < mask.width; x++, k++) {
      const at = Math.floor(y / factor) * width + Math.floor(x / factor);
      const length = Math.max(found[at], found[at - width] ?? 0, found[at + width] ?? 0);
      large.values[k] = length / width;
    }
  }
  return large;
}

/** Remove lines of at least this share, but keep the strokes that cross them. */
function withoutLines(mask, { across, down }, share) {
  const long = (lengths) => makeMask(lengths, (length) => length >= share);
  const kept = withoutLevel(mask, long(across));
  return transposed(withoutLevel(transposed(kept), transposed(long(down))));
}

/** Remove the pixels of nearly level lines, except where the ink is much taller than these. */
function withoutLevel(mask, lines) {
  const on = makeMask(mask, (value, k) => value && lines.values[k]);
  if (!on.values.includes(1)) return mask;
  const tall = transposed(runLengths(transposed(mask))).values;
  const usual = median(tall.filter((_, k) => on.values[k]));
  if (usual > 0.05 * longest(mask) + 2) return mask;
  return makeMask(mask, (value, k) => value && !(on.values[k] && tall[k] <= 1.6 * usual + 1));
}

/** A mask in blocks of factor x factor pixels, each set if any of its pixels is. */
function blocksWithAny({ width, height, values }, factor) {
  const [wide, tall] = [width, height].map((size) => Math.ceil(size / factor));
  const small = makeGrid(wide, tall, new Uint8Array(wide * tall));
  for (let y = 0, k = 0; y < height; y++) {
    const row = Math.floor(y / factor) * small.width;
    for (let x = 0; x < width; x++, k++) small.values[row + Math.floor(x / factor)] |= values[k];
  }
  return small;
}

/** For each pixel of a mask, how long its run of pixels along the row is; 0 outside. */
function runLengths({ width, height, values }) {
  const lengths = new Int32Array(values.length);
  for (let row = 0; row < width * height; row += width) {
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
