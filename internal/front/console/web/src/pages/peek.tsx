// Looking into a channel without taking anything.
import { address, useGet } from '../core/api.ts';
import { go, here, usePlace } from '../core/router.ts';
import { cli } from '../core/self.ts';
import type { MessagePage } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Messages } from '../ui/message.tsx';
import { Card, Cli, Empty, MissingNote, Skeleton, Trouble } from '../ui/parts.tsx';

export function Peek({ topic, channel, state }: { topic: string; channel: string; state: 'queued' | 'in_flight' | 'deferred' }) {
  const { query } = usePlace();
  const cursor = query.get('cursor') ?? '';
  const opened = query.get('opened') ?? '';
  // An open message stays: the list rests while one reads.
  const page = useGet<MessagePage>(address(['topics', topic, 'channels', channel, 'messages'], { state, limit: 50, cursor }), opened ? 0 : 2000);
  const data = page.data;
  return (
    <Card>
      <div class="bar">
        <p class="muted grow">{t(`peek.${state}`)}</p>
      </div>
      <MissingNote missing={data?.missing} />
      {page.error ? <Trouble error={page.error} again={page.reload} />
        : !data ? <Skeleton />
        : data.items.length === 0 ? <Empty icon="ok" title={t(`peek.none.${state}`)} text={data.note && <span lang="en">{data.note}</span>} />
        : <Messages topic={topic} items={data.items} opened={opened} onOpen={(id) => go(here({ opened: id }), true)} />}
      {data && (data.items.length > 0 || cursor) && (
        <div class="pager">
          <span>{data.note && <span lang="en">{data.note} </span>}{t('browse.shown', { n: data.items.length })}</span>
          <span class="end">
            {cursor && <a class="button small" href={here({ cursor: null, opened: null })} data-own>{t('pager.first')}</a>}
            {data.next && <a class="button small" href={here({ cursor: data.next, opened: null })} data-own>{t('pager.next')}</a>}
          </span>
        </div>
      )}
      <div class="bar"><div class="grow"><Cli line={cli('channel', 'peek', topic, channel, ...(state === 'queued' ? [] : ['--state', state]))} /></div></div>
    </Card>
  );
}
