// Requests to the admin API.
import { useEffect, useRef, useState } from 'preact/hooks';
import { base } from './page.ts';
import { Store, useStore } from './store.ts';
import type { Done, Failure } from './types.ts';

export const root = base + 'api/v1';

// Refusal is an answer of 400 and above, or none at all.
export class Refusal extends Error {
  constructor(
    readonly status: number, // 0: no answer
    readonly failure: Failure,
  ) {
    super(failure.message);
  }
}

export type Params = Record<string, string | number | boolean | null | undefined | string[]>;

// address builds path and query; path segments are encoded here.
export function address(path: (string | number)[], params: Params = {}): string {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(params)) {
    if (Array.isArray(v)) v.forEach((one) => q.append(k, one));
    else if (v !== null && v !== undefined && v !== '') q.set(k, String(v));
  }
  const text = q.toString();
  return root + '/' + path.map((p) => encodeURIComponent(String(p))).join('/') + (text ? '?' + text : '');
}

async function ask<T>(where: string, init: RequestInit): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(where, init);
  } catch (e) {
    if ((e as Error).name === 'AbortError') throw e;
    throw new Refusal(0, { code: 'UNREACHABLE', message: '' });
  }
  if (answer.ok) return (await answer.json()) as T;
  let failure: Failure = { code: String(answer.status), message: answer.statusText };
  try {
    failure = (await answer.json()) as Failure;
  } catch {
    // not the API's own answer
  }
  throw new Refusal(answer.status, failure);
}

export const get = <T>(where: string, signal?: AbortSignal): Promise<T> => ask<T>(where, { signal });

// changes counts what this page has changed: what it has loaded is loaded anew.
const changes = new Store(0);

// change sends a request that changes something.
export async function change(method: 'POST' | 'PUT' | 'PATCH' | 'DELETE', where: string, body?: unknown): Promise<Done> {
  const done = await ask<Done>(where, {
    method,
    headers: { 'X-Tidings': '1', ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  changes.set(changes.get() + 1);
  return done;
}

export interface Loaded<T> {
  data: T | null;
  error: Refusal | null;
  loading: boolean;
  reload: () => void;
}

// useGet loads an address, again when it changes, and every `every`
// milliseconds while the page is seen. What was there stays until the next is.
export function useGet<T>(where: string | null, every = 0): Loaded<T> {
  const [state, set] = useState<{ where: string | null; data: T | null; error: Refusal | null; loading: boolean }>({
    where: null, data: null, error: null, loading: true,
  });
  const [turn, again] = useState(0);
  const quiet = useRef(false);
  const changed = useStore(changes);
  const seen = useRef(changed);
  useEffect(() => {
    if (where === null) return;
    const stop = new AbortController();
    if (seen.current !== changed) quiet.current = true;
    seen.current = changed;
    if (!quiet.current) set((s) => ({ ...s, loading: true }));
    quiet.current = false;
    get<T>(where, stop.signal).then(
      (data) => set({ where, data, error: null, loading: false }),
      (e) => {
        if (e instanceof Refusal) set((s) => ({ ...s, where, error: e, loading: false }));
      },
    );
    return () => stop.abort();
  }, [where, turn, changed]);
  useEffect(() => {
    if (!every || where === null) return;
    const timer = setInterval(() => {
      if (document.hidden) return;
      quiet.current = true;
      again((n) => n + 1);
    }, every);
    return () => clearInterval(timer);
  }, [where, every]);
  return { data: state.data, error: state.error, loading: state.loading, reload: () => again((n) => n + 1) };
}
