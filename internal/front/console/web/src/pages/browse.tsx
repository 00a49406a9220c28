// Reading a topic's log: by offset or time, or searched.
import { useEffect, useState } from 'preact/hooks';
import { address, useGet } from '../core/api.ts';
import { bytes, count } from '../core/format.ts';
import { go, here, usePlace } from '../core/router.ts';
import { cli } from '../core/self.ts';
import type { MessagePage } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Icon } from '../ui/icons.tsx';
import { Messages } from '../ui/message.tsx';
import { Card, Choice, Cli, Empty, MissingNote, SearchBox, Skeleton, Trouble } from '../ui/parts.tsx';

type From = 'latest' | 'earliest' | 'offset' | 'time';

const LIMIT = 50;

// local gives a time for <input type="datetime-local">, in this time zone.
function local(ms: number): string {
  const d = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return d.toISOString().slice(0, 19);
}

export function Browse({ topic, partitions, ephemeral }: { topic: string; partitions: number; ephemeral: boolean }) {
  const { query } = usePlace();
  const find = query.get('search') ?? '';
  const asked = (query.get('from') ?? 'latest') as From;
  const from = find && asked === 'latest' ? 'earliest' : asked; // a search goes forward: there is nothing behind the latest
  const partition = query.get('partition') ?? '';
  const cursor = query.get('cursor') ?? '';
  const before = query.get('before') ?? '';
  const at = query.get('offset') ?? '0';
  const time = query.get('time') ?? '';
  const scan = query.get('scan') ?? '10000';
  const params = {
    partition: partition || (from === 'offset' ? '0' : ''),
    from: from === 'earliest' || from === 'latest' ? from : '',
    offset: from === 'offset' ? at : '', time: from === 'time' ? time : '',
    search: find, scan: find ? scan : '', limit: LIMIT, cursor, before,
  };
  const page = useGet<MessagePage>(ephemeral ? null : address(['topics', topic, 'messages'], params));
  if (ephemeral) return <Card><Empty icon="topics" title={t('browse.ephemeral')} text={t('browse.ephemeralText')} cli={cli('topic', 'tail', topic)} /></Card>;
  const set = (change: Record<string, string | number | null>) => go(here({ cursor: null, before: null, opened: null, ...change }), true);
  const starts = [...(find ? [] : [['latest', t('from.latest')] as const]), ['earliest', t('from.earliest')], ['offset', t('from.offset')], ['time', t('from.time')]] as const;
  const data = page.data;
  const newestFirst = from === 'latest';
  return (
    <Card>
      <div class="bar">
        <div class="field">
          <span>{t('browse.from')}</span>
          <Choice<From> label={t('browse.from')} value={from} options={starts} onChange={(v) => set({ from: v, ...(v === 'time' && !time ? { time: Date.now() - 600_000 } : {}) })} />
        </div>
        {from === 'offset' && <NumberField label={t('from.offset')} value={at} onChange={(v) => set({ offset: v })} />}
        {from === 'time' && (
          <label class="field">
            <span>{t('from.time')}</span>
            <input class="input" type="datetime-local" step={1} value={local(Number(time) || Date.now())} onChange={(e) => set({ time: new Date(e.currentTarget.value).getTime() || null })} />
          </label>
        )}
        {partitions > 1 && (
          <label class="field">
            <span>{t('partition')}</span>
            <select class="select" value={partition} onChange={(e) => set({ partition: e.currentTarget.value })}>
              <option value="">{t('all')}</option>
              {Array.from({ length: partitions }, (_, i) => <option key={i} value={String(i)}>{i}</option>)}
            </select>
          </label>
        )}
        <div class="field">
          <span>{t('browse.search')}</span>
          <SearchBox label={t('browse.searchHint')} value={find} onChange={(v) => set({ search: v })} />
        </div>
        {find && (
          <label class="field">
            <span>{t('browse.scan')}</span>
            <select class="select" value={scan} onChange={(e) => set({ scan: e.currentTarget.value })}>
              {['1000', '10000', '100000'].map((n) => <option key={n} value={n}>{count(Number(n))}</option>)}
            </select>
          </label>
        )}
        <div class="end">
          <button type="button" class="button" onClick={page.reload}><Icon name="refresh" />{t('reload')}</button>
        </div>
      </div>
      <MissingNote missing={data?.missing} />
      {page.error ? <Trouble error={page.error} again={page.reload} />
        : !data ? <Skeleton />
        : data.items.length === 0 && data.gaps.length === 0 ? <Nothing topic={topic} find={find} data={data} />
        : <Messages topic={topic} items={newestFirst ? data.items.toReversed() : data.items} gaps={data.gaps} find={find} opened={query.get('opened') ?? ''} onOpen={(id) => go(here({ opened: id }), true)} />}
      {data && <Foot data={data} find={find} away={cursor + before !== ''} newestFirst={newestFirst} />}
      <div class="bar"><div class="grow"><Cli line={cli('topic', 'peek', topic, ...peek(from, at, time, params.partition, find))} /></div></div>
    </Card>
  );
}

// peek are the flags of the equal command.
function peek(from: From, at: string, time: string, partition: string, find: string): string[] {
  const out: string[] = [];
  if (partition) out.push('--partition', partition);
  if (from === 'offset') out.push('--offset', at);
  if (from === 'time' && time) out.push('--time', new Date(Number(time)).toISOString());
  if (from === 'latest') out.push('--from', 'latest');
  if (find) out.push('--search', find);
  return out;
}

function NumberField({ label, value, onChange }: { label: string; value: string; onChange: (v: string) => void }) {
  const [typed, set] = useState(value);
  useEffect(() => set(value), [value]);
  return (
    <label class="field">
      <span>{label}</span>
      <input class="input mono" inputMode="numeric" size={10} value={typed} onInput={(e) => set(e.currentTarget.value.replace(/\D/g, ''))} onChange={() => onChange(typed || '0')} />
    </label>
  );
}

function Nothing({ topic, find, data }: { topic: string; find: string; data: MessagePage }) {
  if (!find) return <Empty icon="topics" title={t('browse.none')} text={t('browse.noneText')} cli={cli('pub', topic, 'hello')} />;
  return (
    <Empty icon="search" title={t('browse.notFound')} text={t(data.scanned.complete ? 'browse.notFoundAll' : 'browse.notFoundYet', { n: data.scanned.records, count: count(data.scanned.records), size: bytes(data.scanned.bytes) })} />
  );
}

// Foot leads to the pages beside this one: older and newer where the newest stand
// first, previous and next elsewhere.
function Foot({ data, find, away, newestFirst }: { data: MessagePage; find: string; away: boolean; newestFirst: boolean }) {
  const back = data.prev && <a class="button small" href={here({ before: data.prev, cursor: null, opened: null })} data-own>{t(newestFirst ? 'browse.older' : find ? 'browse.back' : 'pager.prev')}</a>;
  const on = data.next && !data.scanned.complete && (
    <a class="button small" href={here({ cursor: data.next, before: null, opened: null })} data-own>{t(newestFirst ? 'browse.newer' : find ? 'browse.onward' : 'pager.next')}</a>
  );
  return (
    <div class="pager">
      <span>
        {data.note && <span lang="en">{data.note} </span>}
        {find ? t('browse.scanned', { n: data.scanned.records, count: count(data.scanned.records), found: data.items.length }) : t('browse.shown', { n: data.items.length })}
      </span>
      <span class="end">
        {away && <a class="button small" href={here({ cursor: null, before: null, opened: null })} data-own>{t(newestFirst ? 'from.latest' : 'pager.first')}</a>}
        {newestFirst ? [on, back] : [back, on]}
      </span>
    </div>
  );
}
