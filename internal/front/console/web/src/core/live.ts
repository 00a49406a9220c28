// The one stream of events: what the open page watches, sampled once a second
// by the server. It is closed while nobody looks at the page.
import { useEffect, useState } from 'preact/hooks';
import { address } from './api.ts';
import { merge } from './merge.ts';
import { interrupt, record } from './series.ts';
import { Store } from './store.ts';
import type { Failure } from './types.ts';

export type Line = 'connecting' | 'on' | 'paused' | 'off';
export const line = new Store<Line>('connecting');

// ahead is how far the server's clock is before this one's, in milliseconds.
let ahead = 0;
export const serverNow = (): number => Date.now() + ahead;

export interface Watched<T> {
  data: T | null;
  gone: Failure | null;
}

interface Watch {
  viewers: number;
  seen: Watched<unknown>;
  tell: Set<() => void>;
}

const watches = new Map<string, Watch>();
let stream: EventSource | null = null;
let listening = ''; // the watches that the stream was opened for
let planned = 0;
let waits = 0; // failures in a row

function receive(kind: 'state' | 'patch' | 'gone', e: MessageEvent<string>): void {
  const event = JSON.parse(e.data) as { watch: string; at: number; data: unknown };
  const w = watches.get(event.watch);
  if (!w) return;
  if (event.at) ahead = event.at - Date.now();
  if (kind === 'gone') {
    w.seen = { data: null, gone: event.data as Failure };
  } else {
    const data = kind === 'state' ? event.data : merge(w.seen.data, event.data);
    (data as { at: number }).at = event.at;
    w.seen = { data, gone: null };
    record(event.watch, event.at, data);
  }
  for (const tell of [...w.tell]) tell();
}

function open(): void {
  const wanted = [...watches.keys()].sort();
  const id = wanted.join('\n');
  if (document.hidden || wanted.length === 0) {
    close(document.hidden ? 'paused' : 'connecting');
    return;
  }
  if (stream && id === listening && stream.readyState !== EventSource.CLOSED) return;
  close(line.get() === 'on' ? 'on' : 'connecting');
  listening = id;
  const s = (stream = new EventSource(address(['events'], { watch: wanted })));
  s.onopen = () => {
    waits = 0;
    line.set('on');
  };
  for (const kind of ['state', 'patch', 'gone'] as const) {
    s.addEventListener(kind, (e) => {
      if (s === stream) receive(kind, e as MessageEvent<string>);
    });
  }
  s.onerror = () => {
    if (s !== stream) return;
    close('off');
    plan(Math.min(5000, 500 * 2 ** waits++));
  };
}

function close(now: Line): void {
  if (now === 'off' || now === 'paused') interrupt();
  stream?.close();
  stream = null;
  listening = '';
  line.set(now);
}

// plan opens the stream anew soon, so that a change of pages opens it once.
function plan(after: number): void {
  clearTimeout(planned);
  planned = window.setTimeout(open, after);
}

document.addEventListener('visibilitychange', () => plan(0));
addEventListener('pagehide', () => close('paused'));
addEventListener('pageshow', (e) => {
  if (e.persisted) plan(0);
});

// useWatch gives what is watched, again with each change.
export function useWatch<T>(key: string | null): Watched<T> {
  const [, render] = useState(0);
  useEffect(() => {
    if (key === null) return;
    let w = watches.get(key);
    if (!w) watches.set(key, (w = { viewers: 0, seen: { data: null, gone: null }, tell: new Set() }));
    const mine = w;
    mine.viewers++;
    const tell = () => render((n) => n + 1);
    mine.tell.add(tell);
    plan(5);
    return () => {
      mine.tell.delete(tell);
      if (--mine.viewers === 0) {
        watches.delete(key);
        plan(5);
      }
    };
  }, [key]);
  const seen = key === null ? undefined : watches.get(key)?.seen;
  return (seen ?? { data: null, gone: null }) as Watched<T>;
}

export const topicWatch = (topic: string): string => 'topic:' + encodeURIComponent(topic);
export const channelWatch = (topic: string, channel: string): string =>
  `channel:${encodeURIComponent(topic)}/${encodeURIComponent(channel)}`;
