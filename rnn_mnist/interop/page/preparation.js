// Preparation: ink becomes 28x28 pixels, by the rules of pictures/preparation.py. ----------------

const LARGE = 512; // Larger pictures are reduced to about this side.
const FAINT = 0.1; // Pixels below this share of the strongest ink are outside of the digit's box.
const THIN = 1.2, WIDE = 1.8; // Strokes thinner than THIN are widened to WIDE, in pixels of 28x28.
const COARSE = 256; // Thin strokes are widened in drawings of about this side.

/** Crop, scale and centre ink as MNIST's digits were: 784 levels. */
function toImage(whole) {
  const faint = FAINT * largest(whole.values);
  let ink = cutOut(whole, boxWhere(whole, (value) => value >= faint));
  if (strokeWidth(ink) * BOX / longest(ink) < THIN) ink = coarse(ink);
  const before = longest(ink); // Widened strokes may reach out of the box.
  ink = widened(ink, BOX / before);
  const [wide, tall] = [ink.width, ink.height].map((size) =>
    Math.max(1, rounded(BOX * size / before)));
  const small = averaged(ink, wide, tall);
  const strength = 255 / largest(small.values);
  return centred(mapGrid(small, (value) => value * strength));
}

/** The mean width of a drawing's strokes, in its pixels. */
function strokeWidth(ink) {
  // A stroke has two edges. Across it, the ink rises to its full strength and falls again.
  const { width, height, values } = padded(ink, 1);
  const slope = (k, at, size, step) => at === 0 ? values[k + step] - values[k]
    : at === size - 1 ? values[k] - values[k - step] : (values[k + step] - values[k - step]) / 2;
  let slopes = 0;
  for (let y = 0, k = 0; y < height; y++) {
    for (let x = 0; x < width; x++, k++) {
      const down = slope(k, y, height, width), across = slope(k, x, width, 1);
      if (down || across) slopes += Math.sqrt(down * down + across * across);
    }
  }
  return 2 * sum(ink.values) / slopes;
}

/** A large drawing in fewer pixels; each gets the strongest ink of those that it replaces. */
function coarse({ width, height, values }) {
  const step = Math.max(1, Math.floor(Math.max(width, height) / COARSE));
  const small = makeGrid(Math.ceil(width / step), Math.ceil(height / step));
  for (let y = 0, k = 0; y < height; y++) {
    const row = Math.floor(y / step) * small.width;
    for (let x = 0; x < width; x++, k++) {
      const at = row + Math.floor(x / step);
      small.values[at] = Math.max(small.values[at], values[k]);
    }
  }
  return small;
}

/** Widen strokes that would be too thin after scaling. */
function widened(ink, scale) {
  const thickness = strokeWidth(ink) * scale;
  if (thickness >= THIN) return ink;
  const radius = Math.max(1, roundEven((WIDE - thickness) / scale / 2));
  const { width, height, values } = padded(ink, radius), wide = makeGrid(width, height);
  for (let down = -radius; down <= radius; down++) { // A disc is a pile of rows.
    const reach = Math.floor(Math.sqrt((radius + 0.5) ** 2 - down ** 2));
    const rows = maximumOfRow(makeGrid(width, height, values), 2 * reach + 1).values;
    for (let k = Math.max(0, -down * width); k < rows.length + Math.min(0, -down * width); k++) {
      wide.values[k] = Math.max(wide.values[k], rows[k + down * width]);
    }
  }
  return wide;
}

/** Reduce a grid to means over equal parts. */
function averaged(ink, width, height) {
  const columns = shrink(ink.width, width);
  const narrow = makeGrid(width, ink.height);
  for (let y = 0, k = 0; y < ink.height; y++) {
    for (const { first, shares } of columns) {
      let total = 0;
      shares.forEach((share, x) => { total += share * ink.values[y * ink.width + first + x]; });
      narrow.values[k++] = total;
    }
  }
  if (height === ink.height) return narrow;
  return transposed(averaged(transposed(narrow), height, width));
}

/** Where each of `wanted` means over `size` values begins, and the weights of its values. */
function shrink(size, wanted) {
  return Array.from({ length: wanted }, (_, k) => {
    const from = k * (size / wanted), to = Math.min((k + 1) * (size / wanted), size);
    const first = Math.floor(from), shares = [];
    for (let at = first; at < to; at++) {
      shares.push((Math.min(to, at + 1) - Math.max(from, at)) * (wanted / size));
    }
    return { first, shares };
  });
}

/** Put a digit into 28x28 pixels, with its centre of mass as near to the middle as it fits. */
function centred(small) {
  const { width, height, values } = small, { down, across } = centreOf(small);
  const place = (centre, size) => Math.min(Math.max(rounded(SIDE / 2 - centre), 0), SIDE - size);
  const top = place(down, height), left = place(across, width);
  const image = new Uint8Array(SIDE * SIDE);
  values.forEach((value, k) => {
    image[(top + Math.floor(k / width)) * SIDE + left + k % width] = floorHalfUp(value);
  });
  return image;
}
