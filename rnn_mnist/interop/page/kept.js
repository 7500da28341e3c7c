// Pictures that are prepared already. As pictures/kept.py has it. -------------------------------

const ENLARGED = 8; // Pixels of the file in a row, and in a column, for each pixel of the image.
const MARK = "rnn_mnist\u000028x28"; // In files that `predict --sort-into` wrote.

/** The image of a picture that is prepared already, by its file's first bytes, or null. */
function keptImage(grey, start) {
  const side = ENLARGED * SIDE;
  if (start.includes(MARK) && grey.width === side && grey.height === side) {
    return Uint8Array.from({ length: SIDE * SIDE }, (_, k) =>
      grey.values[Math.floor(k / SIDE) * ENLARGED * side + k % SIDE * ENLARGED]);
  }
  return isPrepared(grey) ? Uint8Array.from(grey.values) : null;
}

/** Whether a picture is like MNIST's: 28x28, a digit of 20 pixels amid black. */
function isPrepared(grey) {
  if (grey.width !== SIDE || grey.height !== SIDE) return false;
  const edge = borderOf(grey), bright = edge.filter((level) => level > 32).length;
  const side = sideOf(boxWhere(grey, (level) => level > 64)), { down, across } = centreOf(grey);
  const off = Math.max(Math.abs(down - 13.5), Math.abs(across - 13.5));
  return bright <= 0.1 * edge.length && side >= 16 && side <= 22 && off <= 2;
}
