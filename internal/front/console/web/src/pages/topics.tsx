// All topics: sorted, filtered and cut by the server.
import { useRef, useState } from 'preact/hooks';
import { address, change, useGet } from '../core/api.ts';
import { useWatch } from '../core/live.ts';
import { go, here, usePlace } from '../core/router.ts';
import { cli, mayChange, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { Page, TopicRow, TopicRows } from '../core/types.ts';
import { t, type Key } from '../i18n/index.ts';
import { act, show } from '../ui/ask.tsx';
import { Icon } from '../ui/icons.tsx';
import { Card, Cli, Empty, Head, MissingNote, SearchBox, Skeleton, Trouble } from '../ui/parts.tsx';
import { Pager, Table } from '../ui/table.tsx';
import { topicColumns, topicUrl } from './columns.tsx';
import { useTitle } from './title.ts';

const LIMIT = 50;
const HOLD = 2500; // ms after the last move of the pointer over the rows

// useHold tells whether the viewer is about to point at something, and takes
// the moves of the pointer.
function useHold(): [boolean, () => void] {
  const [held, set] = useState(false);
  const timer = useRef(0);
  const move = () => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => set(false), HOLD);
    set(true);
  };
  return [held, move];
}

// useOrder gives the names in order. While they are held they stay where they
// are, and new ones come at the end: nothing moves away under the pointer.
function useOrder(watch: string, data: TopicRows | null, held: boolean): string[] {
  const last = useRef({ watch: '', order: [] as string[] });
  if (!data) return [];
  let order = data.order;
  if (held && last.current.watch === watch) {
    const stay = last.current.order.filter((n) => data.rows[n]);
    order = [...stay, ...data.order.filter((n) => !stay.includes(n))];
  }
  last.current = { watch, order };
  return order;
}

const states = ['backlog', 'no_consumer', 'no_channel', 'paused', 'ephemeral'];

export function TopicsPage() {
  useTitle(t('nav.topics'));
  useStore(self);
  const { query } = usePlace();
  const params = {
    q: query.get('q') ?? '', sort: query.get('sort') ?? 'name', state: query.get('state') ?? '',
    limit: LIMIT, cursor: query.get('cursor') ?? '',
  };
  const page = useGet<Page<TopicRow>>(address(['topics'], params));
  const q = new URLSearchParams(Object.entries(params).filter(([, v]) => v !== '').map(([k, v]) => [k, String(v)]));
  const watch = 'topics?' + q;
  const live = useWatch<TopicRows>(watch);
  const [held, hold] = useHold();
  const order = useOrder(watch, live.data, held);
  const rows = live.data ? order.map((n) => live.data!.rows[n]!) : (page.data?.items ?? []);
  const total = live.data?.total ?? page.data?.total ?? 0;
  const filtered = params.q !== '' || params.state !== '';
  return (
    <div class="page">
      <Head title={t('nav.topics')} actions={mayChange() && <CreateTopic />} />
      <MissingNote missing={live.data?.missing ?? page.data?.missing} />
      <Card>
        <div class="bar">
          <SearchBox label={t('topics.search')} value={params.q} onChange={(v) => go(here({ q: v, cursor: null, at: null }), true)} />
          <StateFilter states={states} value={params.state} />
        </div>
        {page.error && !live.data ? <Trouble error={page.error} again={page.reload} />
          : !page.data && !live.data ? <Skeleton />
          : rows.length === 0 ? (
            filtered ? <Empty icon="search" title={t('nothing.found')} text={t('nothing.foundText')} />
              : <Empty icon="topics" title={t('first.title')} text={t('first.text')} cli={cli('pub', 'orders', 'hello')} />
          ) : (
            <div onPointerMove={hold}>
              <Table<TopicRow> label={t('nav.topics')} columns={topicColumns()} rows={rows} id={(r) => r.name} href={(r) => topicUrl(r.name)} sort={params.sort} />
              <Pager total={total} shown={rows.length} next={page.data?.next} cursor={params.cursor} at={Number(query.get('at') ?? 0)} />
            </div>
          )}
      </Card>
    </div>
  );
}

export function StateFilter({ states: list, value }: { states: string[]; value: string }) {
  return (
    <select class="select" aria-label={t('filter.state')} value={value} onChange={(e) => go(here({ state: e.currentTarget.value, cursor: null, at: null }), true)}>
      <option value="">{t('filter.any')}</option>
      {list.map((s) => (
        <option key={s} value={s}>{t(`filter.${s}` as Key)}</option>
      ))}
    </select>
  );
}

// NameForm asks for the name of something new.
export function NameForm(p: { title: string; example: string; line: (name: string) => string; make: (name: string) => void; close: () => void }) {
  const [name, set] = useState('');
  const good = /^[.a-zA-Z0-9_-]{1,64}$|^[.a-zA-Z0-9_-]{1,54}#ephemeral$/.test(name);
  return (
    <form onSubmit={(e) => { e.preventDefault(); if (good) p.make(name); }}>
      <h2>{p.title}</h2>
      <label class="field">
        <span>{t('name')} <span class="hint">{t('name.rule')}</span></span>
        <input class="input mono" value={name} placeholder={p.example} maxLength={64} autofocus autocomplete="off" spellcheck={false} aria-invalid={name !== '' && !good} onInput={(e) => set(e.currentTarget.value)} />
      </label>
      <div class="field">
        <span>{t('cli.equal')}</span>
        <Cli line={p.line(name || p.example)} />
      </div>
      <div class="buttons">
        <button type="button" class="button" onClick={p.close}>{t('cancel')}</button>
        <button type="submit" class="button primary" disabled={!good}>{t('create')}</button>
      </div>
    </form>
  );
}

function CreateTopic() {
  const open = () =>
    show(t('topics.create'), (close) => (
      <NameForm
        title={t('topics.create')}
        example="orders"
        close={close}
        line={(name) => cli('topic', 'create', name)}
        make={(name) => {
          close();
          void create(name);
        }}
      />
    ));
  return (
    <button type="button" class="button primary" onClick={open}>
      <Icon name="plus" />
      {t('topics.create')}
    </button>
  );
}

async function create(name: string): Promise<void> {
  await act(() => change('POST', address(['topics']), { name }), t('topics.created', { name }), cli('topic', 'create', name));
  go(topicUrl(name));
}

