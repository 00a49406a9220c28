// Following a topic as it grows, without being a consumer.
import { useEffect, useRef, useState } from 'preact/hooks';
import { address, useGet } from '../core/api.ts';
import { count } from '../core/format.ts';
import { go, here, usePlace } from '../core/router.ts';
import { cli, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { Message, Page, TailBatch, TopicRow } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Icon } from '../ui/icons.tsx';
import { Messages } from '../ui/message.tsx';
import { Badge, Card, Cli, Empty, Head, SearchBox } from '../ui/parts.tsx';
import { useTitle } from './title.ts';

const KEPT = 500; // messages that stay on the page

type State = 'connecting' | 'on' | 'paused' | 'off';

interface Tail {
  items: Message[]; // newest first
  seen: number;
  leftOut: number;
  state: State;
}

const nothing: Tail = { items: [], seen: 0, leftOut: 0, state: 'connecting' };

// useTail follows a topic while the page is seen and the viewer lets it run.
function useTail(topic: string, search: string, running: boolean): [Tail, () => void] {
  const [tail, set] = useState<Tail>(nothing);
  const [seen, look] = useState(!document.hidden);
  useEffect(() => {
    const change = () => look(!document.hidden);
    document.addEventListener('visibilitychange', change);
    return () => document.removeEventListener('visibilitychange', change);
  }, []);
  useEffect(() => set(nothing), [topic, search]);
  useEffect(() => {
    if (!topic) return;
    if (!running || !seen) {
      set((x) => ({ ...x, state: 'paused' }));
      return;
    }
    set((x) => ({ ...x, state: 'connecting' }));
    let source: EventSource;
    let timer = 0;
    const open = () => {
      source = new EventSource(address(['topics', topic, 'tail'], { search, max_body: 4096 }));
      source.onopen = () => set((x) => ({ ...x, state: 'on' }));
      source.onerror = () => {
        source.close();
        set((x) => ({ ...x, state: 'off' }));
        timer = window.setTimeout(open, 2000);
      };
      source.addEventListener('messages', (e) => {
        const batch = JSON.parse((e as MessageEvent<string>).data) as TailBatch;
        set((x) => ({
          state: 'on',
          items: [...batch.items.slice().reverse(), ...x.items].slice(0, KEPT),
          seen: x.seen + batch.items.length,
          leftOut: x.leftOut + batch.left_out,
        }));
      });
    };
    open();
    return () => {
      clearTimeout(timer);
      source.close();
    };
  }, [topic, search, running, seen]);
  return [tail, () => set((x) => ({ ...nothing, state: x.state }))];
}

export function TailPage() {
  const { query } = usePlace();
  const topic = query.get('topic') ?? '';
  const search = query.get('search') ?? '';
  const [running, run] = useState(true);
  const [opened, open] = useState('');
  useTitle(t('nav.tail'), ...(topic ? [topic] : []));
  useStore(self);
  const [tail, clear] = useTail(topic, search, running && !opened);
  const tone = tail.state === 'on' ? 'good' : tail.state === 'off' ? 'bad' : 'warn';
  return (
    <div class="page">
      <Head title={t('nav.tail')} lead={t('tail.lead')} badges={topic && <Badge tone={tone} dot>{t(`live.${tail.state}`)}</Badge>} />
      <Card>
        <div class="bar">
          <Pick topic={topic} />
          {topic && (
            <>
              <div class="field"><span>{t('browse.search')}</span><SearchBox label={t('browse.searchHint')} value={search} onChange={(v) => go(here({ search: v }), true)} /></div>
              <div class="end">
                <span class="faint">{t('tail.seen', { n: tail.seen, count: count(tail.seen) })}{tail.leftOut > 0 && ' · ' + t('tail.leftOut', { n: tail.leftOut, count: count(tail.leftOut) })}</span>
                <button type="button" class="button" onClick={() => run(!running)}><Icon name={running ? 'pause' : 'play'} />{t(running ? 'tail.hold' : 'tail.go')}</button>
                <button type="button" class="button" onClick={clear}>{t('tail.clear')}</button>
              </div>
            </>
          )}
        </div>
        {!topic ? <Empty icon="tail" title={t('tail.none')} text={t('tail.noneText')} cli={cli('topic', 'tail', 'orders')} />
          : tail.items.length === 0 ? <Empty icon="tail" title={t('tail.waiting')} text={t('tail.waitingText')} cli={cli('pub', topic, 'hello')} />
          : <div class="tail"><Messages topic={topic} items={tail.items} find={search} opened={opened} onOpen={open} /></div>}
        {topic && <div class="bar"><div class="grow"><Cli line={cli('topic', 'tail', topic, ...(search ? ['--search', search] : []))} /></div></div>}
      </Card>
    </div>
  );
}

// Pick chooses a topic; the server proposes names.
function Pick({ topic }: { topic: string }) {
  const [typed, set] = useState(topic);
  const timer = useRef(0);
  const [part, look] = useState(topic);
  useEffect(() => set(topic), [topic]);
  const names = useGet<Page<TopicRow>>(address(['topics'], { q: part, limit: 20, sort: part ? 'name' : '-in_rate' }));
  const list = names.data?.items.map((x) => x.name) ?? [];
  const type = (v: string) => {
    set(v);
    clearTimeout(timer.current);
    if (list.includes(v)) return go(here({ topic: v }), true);
    timer.current = window.setTimeout(() => look(v), 200);
  };
  return (
    <label class="field">
      <span>{t('topic')}</span>
      <input class="input mono" list="topics" value={typed} placeholder="orders" autocomplete="off" spellcheck={false} onInput={(e) => type(e.currentTarget.value)} onChange={() => go(here({ topic: typed }), true)} />
      <datalist id="topics">{list.map((n) => <option key={n} value={n} />)}</datalist>
    </label>
  );
}

