// What the charts show: the last minutes of each thing that was watched, kept
// in this page. The server keeps no history; Prometheus does.
import type { ChannelDetail, Overview, TopicState } from './types.ts';

const POINTS = 900; // fifteen minutes
const THINGS = 24; // most recently watched

// Series holds times in seconds, then one list for each line; null is a gap.
export type Series = [number[], ...(number | null)[][]];

const kept = new Map<string, Series>();

const value = (v: number | null | undefined): number | null => v ?? null;

function lines(watch: string, data: unknown): (number | null)[] | null {
  if (watch === 'overview') {
    const t = (data as Overview).totals;
    return [value(t.in_rate), value(t.out_rate), t.backlog + t.waiting, (t.oldest_age_ms ?? 0) / 1000];
  }
  if (watch.startsWith('topic:')) {
    const t = data as TopicState;
    return [value(t.in_rate), value(t.out_rate), t.backlog + t.waiting, (t.oldest_age_ms ?? 0) / 1000];
  }
  if (watch.startsWith('channel:')) {
    const c = data as ChannelDetail;
    return [value(c.in_rate), value(c.out_rate), c.backlog, (c.oldest_age_ms ?? 0) / 1000];
  }
  return null;
}

// record takes a sample. The server is silent while nothing changes, so the time
// since the last sample was spent at its value.
export function record(watch: string, at: number, data: unknown): void {
  const now = lines(watch, data);
  if (!now) return;
  let s = kept.get(watch);
  if (s) kept.delete(watch); // it becomes the last used
  else s = [[], ...now.map(() => [])] as unknown as Series;
  kept.set(watch, s);
  if (kept.size > THINGS) kept.delete(kept.keys().next().value!);
  const time = at / 1000;
  const last = s[0].at(-1);
  if (last !== undefined && time <= last) return;
  if (last !== undefined && time - last > 2) push(s, time - 1, s.slice(1).map((list) => list.at(-1) ?? null));
  push(s, time, now);
}

// interrupt marks that nothing was heard from here on.
export function interrupt(): void {
  for (const s of kept.values()) {
    const last = s[0].at(-1);
    if (last !== undefined && s.slice(1).some((list) => list.at(-1) !== null)) push(s, last + 0.001, s.slice(1).map(() => null));
  }
}

function push(s: Series, time: number, now: (number | null)[]): void {
  s[0].push(time);
  now.forEach((v, i) => (s[i + 1] as (number | null)[]).push(v));
  if (s[0].length > POINTS) for (const list of s) list.shift();
}

// upTo gives the lines of a watch drawn on to a time, in seconds, with the last
// values; only lines of the given numbers.
export function upTo(watch: string, time: number, numbers: number[]): Series {
  const s = kept.get(watch);
  if (!s) return [[], ...numbers.map(() => [])] as unknown as Series;
  const extend = time > (s[0].at(-1) ?? time);
  return [s[0], ...numbers.map((n) => s[n + 1]!)].map((list, i) =>
    extend ? [...list, i === 0 ? time : (list.at(-1) ?? null)] : [...list],
  ) as unknown as Series;
}
