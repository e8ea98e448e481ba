// The work, away from the page, which stays quick meanwhile. Nothing here sends anything anywhere.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { imageKey, randomField } from "./keys.js";
import { factsOf } from "./model.js";
import { addEnlarged, madeAt, shrink } from "./resize.js";

ort.env.wasm.numThreads = 1; // more need headers that a simple server does not send, and one pass takes milliseconds

let session;
let facts;

/** Loads the generator and tells its facts. */
async function load() {
  const answer = await fetch("generator.onnx");
  if (!answer.ok) {
    throw new Error(
      "There is no generator.onnx beside this page. Make it in Python: " +
        "NoiseGenerator.from_pretrained(\"my-generator\").export_onnx(\"generator.onnx\")",
    );
  }
  const file = new Uint8Array(await answer.arrayBuffer());
  facts = factsOf(file);
  session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  return facts;
}

/** Protects a picture's RGBA bytes, in place, and tells the largest difference. */
async function protect({ pixels, height, width, label, seed }) {
  const planes = toPlanes(pixels);
  const key = imageKey(planes, height, width, label, seed);
  const [newHeight, newWidth] = madeAt(height, width, facts.side);
  const isMadeHere = newHeight === height && newWidth === width;
  const small = isMadeHere ? planes : shrink(planes, height, width, newHeight, newWidth);

  const places = [Math.ceil(newHeight / facts.patch), Math.ceil(newWidth / facts.patch)];
  const field = randomField(key, facts.field * places[0] * places[1]);
  const { protected: made } = await session.run({
    images: new ort.Tensor("uint8", small, [1, 3, newHeight, newWidth]),
    labels: new ort.Tensor("int64", BigInt64Array.of(BigInt(label)), [1]),
    field: new ort.Tensor("float32", field, [1, facts.field, ...places]),
  });
  const noise = Int8Array.from(small, (byte, i) => made.data[i] - byte);
  const added = isMadeHere
    ? made.data
    : addEnlarged(planes, height, width, noise, newHeight, newWidth, facts.reach);

  let largest = 0;
  for (let i = 0; i < planes.length; i++) largest = Math.max(largest, Math.abs(added[i] - planes[i]));
  return { pixels: toPixels(added), largest };
}

/** RGBA, pixel by pixel, to all reds, all greens, all blues. */
function toPlanes(pixels) {
  const count = pixels.length / 4;
  const planes = new Uint8Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let colour = 0; colour < 3; colour++) planes[colour * count + i] = pixels[4 * i + colour];
  }
  return planes;
}

/** The other way, opaque. */
function toPixels(planes) {
  const count = planes.length / 3;
  const pixels = new Uint8ClampedArray(4 * count).fill(255);
  for (let i = 0; i < count; i++) {
    for (let colour = 0; colour < 3; colour++) pixels[4 * i + colour] = planes[colour * count + i];
  }
  return pixels;
}

onmessage = async ({ data: { id, task, given } }) => {
  try {
    postMessage({ id, result: await { load, protect }[task](given) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
