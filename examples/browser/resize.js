// The size at which noise is made, as the package has it (semtransforms/views/resize.py): a photograph is shrunk, its
// noise is made there and enlarged. Noise of a photograph's own size would vanish when a trainer resizes.

/**
 * The size at which the noise of a photograph is made.
 *
 * @param {number} height in pixels
 * @param {number} width in pixels
 * @param {number} side that of the shorter side, in pixels
 * @returns {[number, number]} height and width; those of the photograph where it is not larger
 */
export function madeAt(height, width, side) {
  if (Math.min(height, width) <= side) return [height, width];
  return height >= width
    ? [Math.floor((side * height) / width), side]
    : [side, Math.floor((side * width) / height)];
}

const PLACES = 22; // binary ones behind the point, of a weight as a whole number

/** What one line of pixels is made of when it is shrunk: for each new pixel the first old one, and whole weights. */
function triangles(before, after) {
  const scale = before / after;
  return Array.from({ length: after }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - scale + 0.5));
    const stop = Math.min(before, Math.trunc(centre + scale + 0.5));
    const shares = Array.from({ length: stop - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((k + first - centre + 0.5) * (1 / scale))),
    );
    const sum = shares.reduce((all, share) => all + share, 0);
    return { first, weights: Int32Array.from(shares, (share) => Math.trunc(0.5 + (share / sum) * 2 ** PLACES)) };
  });
}

/**
 * Photographs made smaller: bilinear with antialiasing, in whole numbers as Pillow computes, and to its bytes.
 *
 * @param {Uint8Array} planes (3, height, width)
 * @param {number} height before
 * @param {number} width before
 * @param {number} newHeight after, not larger
 * @param {number} newWidth after, not larger
 * @returns {Uint8Array} (3, newHeight, newWidth)
 */
export function shrink(planes, height, width, newHeight, newWidth) {
  const narrow = new Uint8Array(3 * height * newWidth);
  triangles(width, newWidth).forEach(({ first, weights }, x) => {
    for (let line = 0; line < 3 * height; line++) {
      let sum = 1 << (PLACES - 1);
      for (let k = 0; k < weights.length; k++) sum += planes[line * width + first + k] * weights[k];
      narrow[line * newWidth + x] = sum >> PLACES;
    }
  });
  const small = new Uint8Array(3 * newHeight * newWidth);
  triangles(height, newHeight).forEach(({ first, weights }, y) => {
    for (let colour = 0; colour < 3; colour++) {
      for (let x = 0; x < newWidth; x++) {
        let sum = 1 << (PLACES - 1);
        for (let k = 0; k < weights.length; k++) {
          sum += narrow[(colour * height + first + k) * newWidth + x] * weights[k];
        }
        small[(colour * newHeight + y) * newWidth + x] = sum >> PLACES;
      }
    }
  });
  return small;
}

const SHARPNESS = -0.75; // of the bicubic curve, as torch has it

/** The weights of the four neighbours of a place between the second and the third, each rounded to 32 bits. */
function cubic(place) {
  const f = Math.fround;
  const a = SHARPNESS;
  const near = (x) => f(f(f(f((a + 2) * x) - (a + 3)) * f(x * x)) + 1);
  const far = (x) => f(f(f(f(f(f(a * x) - 5 * a) * x) + 8 * a) * x) - 4 * a);
  return [far(f(place + 1)), near(place), near(f(1 - place)), far(f(f(1 - place) + 1))];
}

/** What one line is made of when it is enlarged: for each new pixel four old ones, as [place, weight, ...]. */
function neighbours(before, after) {
  const f = Math.fround;
  const scale = f(before / after);
  return Array.from({ length: after }, (_, i) => {
    const real = f(f(scale * f(i + 0.5)) - 0.5);
    const second = Math.floor(real);
    const at = (place) => Math.min(Math.max(place, 0), before - 1);
    return {
      places: [-1, 0, 1, 2].map((step) => at(second + step)),
      weights: before === after ? [0, 1, 0, 0] : cubic(f(real - second)),
    };
  });
}

/** To the nearest whole number, and between two to the even one, as NumPy's rint. */
function rint(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * A photograph with its noise, which is enlarged to its size (bicubic) and rounded to whole grey levels.
 *
 * @param {Uint8Array} planes (3, height, width)
 * @param {number} height of the photograph
 * @param {number} width of the photograph
 * @param {Int8Array} noise (3, noiseHeight, noiseWidth), in grey levels
 * @param {number} noiseHeight in pixels
 * @param {number} noiseWidth in pixels
 * @param {number} reach the largest difference there may be, in grey levels
 * @returns {Uint8Array} (3, height, width)
 */
export function addEnlarged(planes, height, width, noise, noiseHeight, noiseWidth, reach) {
  const f = Math.fround;
  const columns = neighbours(noiseWidth, width);
  const wide = new Float32Array(3 * noiseHeight * width);
  for (let line = 0; line < 3 * noiseHeight; line++) {
    for (let x = 0; x < width; x++) {
      const { places, weights } = columns[x];
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += noise[line * noiseWidth + places[k]] * weights[k];
      wide[line * width + x] = sum;
    }
  }
  const added = new Uint8Array(planes.length);
  const rows = neighbours(noiseHeight, height);
  for (let colour = 0; colour < 3; colour++) {
    for (let y = 0; y < height; y++) {
      const { places, weights } = rows[y];
      const [first, second, third, fourth] = places.map((place) => (colour * noiseHeight + place) * width);
      const [w0, w1, w2, w3] = weights;
      const line = (colour * height + y) * width;
      for (let x = 0; x < width; x++) {
        let fine = f(wide[second + x] * w1);
        fine = f(fine + wide[first + x] * w0); // in the package's order
        fine = f(fine + wide[third + x] * w2);
        fine = f(fine + wide[fourth + x] * w3);
        const level = Math.min(Math.max(rint(fine), -reach), reach);
        added[line + x] = Math.min(Math.max(planes[line + x] + level, 0), 255);
      }
    }
  }
  return added;
}
