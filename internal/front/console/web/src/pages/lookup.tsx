// Where this node is registered, and who is found through it.
import { address, useGet } from '../core/api.ts';
import { count, span } from '../core/format.ts';
import { serverNow } from '../core/live.ts';
import { cli, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { Lookup } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Badge, Card, Empty, Fact, Head, Skeleton, Trouble } from '../ui/parts.tsx';
import { Table, type Column } from '../ui/table.tsx';
import { useTitle } from './title.ts';

type Upstream = Lookup['lookupds'][number];
type Producer = Lookup['producers'][number];

export function LookupPage() {
  useTitle(t('nav.lookup'));
  const me = useStore(self);
  const { data, error, reload } = useGet<Lookup>(address(['lookup']), 5000);
  return (
    <div class="page">
      <Head title={t('nav.lookup')} lead={t('lookup.lead')} />
      {error && <Trouble error={error} again={reload} />}
      {!data ? !error && <Card><Skeleton /></Card> : (
        <>
          <Card title={t('lookup.here')} end={<Badge tone={data.served ? 'good' : ''} dot>{t(data.served ? 'lookup.served' : 'lookup.notServed')}</Badge>}>
            {data.served && (
              <dl class="facts pad">
                <Fact name="TCP"><span class="mono">{me?.addresses.lookup_tcp || '–'}</span></Fact>
                <Fact name="HTTP"><span class="mono">{me?.addresses.lookup_http || '–'}</span></Fact>
              </dl>
            )}
            {data.producers.length === 0 ? <Empty icon="lookup" title={t('lookup.nobody')} text={t('lookup.nobodyText')} /> : (
              <Table<Producer> label={t('lookup.here')} columns={producers()} rows={data.producers} id={(p) => `${p.broadcast_address}:${p.tcp_port}/${p.remote_address ?? ''}`} />
            )}
            {data.producers_total > data.producers.length && <div class="pager">{t('lookup.more', { n: data.producers_total - data.producers.length })}</div>}
          </Card>
          <Card title={t('lookup.elsewhere')}>
            {data.lookupds.length === 0 ? (
              <Empty icon="lookup" title={t('lookup.none')} text={t('lookup.noneText')} cli={cli('serve', '--lookupd-tcp-address', 'HOST:4160').replace(/ --server.*/, '')} />
            ) : (
              <Table<Upstream> label={t('lookup.elsewhere')} columns={upstreams()} rows={data.lookupds} id={(l) => l.address} />
            )}
          </Card>
        </>
      )}
    </div>
  );
}

const producers = (): Column<Producer>[] => [
  { id: 'host', title: t('lookup.host'), cell: (p) => <span class="name">{p.hostname}<Badge tone={p.member ? 'accent' : ''}>{t(p.member ? 'lookup.member' : 'lookup.registered')}</Badge></span> },
  { id: 'address', title: t('consumer.address'), cell: (p) => <span class="mono">{p.broadcast_address}:{p.tcp_port}</span> },
  { id: 'http', title: 'HTTP', num: true, hide: 'hide-s', cell: (p) => <span class="mono">{p.http_port}</span> },
  { id: 'topics', title: t('nav.topics'), num: true, hide: 'hide-s', cell: (p) => (p.topics === undefined ? '–' : count(p.topics)) },
  { id: 'version', title: t('version'), hide: 'hide-m', cell: (p) => p.version },
  { id: 'ping', title: t('lookup.ping'), num: true, hide: 'hide-m', cell: (p) => (p.last_ping_at ? t('ago', { span: span((serverNow() - p.last_ping_at) / 1000) }) : '–') },
  { id: 'tombstones', title: t('lookup.tombstones'), hide: 'hide-l', cell: (p) => (p.tombstones ?? []).join(', ') || '–' },
];

const upstreams = (): Column<Upstream>[] => [
  { id: 'address', title: t('consumer.address'), cell: (l) => <span class="mono">{l.address}</span> },
  { id: 'state', title: t('node.state'), cell: (l) => <Badge tone={l.connected ? 'good' : 'bad'} dot>{t(l.connected ? 'lookup.connected' : 'lookup.broken')}</Badge> },
  { id: 'version', title: t('version'), hide: 'hide-s', cell: (l) => l.version || '–' },
  { id: 'error', title: t('lookup.why'), cell: (l) => <span class="bad-text">{l.error}</span> },
];
