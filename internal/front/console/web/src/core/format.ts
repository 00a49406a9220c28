// Numbers, sizes, ages and times as text, in the viewer's language.
import { language } from './prefs.ts';

const formats = new Map<string, Intl.NumberFormat>();

function format(key: string, options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const id = language.get() + key;
  let f = formats.get(id);
  if (!f) formats.set(id, (f = new Intl.NumberFormat(language.get() === 'zh' ? 'zh-CN' : 'en', options)));
  return f;
}

// count shows every digit.
export const count = (n: number): string => format('c', { maximumFractionDigits: 0 }).format(n);

// short shows a number in at most five characters: 940, 12.4k, 1.25M.
export function short(n: number): string {
  const a = Math.abs(n);
  if (a < 10_000) return count(n);
  const [div, unit] = a < 1e6 ? [1e3, 'k'] : a < 1e9 ? [1e6, 'M'] : [1e9, 'G'];
  const v = n / div;
  return (v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2)).replace(/\.0+$/, '') + unit;
}

// tick shows a number at an axis, with no more digits than it has.
export function tick(n: number): string {
  const [div, unit] = n < 1e3 ? [1, ''] : n < 1e6 ? [1e3, 'k'] : n < 1e9 ? [1e6, 'M'] : [1e9, 'G'];
  return Number((n / div).toFixed(2)) + unit;
}

// rate shows a number per second.
export function rate(n: number): string {
  if (n > 0 && n < 10) return n < 0.05 ? '< 0.1' : n.toFixed(1);
  return short(Math.round(n));
}

const sizes = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(n: number): string {
  let i = 0;
  for (; n >= 1024 && i < sizes.length - 1; i++) n /= 1024;
  return (i === 0 || n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2)) + ' ' + sizes[i];
}

const units = { en: ['ms', 's', 'm', 'h', 'd'], zh: ['毫秒', '秒', '分', '小时', '天'] };

// span shows a length of time, given in seconds, with two units at most.
export function span(s: number): string {
  const u = units[language.get()];
  const one = (n: number | string, i: number): string => `${n}\u2009${u[i]}`;
  const both = (n: number, i: number, rest: number): string => (rest ? `${one(n, i)} ${one(rest, i - 1)}` : one(n, i));
  if (s < 0.0005) return one(0, 1);
  if (s < 0.01) return one((s * 1000).toFixed(1), 0);
  if (s < 1) return one(Math.round(s * 1000), 0);
  if (s < 60) return one(s < 10 ? Number(s.toFixed(1)) : Math.floor(s), 1);
  if (s < 3600) return both(Math.floor(s / 60), 2, Math.floor(s % 60));
  if (s < 86_400) return both(Math.floor(s / 3600), 3, Math.floor((s % 3600) / 60));
  return both(Math.floor(s / 86_400), 4, Math.floor((s % 86_400) / 3600));
}

const two = (n: number): string => String(n).padStart(2, '0');

// clock shows the time of day with milliseconds, and the date if it is not today.
export function clock(ms: number): string {
  const d = new Date(ms);
  const text = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, '0')}`;
  return d.toDateString() === new Date().toDateString() ? text : `${day(d)} ${text}`;
}

const day = (d: Date): string => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;

// stamp shows date and time to the second.
export function stamp(ms: number): string {
  const d = new Date(ms);
  return `${day(d)} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}
