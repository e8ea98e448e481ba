// The page: brings a photograph to its bytes, has them protected by the worker, shows and saves what comes back.

const MOST_PIXELS = 50e6; // a photograph takes about twenty bytes of memory for each
const MOST_SIDE = 16384; // of a canvas, in pixels
const MOST_BYTES = 200e6; // of a file
const AT_REST = "Ready. Drop a photograph.";

// A module that only a browser with 128-bit SIMD takes: its function fills a vector with a number, and drops it.
const SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0], // version 1
  ...[1, 4, 1, 96, 0, 0], // a type: nothing to nothing
  ...[3, 2, 1, 0], // a function of it
  ...[10, 9, 1, 7, 0, 65, 0, 253, 15, 26, 11], // i32.const 0, i8x16.splat, drop, end
);

const at = (id) => document.getElementById(id);
let facts;
let picture = null; // { name, pixels, height, width } of what was dropped
let shown = ""; // of which subject and seed the result is; empty where there is none
let turn = 0; // counts what was asked for, so that an answer that came too late is not shown

function say(text, isBad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", isBad);
}

/**
 * A seed that nobody can guess.
 *
 * @returns {string} a whole number below 2^63, in decimal digits
 */
function freshSeed() {
  return (crypto.getRandomValues(new BigUint64Array(1))[0] >> 1n).toString();
}

/** What is given to the worker, and a promise of what comes back. */
const asked = new Map();
let worker;
let asks = 0;
function ask(task, given) {
  const id = asks++;
  worker.postMessage({ id, task, given });
  return new Promise((resolve, reject) => asked.set(id, { resolve, reject }));
}
function startWorker() {
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data: { id, result, error } }) => {
    const { resolve, reject } = asked.get(id);
    asked.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  };
  worker.onerror = () => say("onnxruntime-web is not there. Run `npm install` in this page's folder.", true);
}

/** A file as its pixels, as they are stored: no colours mixed with what shines through, no other size. */
async function read(file) {
  if (file.size > MOST_BYTES) {
    throw new Error(`${file.name} has ${Math.round(file.size / 1e6)} MB; at most ${MOST_BYTES / 1e6} MB are taken.`);
  }
  let bitmap;
  try {
    // colours are brought to sRGB where the file has a profile of others: the PNG will have none
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "default" });
  } catch {
    throw new Error(
      `${file.name} is no photograph that this browser can read. JPEG, PNG and WebP do; save HEIC as JPEG first.`,
    );
  }
  const { height, width } = bitmap;
  if (height * width > MOST_PIXELS || Math.max(height, width) > MOST_SIDE) {
    bitmap.close();
    const most = `${MOST_PIXELS / 1e6} megapixels and ${MOST_SIDE} pixels a side`;
    throw new Error(`${file.name} is ${width} × ${height} pixels; at most ${most} are taken. Make it smaller first.`);
  }
  const drawn = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  drawn.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = drawn.getImageData(0, 0, width, height).data;
  for (let i = 3; i < pixels.length; i += 4) {
    if (pixels[i] !== 255) throw new Error(`${file.name} is see-through in places. Save it without transparency first.`);
  }
  return { name: file.name, pixels, height, width };
}

/** Whether the browser hands out the pixels that were drawn: some change them, so that nobody is recognised by them. */
function keepsPixels() {
  const drawn = new OffscreenCanvas(16, 16).getContext("2d");
  const given = new ImageData(16, 16);
  given.data.forEach((_, i, all) => (all[i] = i % 4 === 3 ? 255 : (i * 37) % 256));
  drawn.putImageData(given, 0, 0);
  const found = drawn.getImageData(0, 0, 16, 16).data;
  return found.every((byte, i) => byte === given.data[i]);
}

function show(id, pixels, height, width) {
  const canvas = at(id);
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
}

/** No result any more; the number of what is asked for now. */
function hide() {
  at("result").hidden = true;
  shown = "";
  return ++turn;
}

/** Protects what was dropped, as the choices are now. */
async function protect() {
  if (picture === null) return;
  const text = at("seed").value.trim();
  if (!/^-?\d+$/.test(text)) {
    hide();
    throw new Error("The seed must be a whole number, such as the one that was drawn.");
  }
  const seed = BigInt(text).toString(); // without leading zeros, as the package reads it
  const label = Number(at("label").value);
  const wanted = `${label} ${seed}`;
  if (wanted === shown) return; // a field that is left says so, even if nothing new was written in it
  const mine = hide();
  say("Protecting …");
  const { name, pixels, height, width } = picture;
  const { pixels: made, largest } = await ask("protect", { pixels, height, width, label, seed });
  if (largest > facts.reach) throw new Error(`The noise left its bound (${largest}). Do not use this browser.`);
  if (mine !== turn) return;
  show("before", pixels, height, width);
  show("after", made, height, width);
  const blob = await new Promise((done) => at("after").toBlob(done, "image/png"));
  if (mine !== turn) return;
  if (blob === null) throw new Error("This browser has too little memory for the PNG. Make the photograph smaller.");
  URL.revokeObjectURL(at("save").href);
  at("save").href = URL.createObjectURL(blob);
  at("save").download = `${name.replace(/\.[^.]*$/, "")}-protected.png`;
  at("result").hidden = false;
  shown = wanted;
  say(`Done: no byte of it is further than ${largest} of 255 from the original.`);
}

/** Runs what may fail, and says what it was. */
const saying = (action) => async (event) => {
  try {
    await action(event);
  } catch (error) {
    say(error.message, true);
  }
};

const take = saying(async (file) => {
  picture = null;
  const mine = hide();
  say("Reading …");
  const found = await read(file);
  if (mine !== turn) return;
  picture = found;
  await protect();
});

const start = saying(async () => {
  if (!WebAssembly.validate(SIMD)) {
    throw new Error("This browser has no WebAssembly SIMD, which the network needs. Use a newer one (from 2023 on).");
  }
  if (!keepsPixels()) {
    throw new Error(
      "This browser changes the pixels that a page reads (protection from fingerprints), which would spoil the " +
        "photograph. Allow canvas data for this page, or use another browser.",
    );
  }
  startWorker();
  facts = await ask("load");
  const names = facts.classes ?? Array.from({ length: facts.num_classes }, (_, i) => String(i));
  at("label").replaceChildren(...names.map((name, i) => new Option(name, i)));
  at("seed").value = freshSeed();
  at("label").disabled = at("file").disabled = false;
  say(AT_REST);

  at("file").onchange = () => at("file").files.length && take(at("file").files[0]);
  at("label").onchange = at("seed").onchange = saying(protect);
  at("fresh").onclick = () => {
    at("seed").value = freshSeed();
    return saying(protect)();
  };
  at("drop").ondrop = (event) => event.dataTransfer.files.length && take(event.dataTransfer.files[0]);
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  // a file that misses the field would otherwise be opened in the page's place
  addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
start();
