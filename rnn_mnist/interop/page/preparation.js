// Preparation: a picture becomes 28x28 pixels, by the rules of pictures.prepare. ---------------

const round = (value) => Math.floor(value + 0.5 + 1e-6); // Keep halves despite rounding.

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

/** Turn levels (0 to 255, row by row) into the 784 of an image, or null if it is empty. */
function prepare(grey, width, height) {
  const border = [];
  for (let x = 0; x < width; x++) border.push(grey[x], grey[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) border.push(grey[y * width], grey[(y + 1) * width - 1]);
  border.sort((a, b) => a - b);
  const ground = (border[border.length / 2 - 1] + border[border.length / 2]) / 2;
  const lighter = grey.reduce((a, b) => Math.max(a, b)) - ground;
  const darker = ground - grey.reduce((a, b) => Math.min(a, b));
  const contrast = Math.max(lighter, darker), sign = lighter > darker ? 1 : -1;
  if (contrast < 16) return null;
  const ink = (x, y) => Math.max(sign * (grey[y * width + x] - ground), 0) * (255 / contrast);
  let top = height, bottom = 0, left = width, right = 0; // Around all ink that is not faint.
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink(x, y) < 25.5) continue;
      [top, bottom] = [Math.min(top, y), y + 1];
      [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
    }
  }
  const [tall, wide] = [bottom - top, right - left].map((length, _, both) =>
    Math.max(1, round(BOX * length / Math.max(...both))));
  const columns = shrink(right - left, wide);
  const small = shrink(bottom - top, tall).map((row) => columns.map((column) =>
    sum(row.shares.map((down, y) => sum(column.shares.map((across, x) =>
      down * across * ink(left + column.first + x, top + row.first + y)))))));
  const mass = sum(small.flat()), strength = 255 / Math.max(...small.flat());
  // Move the centre of mass to the middle, as far as the frame allows.
  const place = (centre, size) => Math.min(Math.max(round(SIDE / 2 - centre), 0), SIDE - size);
  const down = place(sum(small.map((row, y) => y * sum(row))) / mass, tall);
  const across = place(sum(small.map((row) => sum(row.map((v, x) => x * v)))) / mass, wide);
  const image = new Uint8Array(SIDE * SIDE);
  small.forEach((row, y) => image.set(
    row.map((value) => Math.floor(value * strength + 0.5)), (down + y) * SIDE + across));
  return image;
}

/** Read a picture: { image, doubts }, or null if nothing is drawn. */
function read({ grey, width, height }) {
  const image = prepare(grey, width, height);
  return image && { image, doubts: [] };
}
