// The drawing: strokes, or a picture in their place. -------------------------------------------

const paper = $("paper").getContext("2d"); // What the user sees: sharp, in the theme's colours.
const ink = $("ink").getContext("2d", { willReadFrequently: true }); // For the network, white on black.
let strokes = []; // Each a list of points [x, y], from 0 to SIZE.
let picture = null; // { image } with { label, number } of a sample, or { bitmap } of a file.

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
  const cells = document.createElement("canvas");
  cells.width = cells.height = SIDE;
  paintCells(cells, picture.image, steps);
  const shown = picture.bitmap ?? cells, fit = SIZE / Math.max(shown.width, shown.height);
  const [width, height] = [shown.width * fit, shown.height * fit];
  paper.imageSmoothingEnabled = shown !== cells;
  paper.drawImage(shown, (SIZE - width) / 2, (SIZE - height) / 2, width, height);
}

/** Read the grey levels of a canvas. */
function levels(context) {
  const { width, height } = context.canvas;
  const rgba = context.getImageData(0, 0, width, height).data;
  const luma = new Float64Array(width * height);
  let light = 0, opaque = 0;
  for (let k = 0, at = 0; k < luma.length; k++, at += 4) {
    // The same formula as Pillow's.
    luma[k] = (rgba[at] * 19595 + rgba[at + 1] * 38470 + rgba[at + 2] * 7471 + 0x8000) >> 16;
    light += luma[k] * rgba[at + 3];
    opaque += rgba[at + 3];
  }
  // Put transparent pixels on white if the ink is dark, and on black if it is light.
  const ground = light < 127.5 * opaque ? 255 : 0;
  for (let k = 0, at = 3; k < luma.length; k++, at += 4) {
    const share = rgba[at] / 255;
    luma[k] = Math.floor(luma[k] * share + ground * (1 - share) + 0.5);
  }
  return luma;
}

/** Show an image file in place of the drawing. */
async function open(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  const context = document.createElement("canvas").getContext("2d"), { canvas } = context;
  const scale = bitmap && Math.min(1, 1024 / Math.max(bitmap.width, bitmap.height));
  canvas.width = bitmap ? Math.ceil(bitmap.width * scale) : 1;
  canvas.height = bitmap ? Math.ceil(bitmap.height * scale) : 1;
  if (bitmap) context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const image = prepare(levels(context), canvas.width, canvas.height);
  show(image && { image, bitmap });
  if (image) return;
  $("hint").textContent = $("said").textContent =
    bitmap ? "This picture is empty" : "This file is not a picture";
}
