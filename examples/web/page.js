// The page: it takes a model, and pictures that are chosen, dropped or come from the camera, and
// draws the boxes. index.html?model=URL&picture=URL&engine=wasm opens model and picture at once.
import { Detector } from "./effdet.js";

const element = (id) => document.getElementById(id);
const canvas = element("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });
const asked = new URLSearchParams(location.search);
let detector = null;
let picture = null; // the latest picture, as ImageData
let camera = null; // the camera's stream while it runs

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

// Shows errors on the page.
const attempt = (job) => async (...given) => {
  try {
    await job(...given);
  } catch (error) {
    say(error.message, true);
  }
};

async function openModel(blob) {
  say("Loading the model …");
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const engines = asked.has("engine") ? [asked.get("engine")] : undefined;
  detector = await Detector.open(bytes, engines);
  say(`${detector.names.length} classes, ${detector.width} x ${detector.height}, ${detector.engine}.`);
  await show();
}

async function openPicture(blob) {
  stopCamera();
  // No color management: networks are trained on the pixels as they are in the file.
  take(await createImageBitmap(blob, { colorSpaceConversion: "none" }));
  await show();
}

function take(source, width = source.width, height = source.height) {
  const copy = new OffscreenCanvas(width, height).getContext("2d");
  copy.drawImage(source, 0, 0);
  picture = copy.getImageData(0, 0, width, height);
}

async function show() {
  if (!picture) return;
  const [shown, begin] = [picture, performance.now()];
  const threshold = element("threshold").valueAsNumber;
  const rows = detector ? await detector.detect(shown, threshold) : [];
  const milliseconds = performance.now() - begin;
  if (shown !== picture) return; // another picture has come meanwhile
  draw(shown, rows);
  if (!detector) return;
  say(`${rows.length} detections in ${milliseconds.toFixed(0)} ms (${detector.engine}).`);
  document.dispatchEvent(new CustomEvent("detections", { detail: { rows, milliseconds } }));
}

function draw(image, rows) {
  [canvas.width, canvas.height] = [image.width, image.height];
  context.putImageData(image, 0, 0);
  const size = Math.max(12, image.width / 40);
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  context.lineWidth = size / 8;
  // The best score comes last, on top of the others.
  for (const { label, score, box: [left, top, right, bottom] } of rows.toReversed()) {
    const color = `hsl(${(label * 137) % 360} 90% 35%)`;
    const text = ` ${detector.names[label]} ${score.toFixed(2)} `;
    context.strokeStyle = context.fillStyle = color;
    context.strokeRect(left, top, right - left, bottom - top);
    const base = Math.max(top, size * 1.2);
    context.fillRect(left, base - size * 1.2, context.measureText(text).width, size * 1.2);
    context.fillStyle = "white";
    context.fillText(text, left, base);
  }
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  element("camera").textContent = "Camera";
}

async function toggleCamera() {
  if (camera) return stopCamera();
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  camera = stream;
  element("camera").textContent = "Stop";
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true });
  await video.play();
  while (camera === stream) {
    take(video, video.videoWidth, video.videoHeight);
    await show();
    await new Promise(requestAnimationFrame);
  }
}

const open = attempt((blob) => (blob.type.startsWith("image/") ? openPicture(blob) : openModel(blob)));
const openFiles = async (files) => {
  for (const file of files) await open(file);
};

for (const id of ["model", "picture"]) {
  element(id).addEventListener("change", ({ target }) => openFiles(target.files));
}
element("camera").addEventListener("click", attempt(toggleCamera));
element("threshold").addEventListener("input", attempt(({ target }) => {
  element("shown").textContent = target.valueAsNumber.toFixed(2);
  return show();
}));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  openFiles(event.dataTransfer.files);
});

async function fetchFile(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`);
  return answer.blob();
}

for (const name of ["model", "picture"]) {
  if (asked.has(name)) await attempt(async () => open(await fetchFile(asked.get(name))))();
}
