// What the ONNX file says about itself: export_onnx has put it there as JSON.

const METADATA = 14; // the field of ONNX's ModelProto that holds pairs of key and value
const NAME = "semtransforms";

/** The fields of a protobuf message that are bytes or a message: pairs of number and content. */
function* fieldsOf(bytes) {
  let at = 0;
  const number = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error("cut");
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = number();
    const kind = tag % 8;
    if (kind === 0) number();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = number();
      if (at + length > bytes.length) throw new Error("cut");
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    } else throw new Error("no protobuf");
  }
}

/**
 * What a page has to know of a generator.
 *
 * @param {Uint8Array} file the ONNX file
 * @returns {{classes: string[]|null, num_classes: number, reach: number, side: number, field: number, patch: number}}
 */
export function factsOf(file) {
  try {
    const text = new TextDecoder();
    for (const [field, content] of fieldsOf(file)) {
      if (field !== METADATA) continue;
      const [key, value] = [...fieldsOf(content)].map(([, bytes]) => text.decode(bytes));
      if (key === NAME) return JSON.parse(value);
    }
  } catch {
    // said below
  }
  throw new Error("generator.onnx is damaged, or export_onnx did not write it. Export it again.");
}
