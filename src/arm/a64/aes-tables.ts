/** The AES S-box and its inverse, computed from their definition (FIPS 197, 5.1.1) when loaded. */

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. */
function multiply(x: number, y: number): number {
  let product = 0;
  let shifted = x;
  for (let rest = y; rest > 0; rest >>= 1) {
    if (rest & 1) product ^= shifted;
    shifted = (shifted << 1) ^ (shifted & 0x80 ? 0x11b : 0);
  }
  return product;
}

/** x^254, the inverse; 0 stays 0. */
function inverse(x: number): number {
  let power = x;
  for (let i = 0; i < 6; i++) power = multiply(multiply(power, power), x);
  return multiply(power, power);
}

const rotate = (x: number, by: number): number => ((x << by) | (x >> (8 - by))) & 0xff;

function substitution(x: number): number {
  const y = inverse(x);
  return y ^ rotate(y, 1) ^ rotate(y, 2) ^ rotate(y, 3) ^ rotate(y, 4) ^ 0x63;
}

export const SBOX: Uint8Array = Uint8Array.from({ length: 256 }, (_, x) => substitution(x));

export const INVERSE_SBOX: Uint8Array = new Uint8Array(256);
SBOX.forEach((to, from) => {
  INVERSE_SBOX[to] = from;
});
