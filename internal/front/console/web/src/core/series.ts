// What the charts show: the last fifteen minutes of each thing that was watched.
// A page begins with the points that the server has (/history), and goes on with
// what the stream brings. What lies further back Prometheus keeps.
import { address, get } from './api.ts';
import { before, value, type Series } from './past.ts';
import { Store } from './store.ts';
import type { ChannelDetail, History, Overview, TopicState } from './types.ts';

export const SPAN = 900; // seconds
const POINTS = 2000; // at most
const THINGS = 24; // most recently watched

const kept = new Map<string, Series>();

// begun counts the series that have got what the server had.
export const begun = new Store(0);

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
  else {
    s = [[], ...now.map(() => [])] as unknown as Series;
    begin(watch, s);
  }
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
  while (s[0].length > POINTS || (s[0][1] ?? time) < time - SPAN) for (const list of s) list.shift();
}

// begin puts what the server has before what the page has seen.
function begin(watch: string, s: Series): void {
  get<History>(address(['history'], { watch })).then(
    (h) => {
      const old = before(h, s[0][0] ?? h.at / 1000);
      s.forEach((list, i) => list.unshift(...(old[i] as number[])));
      begun.set(begun.get() + 1);
    },
    () => undefined, // the chart begins now
  );
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
