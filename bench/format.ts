// Numbers as people write them.

/** Writes a number with three digits, whatever its size: 1.23, 12.3, 123. */
export const digits = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

export const milliseconds = (ms: number): string =>
  ms >= 1000 ? `${digits(ms / 1000)} s` : `${digits(ms)} ms`;

export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let value = count;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit ? digits(value) : value} ${units[unit]}`;
}
