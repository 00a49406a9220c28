// Who takes a channel's messages.
import { address, useGet } from '../core/api.ts';
import { count, short, span } from '../core/format.ts';
import { serverNow } from '../core/live.ts';
import { go, here, url, usePlace } from '../core/router.ts';
import { cli } from '../core/self.ts';
import type { Consumer, Page } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Badge, Card, Empty, MissingNote, SearchBox, Skeleton, Trouble } from '../ui/parts.tsx';
import { Pager, Table, type Column } from '../ui/table.tsx';

const columns = (): Column<Consumer>[] => [
  {
    id: 'client', title: t('consumer.client'), sorts: true,
    cell: (c) => (
      <span class="name wrap">
        <span title={c.hostname}>{c.client_id || c.hostname}</span>
        {c.tls && <Badge tone="good">TLS</Badge>}
        {c.compression && <Badge>{c.compression}</Badge>}
        {!!c.sample_rate && <Badge>{c.sample_rate} %</Badge>}
      </span>
    ),
  },
  { id: 'address', title: t('consumer.address'), sorts: true, hide: 'hide-m', cell: (c) => <span class="mono">{c.remote_address}</span> },
  { id: 'node', title: t('node'), sorts: true, hide: 'hide-m', cell: (c) => <a href={url(['nodes', c.node])} data-own>{c.node}</a> },
  { id: 'ready', title: t('consumer.ready'), num: true, sorts: true, hint: t('hint.ready'), cell: (c) => count(c.ready), tone: (c) => (c.ready === 0 ? 'warn' : '') },
  { id: 'in_flight', title: t('inFlight'), num: true, sorts: true, cell: (c) => count(c.in_flight), tone: (c) => (c.in_flight ? '' : 'zero') },
  { id: 'finished', title: t('consumer.finished'), num: true, sorts: true, cell: (c) => short(c.finished_total), tone: (c) => (c.finished_total ? '' : 'zero') },
  { id: 'requeued', title: t('requeued'), num: true, sorts: true, hide: 'hide-s', cell: (c) => short(c.requeued_total), tone: (c) => (c.requeued_total ? '' : 'zero') },
  { id: 'timed_out', title: t('timedOut'), num: true, sorts: true, hide: 'hide-s', cell: (c) => short(c.timed_out_total), tone: (c) => (c.timed_out_total ? 'warn' : 'zero') },
  { id: 'connected', title: t('consumer.since'), num: true, sorts: true, hide: 'hide-l', cell: (c) => span((serverNow() - c.connected_at) / 1000) },
  { id: 'agent', title: t('consumer.agent'), hide: 'hide-l', cell: (c) => <span class="muted">{c.user_agent || '–'}</span> },
];

export function Consumers({ topic, channel }: { topic: string; channel: string }) {
  const { query } = usePlace();
  const q = query.get('q') ?? '';
  const sort = query.get('sort') ?? 'connected';
  const cursor = query.get('cursor') ?? '';
  const page = useGet<Page<Consumer>>(address(['topics', topic, 'channels', channel, 'consumers'], { q, sort, cursor, limit: 50 }), 2000);
  const rows = page.data?.items ?? [];
  return (
    <Card>
      <div class="bar">
        <SearchBox label={t('consumers.search')} value={q} onChange={(v) => go(here({ q: v, cursor: null, at: null }), true)} />
      </div>
      <MissingNote missing={page.data?.missing} />
      {page.error && !page.data ? <Trouble error={page.error} again={page.reload} />
        : !page.data ? <Skeleton />
        : rows.length === 0 ? (
          q ? <Empty icon="search" title={t('nothing.found')} text={t('nothing.foundText')} />
            : <Empty icon="nodes" title={t('consumers.none')} text={t('consumers.noneText')} cli={cli('sub', topic, '-C', channel, '--follow')} />
        ) : (
          <>
            <Table<Consumer> label={t('consumers')} columns={columns()} rows={rows} id={(c) => c.id} sort={sort} />
            <Pager total={page.data.total} shown={rows.length} next={page.data.next} cursor={cursor} at={Number(query.get('at') ?? 0)} />
          </>
        )}
    </Card>
  );
}
