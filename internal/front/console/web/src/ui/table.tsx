// Tables: sorted and paged by the address, walked with j and k.
import type { ComponentChildren } from 'preact';
import { count } from '../core/format.ts';
import { go, here } from '../core/router.ts';
import { t } from '../i18n/index.ts';
import { Icon } from './icons.tsx';

export interface Column<T> {
  id: string; // also the name that the server sorts by, if it does
  title: string;
  num?: boolean;
  sorts?: boolean;
  hide?: 'hide-s' | 'hide-m' | 'hide-l';
  cell: (row: T) => ComponentChildren;
  tone?: (row: T) => string; // class of the cell
  hint?: string;
}

export interface TableProps<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T) => string;
  href?: (row: T) => string;
  sort?: string; // as in the address: NAME or -NAME
  sortKey?: string; // name of the query's member
}

export function Table<T>(p: TableProps<T>) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={p.label}>
      <table>
        <thead>
          <tr>
            {p.columns.map((c) => (
              <HeadCell key={c.id} column={c} sort={p.sort} sortKey={p.sortKey ?? 'sort'} />
            ))}
          </tr>
        </thead>
        <tbody>
          {p.rows.map((row) => (
            <tr key={p.id(row)} data-row class={p.href ? 'to' : ''} onClick={p.href && ((e) => open(e, p.href!(row)))}>
              {p.columns.map((c) => (
                <td key={c.id} class={[c.num ? 'num' : '', c.hide ?? '', c.tone?.(row) ?? ''].join(' ').trim() || undefined}>
                  {c.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function open(e: MouseEvent, to: string): void {
  if ((e.target as Element).closest('a, button, input')) return;
  if (getSelection()?.toString()) return; // somebody marks text
  go(to);
}

function HeadCell<T>({ column: c, sort, sortKey }: { column: Column<T>; sort?: string; sortKey: string }) {
  const name = sort?.replace(/^-/, '');
  const down = sort?.startsWith('-');
  const mine = c.sorts && name === c.id;
  const cls = [c.num ? 'num' : '', c.hide ?? ''].join(' ').trim() || undefined;
  if (!c.sorts || sort === undefined) return <th class={cls} scope="col" title={c.hint}>{c.title}</th>;
  const next = mine ? (down ? c.id : '-' + c.id) : c.num ? '-' + c.id : c.id;
  return (
    <th class={cls} scope="col" aria-sort={mine ? (down ? 'descending' : 'ascending') : undefined} title={c.hint}>
      <a href={here({ [sortKey]: next, cursor: null, at: null })} data-own data-replace>
        {c.title}
        {mine && <Icon name={down ? 'down' : 'up'} />}
      </a>
    </th>
  );
}

// back remembers which page a cursor was reached from.
const back = new Map<string, string>();

export interface PagerProps {
  total: number;
  shown: number;
  next?: string;
  cursor: string; // of this page; empty: the first
  at: number; // rows before this page
}

export function Pager(p: PagerProps) {
  if (p.total <= p.shown && !p.cursor) {
    return <div class="pager">{t('pager.all', { n: p.total, count: count(p.total) })}</div>;
  }
  const nextUrl = p.next && here({ cursor: p.next, at: p.at + p.shown });
  if (nextUrl) back.set(nextUrl, here({}));
  const prev = back.get(here({}));
  return (
    <div class="pager">
      <span>{t('pager.some', { first: count(p.at + 1), last: count(p.at + p.shown), count: count(p.total) })}</span>
      <span class="end">
        {p.cursor && <a class="button small" href={here({ cursor: null, at: null })} data-own>{t('pager.first')}</a>}
        {prev && p.cursor && <a class="button small" href={prev} data-own>{t('pager.prev')}</a>}
        {nextUrl && <a class="button small" href={nextUrl} data-own>{t('pager.next')}</a>}
      </span>
    </div>
  );
}

// sorted sorts rows that are all here, by a column's value.
export function sorted<T>(rows: T[], sort: string, value: (row: T, id: string) => string | number | null | undefined): T[] {
  const down = sort.startsWith('-');
  const id = sort.replace(/^-/, '');
  const order = (a: T, b: T): number => {
    const x = value(a, id) ?? -1;
    const y = value(b, id) ?? -1;
    if (typeof x === 'string' || typeof y === 'string') return String(x).localeCompare(String(y));
    return x - y;
  };
  return [...rows].sort((a, b) => (down ? order(b, a) : order(a, b)));
}
