// An exported detector in the browser: pixels in, boxes in the picture's pixels out.
//
//     const detector = await Detector.open(new Uint8Array(await file.arrayBuffer()));
//     const rows = await detector.detect(context.getImageData(0, 0, width, height), 0.3);

const RUNTIMES = {
  webgpu: "./node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
  wasm: "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
};
// Defaults of fields that files with version 1 of the spec leave out.
const INPUT = {
  kind: "uint8",
  channel_order: "rgb",
  fill: [124, 116, 104],
  resize: "letterbox",
  interpolation: "antialias",
};
const BITS = 22; // behind the point in Pillow's fixed-point numbers, so that 255 fits in 31 bits
const HALF = 1 << (BITS - 1);

export class Detector {
  // Opens an ONNX file, given as bytes, in the first of `engines` (WebGPU, then WebAssembly)
  // that can run it.
  static async open(bytes, engines = ["webgpu", "wasm"]) {
    const spec = readSpec(bytes);
    refuse(spec);
    const failures = [];
    for (const engine of engines) {
      try {
        if (engine === "webgpu" && !(await navigator.gpu?.requestAdapter())) {
          throw new Error("this browser offers no WebGPU adapter");
        }
        const ort = await import(RUNTIMES[engine]);
        const session = await ort.InferenceSession.create(bytes, { executionProviders: [engine] });
        const detector = new Detector(spec, engine, ort, session);
        // A runtime may fail only at its first run. This run also compiles and warms up.
        await detector.run(new Uint8Array(detector.height * detector.width * 3));
        return detector;
      } catch (error) {
        failures.push(`${engine}: ${error.message}`);
      }
    }
    throw new Error(failures.join("; "));
  }

  constructor(spec, engine, ort, session) {
    Object.assign(this, { spec, engine, ort, session, last: Promise.resolve() });
    this.names = spec.classes.map((each) => each.name);
    // A graph with source_size resizes frames itself; other pictures are letterboxed into a frame.
    const source = spec.input.source_size;
    this.resize = source ? "letterbox" : spec.input.resize;
    [this.height, this.width] = source ?? [spec.input.height, spec.input.width];
  }

  // Returns the detections in `image` (ImageData), best score first.
  async detect(image, threshold = 0) {
    const placed = this.place(image.height, image.width);
    const rows = await this.run(this.letterbox(image, placed), threshold);
    for (const row of rows) {
      row.box = row.box.map((side, at) => {
        const axis = at % 2;
        const inside = (side - placed.offset[axis]) / placed.scale[axis];
        return Math.min(Math.max(inside, 0), axis ? image.height : image.width);
      });
    }
    return rows.filter(({ box }) => box[2] > box[0] && box[3] > box[1]);
  }

  // Detects in pixels that are letterboxed already, uint8 [height,width,3] in the spec's channel
  // order. The boxes are in these pixels.
  async run(pixels, threshold = 0) {
    const input = new this.ort.Tensor("uint8", pixels, [1, this.height, this.width, 3]);
    // A session runs one picture at a time.
    const turn = this.last.then(() => this.session.run({ images: input }));
    this.last = turn.catch(() => {});
    const outputs = await turn;
    const [count, boxes, scores, classes] = [
      "num_detections", "detection_boxes", "detection_scores", "detection_classes",
    ].map((name) => outputs[name].data);
    const order = this.spec.output.box_format === "yxyx" ? [1, 0, 3, 2] : [0, 1, 2, 3];
    const rows = [];
    for (let row = 0; row < count[0]; ++row) {
      if (scores[row] < threshold) continue;
      const box = order.map((side) => boxes[4 * row + side]);
      rows.push({ label: Number(classes[row]), score: scores[row], box });
    }
    return rows;
  }

  // Returns the picture's place in the input: input = picture · scale + offset, both (x, y).
  place(rows, columns) {
    let scale = [this.width / columns, this.height / rows];
    if (this.resize === "stretch") {
      return { width: this.width, height: this.height, scale, offset: [0, 0] };
    }
    const least = Math.min(...scale);
    scale = [least, least];
    const [width, height] = [columns, rows].map((side) => Math.max(1, Math.floor(side * least)));
    const room = [this.width - width, this.height - height];
    const offset = this.resize === "center" ? room.map((each) => Math.floor(each / 2)) : [0, 0];
    return { width, height, scale, offset };
  }

  letterbox(image, { width, height, offset }) {
    const { fill, channel_order: order, interpolation } = this.spec.input;
    const channels = order === "bgr" ? [2, 1, 0] : [0, 1, 2];
    const { data } = resize(image, width, height, interpolation === "antialias");
    const canvas = new Uint8Array(this.height * this.width * 3);
    const filling = channels.map((channel) => fill[channel]);
    for (let at = 0; at < canvas.length; ++at) canvas[at] = filling[at % 3];
    for (let y = 0; y < height; ++y) {
      let to = 3 * ((y + offset[1]) * this.width + offset[0]);
      for (let x = 0; x < width; ++x) {
        for (const channel of channels) canvas[to++] = data[4 * (y * width + x) + channel];
      }
    }
    return canvas;
  }
}

// Reads the spec that the exporter wrote into the file's metadata.
export function readSpec(bytes) {
  const text = (part) => new TextDecoder().decode(part);
  try {
    for (const [number, value] of messageFields(bytes)) {
      if (number !== 14) continue; // ModelProto.metadata_props: pairs of key (1) and value (2)
      const entry = Object.fromEntries(messageFields(value));
      if (text(entry[1]) !== "effdet.spec") continue;
      const spec = JSON.parse(text(entry[2]));
      return { ...spec, input: { ...INPUT, ...spec.input } };
    }
  } catch (error) {
    throw new Error(`This is not a complete ONNX file (${error.message}).`);
  }
  throw new Error("This file has no 'effdet.spec': export it with effdet-export.");
}

// Yields the fields of a protobuf message that are messages or text.
function* messageFields(bytes) {
  let at = 0;
  const number = () => {
    let [value, scale, byte] = [0, 1, 0];
    do {
      if (at >= bytes.length) throw new Error("it ends too early");
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    const tag = number();
    const kind = tag % 8;
    if (kind === 0) {
      number();
    } else if (kind === 2) {
      const end = number() + at;
      if (end > bytes.length) throw new Error("it ends too early");
      yield [Math.floor(tag / 8), bytes.subarray(at, end)];
      at = end;
    } else if (kind === 1 || kind === 5) {
      at += kind === 1 ? 8 : 4;
    } else {
      throw new Error("it is not a protobuf message");
    }
  }
}

function refuse({ input, output, batch }) {
  const reasons = [
    [input.kind !== "uint8", "takes floats and not bytes: export it with --input uint8"],
    [input.fill.length !== 3, "takes gray or RGBA pictures; this page prepares only RGB"],
    [output.nms === "none", "has raw heads: export it with --nms static"],
    [output.nms === "plugin", "is for TensorRT: export it with --nms static"],
    [batch.minimum > 1, "takes only larger batches than one picture: export it with --batch 1"],
  ];
  const found = reasons.find(([applies]) => applies);
  if (found) throw new Error(`This file ${found[1]}.`);
}

// Scales RGBA pixels; the result equals Pillow's to the bit. The weights are a triangle about the
// middle of each new pixel, which widens where the picture shrinks. Without antialias the triangle
// always reaches one pixel: the result equals OpenCV's within one level. drawImage is not used,
// because its filter differs by browser, and networks are trained with none of these filters.
export function resize(image, width, height, antialias = true) {
  const across = (from) => scaleAlong(from, 0, width, antialias);
  const down = (from) => scaleAlong(from, 1, height, antialias);
  const [fewerRows, fewerColumns] = [image.height - height, image.width - width];
  // Pillow rounds after the first pass, so the order changes the result. Pillow 13 and later begin
  // with the axis that leaves fewer pixels for the second pass.
  return fewerRows > 0 && fewerRows > 2 * fewerColumns ? across(down(image)) : down(across(image));
}

function scaleAlong(image, axis, target, antialias) {
  const { width, height, data: from } = image;
  const source = axis ? height : width;
  if (source === target) return image;
  const step = axis ? 4 * width : 4;
  const lines = axis ? width : height;
  const [fromLine, toLine] = axis ? [4, 4] : [4 * source, 4 * target];
  const to = new Uint8ClampedArray(4 * lines * target);
  for (let place = 0; place < target; ++place) {
    const [first, weights] = shares(source, target, place, antialias);
    for (let line = 0; line < lines; ++line) {
      let at = line * fromLine + first * step;
      let [red, green, blue] = [HALF, HALF, HALF];
      for (let tap = 0; tap < weights.length; ++tap, at += step) {
        const weight = weights[tap];
        red += from[at] * weight;
        green += from[at + 1] * weight;
        blue += from[at + 2] * weight;
      }
      const end = line * toLine + place * step;
      to[end] = red >> BITS;
      to[end + 1] = green >> BITS;
      to[end + 2] = blue >> BITS;
    }
  }
  return axis ? { width, height: target, data: to } : { width: target, height, data: to };
}

// Returns the first pixel that adds to the new pixel `place`, and the weights of the pixels from
// there on, in fixed point.
function shares(source, target, place, antialias) {
  const scale = source / target;
  const reach = antialias ? Math.max(1, scale) : 1;
  const middle = (place + 0.5) * scale;
  const first = Math.max(0, Math.trunc(middle - reach + 0.5));
  const last = Math.min(source, Math.trunc(middle + reach + 0.5));
  const weights = [];
  for (let at = first; at < last; ++at) {
    weights.push(Math.max(0, 1 - Math.abs((at - middle + 0.5) * (1 / reach))));
  }
  const whole = weights.reduce((sum, each) => sum + each, 0);
  return [first, Int32Array.from(weights, (each) => 0.5 + (each / whole) * (1 << BITS))];
}
