// The channels of all topics, the way to a stuck one.
import { address, useGet } from '../core/api.ts';
import { go, here, usePlace } from '../core/router.ts';
import { cli, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { ChannelRow, Page } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Card, Empty, Head, MissingNote, SearchBox, Skeleton, Trouble } from '../ui/parts.tsx';
import { Pager, Table } from '../ui/table.tsx';
import { channelColumns, channelUrl } from './columns.tsx';
import { useTitle } from './title.ts';
import { StateFilter } from './topics.tsx';

export const channelStates = ['stuck', 'backlog', 'no_consumer', 'paused', 'ephemeral'];

export function ChannelsPage() {
  useTitle(t('nav.channels'));
  useStore(self);
  const { query } = usePlace();
  const params = {
    q: query.get('q') ?? '', sort: query.get('sort') ?? '-backlog', state: query.get('state') ?? '',
    limit: 50, cursor: query.get('cursor') ?? '',
  };
  const page = useGet<Page<ChannelRow>>(address(['channels'], params), 2000);
  const rows = page.data?.items ?? [];
  return (
    <div class="page">
      <Head title={t('nav.channels')} />
      <MissingNote missing={page.data?.missing} />
      <Card>
        <div class="bar">
          <SearchBox label={t('channels.search')} value={params.q} onChange={(v) => go(here({ q: v, cursor: null, at: null }), true)} />
          <StateFilter states={channelStates} value={params.state} />
        </div>
        {page.error && !page.data ? <Trouble error={page.error} again={page.reload} />
          : !page.data ? <Skeleton />
          : rows.length === 0 ? (
            params.q || params.state ? <Empty icon="search" title={t('nothing.found')} text={t('nothing.foundText')} />
              : <Empty icon="empty" title={t('channels.none')} text={t('channels.noneText')} cli={cli('sub', 'orders', '-C', 'audit', '--follow')} />
          ) : (
            <>
              <Table<ChannelRow> label={t('nav.channels')} columns={channelColumns(true)} rows={rows} id={(r) => r.topic + '/' + r.name} href={(r) => channelUrl(r.topic, r.name)} sort={params.sort} />
              <Pager total={page.data.total} shown={rows.length} next={page.data.next} cursor={params.cursor} at={Number(query.get('at') ?? 0)} />
            </>
          )}
      </Card>
    </div>
  );
}
