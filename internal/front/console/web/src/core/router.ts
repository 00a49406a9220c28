// The address bar is the state: each page is a path, and what is sorted,
// filtered, opened and paged stands in the query. A link to a view is that view.
import { base } from './page.ts';
import { Store, useStore } from './store.ts';

export interface Place {
  path: string[]; // decoded segments below base
  query: URLSearchParams;
  url: string;
}

export type Query = Record<string, string | number | boolean | null | undefined>;

function read(): Place {
  const path = location.pathname.startsWith(base) ? location.pathname.slice(base.length) : '';
  return {
    path: path.split('/').filter(Boolean).map(decode),
    query: new URLSearchParams(location.search),
    url: location.pathname + location.search,
  };
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

const place = new Store<Place>(read());
export const usePlace = (): Place => useStore(place);

// url gives the address of a page; empty values stay out of the query.
export function url(path: string[], query: Query = {}): string {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(query)) {
    if (v !== null && v !== undefined && v !== '' && v !== false) q.set(k, String(v));
  }
  const text = q.toString();
  return base + path.map(encodeURIComponent).join('/') + (text ? '?' + text : '');
}

// here is this page's address with some of the query changed.
export function here(change: Query): string {
  const now = place.get();
  return url(now.path, { ...Object.fromEntries(now.query), ...change });
}

export function go(to: string, replace = false): void {
  if (to === location.pathname + location.search) return;
  const before = location.pathname;
  history[replace ? 'replaceState' : 'pushState'](null, '', to);
  place.set(read());
  if (location.pathname !== before) {
    scrollTo(0, 0);
    document.querySelector<HTMLElement>('main')?.focus({ preventScroll: true });
  }
}

// start turns clicks on links of ours into changes of place.
export function start(): void {
  addEventListener('popstate', () => place.set(read()));
  addEventListener('click', (e) => {
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    const a = (e.target as Element).closest?.('a');
    if (!a || a.target || a.hasAttribute('download') || a.origin !== location.origin) return;
    if (!a.hasAttribute('data-own')) return;
    e.preventDefault();
    go(a.pathname + a.search, a.hasAttribute('data-replace'));
  });
}
