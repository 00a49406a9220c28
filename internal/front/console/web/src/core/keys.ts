// Keys: "/" to search, g and a letter to go somewhere, j and k along the rows,
// Enter to open, Esc to leave, ? for help.
import { go, url } from './router.ts';

// places are where g and a letter lead.
export const places: Record<string, string[]> = {
  o: [],
  t: ['topics'],
  h: ['channels'],
  n: ['nodes'],
  s: ['shards'],
  l: ['lookup'],
  v: ['tail'],
  c: ['config'],
};

const editable = (e: Element | null): boolean => !!e?.closest('input, textarea, select, [contenteditable]');

function rows(): HTMLElement[] {
  return [...document.querySelectorAll<HTMLElement>('main [data-row]')];
}

// step moves the mark by some rows and shows where it is.
function step(by: number): void {
  const all = rows();
  if (all.length === 0) return;
  const at = all.findIndex((r) => r.classList.contains('at'));
  const next = Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + by));
  all[at]?.classList.remove('at');
  const row = all[next]!;
  row.classList.add('at');
  const target = row.matches('button') ? row : row.querySelector<HTMLElement>('a, button');
  target?.focus({ preventScroll: true });
  row.scrollIntoView({ block: 'nearest' });
}

// start listens; help opens the overview of keys, palette the way to anywhere.
export function start(help: () => void, palette: () => void): void {
  let leader = 0; // when g was pressed, in milliseconds
  addEventListener('keydown', (e) => {
    if (document.querySelector('dialog[open]')) return; // Esc closes it by itself
    if ((e.metaKey || e.ctrlKey) && e.key === 'k') {
      e.preventDefault();
      palette();
      return;
    }
    if (e.metaKey || e.ctrlKey || e.altKey || e.isComposing) return;
    if (e.key === 'Escape') {
      (document.activeElement as HTMLElement | null)?.blur();
      return;
    }
    if (editable(document.activeElement)) return;
    const led = performance.now() - leader < 1200;
    leader = 0;
    if (led && places[e.key]) {
      e.preventDefault();
      go(url(places[e.key]!));
      return;
    }
    switch (e.key) {
      case 'g':
        leader = performance.now();
        return;
      case '/': {
        const box = document.querySelector<HTMLInputElement>('main [data-search]');
        if (!box) return;
        e.preventDefault();
        box.focus();
        box.select();
        return;
      }
      case '?':
        e.preventDefault();
        help();
        return;
      case 'j':
      case 'k':
        step(e.key === 'j' ? 1 : -1);
        return;
      case 'u': {
        const up = document.querySelector<HTMLAnchorElement>('.crumbs a:last-of-type');
        if (up) go(up.pathname + up.search);
      }
    }
  });
}
