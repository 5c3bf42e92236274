// Numbers as the page says them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

// 1234567 as "1.2 MiB", which no line breaks; whole numbers without a point.
export function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(bytes) : Number(bytes.toFixed(1))}\u00a0${UNITS[unit]}`;
}

// 1234 as "1,234".
export const count = (number) => Math.round(number).toLocaleString("en");

// "1 token", "2 tokens".
export const some = (number, noun) => `${count(number)} ${noun}${Math.round(number) === 1 ? "" : "s"}`;

// Bits of a number, which are averages: 3.5, 8, 2.25.
export const bits = (number) => `${Number(number.toFixed(2))}`;
