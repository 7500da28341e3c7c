// The drawing: strokes, or a picture in their place. -------------------------------------------

const paper = $("paper").getContext("2d"); // What the user sees: sharp, in the theme's colours.
// For the network: white on black.
const ink = $("ink").getContext("2d", { willReadFrequently: true });
let strokes = []; // Each a list of points [x, y], from 0 to SIZE.
let picture = null; // { image } with { label, number } of a sample, or { shown, doubts } of a file.
const SHOWN = 1024; // The longer side of a large picture on the paper.
const past = []; // What was on the paper before each change, for Undo.
let changes = 0; // All so far. A picture that is still being decoded must not replace a later one.

/** Replace what is on the paper, so that Undo brings it back. */
function replace(newStrokes, newPicture) {
  past.push([strokes, picture]);
  if (past.length > 100) past.shift();
  [strokes, picture] = [newStrokes, newPicture];
  changes++;
}

/** Draw the line to point k of a stroke. */
function drawTo(stroke, k) {
  const [x, y] = stroke[k];
  const from = stroke[k - 1] ?? [x - 0.01, y]; // Some browsers do not draw a line of length 0.
  for (const context of [paper, ink]) {
    [context.lineWidth, context.lineCap] = [PEN, "round"];
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(x, y);
    context.stroke();
  }
}

function addPoint(event) {
  const { left, top, width, height } = $("paper").getBoundingClientRect(), stroke = strokes.at(-1);
  // Keep the whole pen on the paper: half a pen would draw too thin a stroke.
  const within = (share) => Math.min(Math.max(share * SIZE, PEN / 2 + 1), SIZE - PEN / 2 - 1);
  stroke.push([within((event.clientX - left) / width), within((event.clientY - top) / height)]);
  drawTo(stroke, stroke.length - 1);
  unread = true;
  wake();
}

/** Draw everything again, in the current size and colours. */
function redraw() {
  const canvas = $("paper"), scale = canvas.clientWidth * devicePixelRatio / SIZE;
  canvas.width = canvas.height = Math.round(SIZE * scale);
  paper.scale(scale, scale);
  paper.strokeStyle = getComputedStyle(canvas).color;
  ink.strokeStyle = "white";
  ink.fillRect(0, 0, SIZE, SIZE);
  for (const stroke of strokes) stroke.forEach((_, k) => drawTo(stroke, k));
  if (!picture) return;
  const cells = makeCanvas(SIDE, SIDE);
  paintCells(cells, picture.image, steps);
  const shown = picture.shown ?? cells, fit = SIZE / Math.max(shown.width, shown.height);
  const [width, height] = [shown.width * fit, shown.height * fit];
  paper.imageSmoothingEnabled = shown !== cells;
  paper.drawImage(shown, (SIZE - width) / 2, (SIZE - height) / 2, width, height);
}

function makeCanvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** The means of a picture's blocks of factor x factor pixels: grey levels, and alpha. */
function reduce(source, factor) {
  const { width, height } = source, wide = Math.ceil(width / factor);
  const luma = new Float64Array(wide * Math.ceil(height / factor)), alpha = luma.slice();
  // In strips of about a million pixels, to need little memory.
  const rows = Math.min(height, factor * Math.ceil(2 ** 20 / (width * factor)));
  const context = makeCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += rows) {
    context.clearRect(0, 0, width, rows);
    context.drawImage(source, 0, -top);
    const rgba = context.getImageData(0, 0, width, rows).data;
    for (let y = 0, at = 0; y < Math.min(rows, height - top); y++) {
      const row = Math.floor((top + y) / factor) * wide;
      for (let x = 0; x < width; x++, at += 4) {
        const k = row + Math.floor(x / factor);
        // The same formula as Pillow's.
        luma[k] += (rgba[at] * 19595 + rgba[at + 1] * 38470 + rgba[at + 2] * 7471 + 0x8000) >> 16;
        alpha[k] += rgba[at + 3];
      }
    }
  }
  for (let k = 0; k < luma.length; k++) { // The last blocks can be smaller.
    const across = Math.min(factor, width - k % wide * factor);
    const area = across * Math.min(factor, height - Math.floor(k / wide) * factor);
    luma[k] = Math.floor(luma[k] / area + 0.5);
    alpha[k] = Math.floor(alpha[k] / area + 0.5);
  }
  return { luma, alpha, wide };
}

/** Read the grey levels of a picture or canvas, reduced if it is large, and by `scale` at least. */
function levels(source, scale = 1) {
  const side = Math.ceil(longest(source) / scale);
  const factor = scale * Math.max(1, Math.floor((side + LARGE / 2) / LARGE));
  const { luma, alpha, wide } = reduce(source, factor);
  // Put transparent pixels on white if the ink is dark, and on black if it is light.
  const light = luma.reduce((total, level, k) => total + level * alpha[k], 0);
  const ground = light < 127.5 * sum(alpha) ? 255 : 0;
  return makeGrid(wide, luma.length / wide, luma.map((level, k) =>
    floorHalfUp((level * alpha[k] + ground * (255 - alpha[k])) / 255)));
}

/** Open the first of the files that were chosen, dropped or pasted. */
async function openFirst([file, ...others]) {
  await openPicture(file);
  if (others.length && !$("note").textContent) note("Only the first of these files is read.");
}

/** Show the picture of a file in place of the drawing, or say why not. */
async function openPicture(file) {
  const begun = ++changes, late = () => changes !== begun || pen !== null;
  note("Reading the picture \u2026");
  const options = { colorSpaceConversion: "none" }; // Pillow ignores colour profiles, too.
  const bitmap = file && await createImageBitmap(file, options).catch(() => null);
  const found = bitmap && !late() ? await readFile(file, bitmap) : null;
  if (late()) return; // The user did something else meanwhile.
  if (found) show({ ...found, shown: thumbnail(bitmap) });
  else note(`This ${bitmap ? "picture is empty" : "is not a picture"}. Nothing changed.`);
}

/** Read the picture of a file: { image, doubts }, or null if nothing is drawn. */
async function readFile(file, bitmap) {
  const start = String.fromCharCode(...new Uint8Array(await file.slice(0, 200).arrayBuffer()));
  // Pillow's decoder reduces large JPEG files by itself.
  const isJpeg = start.startsWith("\u00ff\u00d8"), shorter = Math.min(bitmap.width, bitmap.height);
  const grey = levels(bitmap, [8, 4, 2].find((scale) => isJpeg && shorter >= scale * LARGE));
  const kept = keptImage(grey, start), found = kept ? null : await readCalmly(grey);
  if (kept) return { image: kept, doubts: [] };
  return found && { image: found.image, doubts: doubtsAbout(found) };
}

/** A smaller copy of a picture, to show on the paper. */
function thumbnail(bitmap) {
  const scale = Math.min(1, SHOWN / longest(bitmap));
  const canvas = makeCanvas(Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}
