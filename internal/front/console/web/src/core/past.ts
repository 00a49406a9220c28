// What the server remembers, as the lines of a chart.
import type { History } from './types.ts';

// Series holds times in seconds, then one list for each line; null is a gap.
export type Series = [number[], ...(number | null)[][]];

export const value = (v: number | null | undefined): number | null => v ?? null;

// before gives the lines of what was until a time, in seconds. Where points lie
// far apart nobody watched: a gap.
export function before(h: History, until: number): Series {
  const out: Series = [[], [], [], [], []];
  const step = h.step_ms / 1000;
  const add = (time: number, ...values: (number | null)[]) => [time, ...values].forEach((v, i) => (out[i] as (number | null)[]).push(v));
  for (const p of h.points) {
    const time = p.at / 1000;
    if (time > until - 1) break;
    const last = out[0].at(-1);
    if (last !== undefined && time - last > 2.5 * step) add(last + 0.001, null, null, null, null);
    add(time, value(p.in_rate), value(p.out_rate), p.backlog, p.oldest_age_ms / 1000);
  }
  const last = out[0].at(-1);
  if (last !== undefined && until - last > 2.5 * step) add(last + 0.001, null, null, null, null);
  return out;
}
