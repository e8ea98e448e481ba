// The secret's part of the noise: the numbers that the package draws for the same image, label and seed
// (semtransforms/core/keys.py). All of it is arithmetic on whole numbers, so nothing is lost on the way here.

import { blake2b } from "./node_modules/@noble/hashes/blake2.js";

/**
 * The key of an image.
 *
 * @param {Uint8Array} planes the image's bytes: all reds, all greens, all blues, each row by row
 * @param {number} height in pixels
 * @param {number} width in pixels
 * @param {number} label a class's number
 * @param {string} seed a whole number in decimal digits, as long as one likes
 * @returns {{low: number, high: number}} its halves of 32 bits, signed
 */
export function imageKey(planes, height, width, label, seed) {
  const text = new TextEncoder();
  const secret = blake2b(text.encode(seed)); // 64 bytes
  const about = text.encode(`((3, ${height}, ${width}), ${label})`); // as Python writes a tuple
  const found = blake2b.create({ dkLen: 8, key: secret }).update(about).update(planes).digest();
  const digest = new DataView(found.buffer, found.byteOffset);
  return { low: digest.getInt32(0, true), high: digest.getInt32(4, true) };
}

/**
 * Random numbers that a key decides.
 *
 * @param {{low: number, high: number}} key of imageKey
 * @param {number} count how many
 * @returns {Float32Array} in [-1, 1), on a grid of 2^-23
 */
export function randomField(key, count) {
  const field = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let bits = Math.imul(i, -1640531527) ^ key.low;
    bits ^= bits >> 16;
    bits = Math.imul(bits, 2146121005) ^ key.high;
    bits ^= bits >> 15;
    bits = Math.imul(bits, -2073254261);
    bits ^= bits >> 16;
    field[i] = (bits & 0xffffff) * 2 ** -23 - 1;
  }
  return field;
}
