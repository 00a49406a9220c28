// What the viewer chose, kept in this browser.
import { Store } from './store.ts';

export type Theme = 'system' | 'light' | 'dark';
export type Language = 'en' | 'zh';

function saved(key: string): string | null {
  try {
    return localStorage.getItem('tidings.' + key);
  } catch {
    return null; // storage may be forbidden
  }
}

function save(key: string, value: string): void {
  try {
    localStorage.setItem('tidings.' + key, value);
  } catch {
    // the choice lasts as long as the page
  }
}

const dark = matchMedia('(prefers-color-scheme: dark)');

export const theme = new Store<Theme>((saved('theme') as Theme) || 'system');
export const language = new Store<Language>(
  (saved('language') as Language) || (navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'),
);
// shade is the theme that is shown.
export const shade = new Store<'light' | 'dark'>('light');

function apply(): void {
  const choice = theme.get();
  const now = choice === 'system' ? (dark.matches ? 'dark' : 'light') : choice;
  document.documentElement.dataset.theme = now;
  document.documentElement.lang = language.get() === 'zh' ? 'zh-CN' : 'en';
  shade.set(now);
}

// start applies the choices before the first paint, and whenever they change.
export function start(): void {
  dark.addEventListener('change', apply);
  theme.watch(() => (save('theme', theme.get()), apply()));
  language.watch(() => (save('language', language.get()), apply()));
  apply();
}
