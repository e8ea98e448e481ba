// BLAKE2b (RFC 7693), in halves of 32 bits: a photograph's 36 million bytes take BigInt a minute.

const START = new Uint32Array([
  0xf3bcc908, 0x6a09e667, 0x84caa73b, 0xbb67ae85, 0xfe94f82b, 0x3c6ef372, 0x5f1d36f1, 0xa54ff53a, 0xade682d1,
  0x510e527f, 0x2b3e6c1f, 0x9b05688c, 0xfb41bd6b, 0x1f83d9ab, 0x137e2179, 0x5be0cd19,
]); // low half first

const ORDER = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
  [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
  [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
  [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
  [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
const QUARTERS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];
// Twelve rounds, the last two as the first two; each step is the places of four state words and of two message words.
const STEPS = Uint8Array.from(
  [...ORDER, ORDER[0], ORDER[1]].flatMap((order) =>
    QUARTERS.flatMap((places, i) => [...places, order[2 * i], order[2 * i + 1]].map((word) => 2 * word)),
  ),
);

const BLOCK = 128; // bytes

/**
 * The digest of bytes.
 *
 * @param {Uint8Array[]} parts the message, in pieces
 * @param {number} size of the digest, in bytes, 1 to 64
 * @param {Uint8Array} key up to 64 bytes, or none
 * @returns {Uint8Array} `size` bytes
 */
export function blake2b(parts, size, key = new Uint8Array(0)) {
  const state = START.slice();
  state[0] ^= 0x01010000 ^ (key.length << 8) ^ size;
  const padded = new Uint8Array(key.length ? BLOCK : 0);
  padded.set(key);

  const block = new Uint8Array(BLOCK);
  let filled = 0;
  let total = 0;
  for (const part of [padded, ...parts]) {
    for (let at = 0; at < part.length; ) {
      if (filled === BLOCK) {
        total += BLOCK; // a block is mixed only when more follows: the last one is mixed in another way
        mix(state, block, total, false);
        filled = 0;
      }
      const taken = Math.min(BLOCK - filled, part.length - at);
      block.set(part.subarray(at, at + taken), filled);
      filled += taken;
      at += taken;
    }
  }
  block.fill(0, filled);
  mix(state, block, total + filled, true);

  const digest = new DataView(new ArrayBuffer(64));
  state.forEach((half, i) => digest.setUint32(4 * i, half, true));
  return new Uint8Array(digest.buffer.slice(0, size));
}

const words = new Int32Array(32);
const message = new Int32Array(32);

/** One block into the state; `total` is how many bytes of the message there were with it. */
function mix(state, block, total, isLast) {
  const bytes = new DataView(block.buffer);
  for (let i = 0; i < 32; i++) message[i] = bytes.getInt32(4 * i, true);
  words.set(state);
  words.set(START, 16);
  words[24] ^= total;
  words[25] ^= Math.floor(total / 2 ** 32);
  if (isLast) {
    words[28] = ~words[28];
    words[29] = ~words[29];
  }
  for (let i = 0; i < STEPS.length; i += 6) {
    const a = STEPS[i];
    const b = STEPS[i + 1];
    const c = STEPS[i + 2];
    const d = STEPS[i + 3];
    add(a, words[b], words[b + 1]);
    add(a, message[STEPS[i + 4]], message[STEPS[i + 4] + 1]);
    turn(d, a, 32);
    add(c, words[d], words[d + 1]);
    turn(b, c, 24);
    add(a, words[b], words[b + 1]);
    add(a, message[STEPS[i + 5]], message[STEPS[i + 5] + 1]);
    turn(d, a, 16);
    add(c, words[d], words[d + 1]);
    turn(b, c, 63);
  }
  for (let i = 0; i < 16; i++) state[i] ^= words[i] ^ words[i + 16];
}

/** words[at] += (low, high), modulo 2^64. */
function add(at, low, high) {
  const sum = (words[at] + low) | 0;
  words[at] = sum;
  words[at + 1] += high + (sum >>> 0 < low >>> 0 ? 1 : 0);
}

/** words[at] = (words[at] ^ words[other]) rotated to the right by `bits`: 32, 24, 16 or 63. */
function turn(at, other, bits) {
  const low = words[at] ^ words[other];
  const high = words[at + 1] ^ words[other + 1];
  if (bits === 32) {
    words[at] = high;
    words[at + 1] = low;
  } else if (bits === 63) {
    words[at] = (low << 1) | (high >>> 31);
    words[at + 1] = (high << 1) | (low >>> 31);
  } else {
    words[at] = (low >>> bits) | (high << (32 - bits));
    words[at + 1] = (high >>> bits) | (low << (32 - bits));
  }
}
