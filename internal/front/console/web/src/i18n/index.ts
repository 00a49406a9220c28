// Texts in the viewer's language.
import { language, type Language } from '../core/prefs.ts';
import { en, type Key } from './en.ts';
import { zh } from './zh.ts';

export type { Key };

const tables: Record<Language, Record<Key, string>> = { en, zh };

// t gives the text of a key with {name} replaced. A text with a bar has two
// forms, for n = 1 and for every other n.
export function t(key: Key, values: Record<string, string | number> = {}): string {
  let text: string = tables[language.get()][key];
  const bar = text.indexOf('|');
  if (bar >= 0) text = values.n === 1 || values.n === '1' ? text.slice(0, bar) : text.slice(bar + 1);
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

// has tells whether there is a text of that key; keys may come from a server
// that is newer than this page.
export const has = (key: string): key is Key => key in en;
