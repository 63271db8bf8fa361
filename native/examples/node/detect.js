// node detect.js MODEL PICTURE.ppm: uses libeffdet from Node. The environment variable
// EFFDET_LIBRARY holds the path of libeffdet.so; without it the system's libeffdet.so.1 is loaded.
const fs = require("node:fs");
const koffi = require("koffi");

const library = koffi.load(process.env.EFFDET_LIBRARY || "libeffdet.so.1");
const Handle = koffi.opaque("effdet_detector");
const Image = koffi.struct("effdet_image", {
  data: "const uint8_t *",
  width: "int32_t",
  height: "int32_t",
  stride: "intptr_t",
  format: "int32_t",
  memory: "int32_t",
});
const Row = koffi.struct("effdet_row", {
  x1: "float",
  y1: "float",
  x2: "float",
  y2: "float",
  score: "float",
  class_index: "int32_t",
});
const open = library.func(
  "int effdet_open(const char *path, const void *options, _Out_ effdet_detector **detector)");
const close = library.func("void effdet_close(effdet_detector *detector)");
const lastError = library.func("const char *effdet_last_error()");
const className = library.func(
  "const char *effdet_class_name(const effdet_detector *detector, int32_t class_index)");
const detect = library.func(
  "int effdet_detect(effdet_detector *detector, const effdet_image *images, size_t count, " +
    "const void *options, void *rows, size_t rows_per_image, _Out_ size_t *counts)");

function check(status) {
  if (status !== 0) throw new Error(lastError());
}

// Reads a binary PPM file: magic, width, height, levels, and one white space before the pixels.
function readPpm(path) {
  const bytes = fs.readFileSync(path);
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 64).toString("latin1"));
  if (!header) throw new Error(`${path} is not a PPM file with 8 bits`);
  return { data: bytes.subarray(header[0].length), width: +header[1], height: +header[2] };
}

function main([model, picture]) {
  const opened = [null];
  check(open(model, null, opened));
  const [detector] = opened;
  const image = { ...readPpm(picture), stride: 0, format: 0, memory: 0 };
  const size = koffi.sizeof(Row);
  const rows = Buffer.alloc(100 * size);
  const count = [0];
  check(detect(detector, image, 1, null, rows, 100, count));
  for (let at = 0; at < count[0]; ++at) {
    const row = koffi.decode(rows, at * size, Row);
    const box = [row.x1, row.y1, row.x2, row.y2].map((side) => side.toFixed(2));
    const name = className(detector, row.class_index);
    console.log(`${name} ${row.score.toFixed(4)} ${box.join(" ")}`);
  }
  close(detector);
}

main(process.argv.slice(2));
