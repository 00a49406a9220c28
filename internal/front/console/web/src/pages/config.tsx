// The settings of this node and where each comes from.
import { address, change, useGet } from '../core/api.ts';
import { language } from '../core/prefs.ts';
import { go, here, usePlace } from '../core/router.ts';
import { mayChange, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { Config, Setting } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { settingsZh } from '../i18n/settings.zh.ts';
import { act } from '../ui/ask.tsx';
import { Badge, Card, Choice, Cli, CopyButton, Empty, Fact, Head, SearchBox, Skeleton, Trouble, type Tone } from '../ui/parts.tsx';
import { Table, type Column } from '../ui/table.tsx';
import { useTitle } from './title.ts';

const tones: Record<Setting['origin'], Tone> = { default: '', file: 'accent', environment: 'accent', flag: 'accent', unknown: 'warn' };

export function ConfigPage() {
  useTitle(t('nav.config'));
  const me = useStore(self);
  const { query } = usePlace();
  const q = (query.get('q') ?? '').toLowerCase();
  const show = query.get('show') ?? 'all';
  const { data, error, reload } = useGet<Config>(address(['config']));
  const rows = (data?.settings ?? []).filter((s) => (show === 'all' || s.origin !== 'default') && (s.key + ' ' + s.flag + ' ' + s.help + ' ' + (settingsZh[s.key] ?? '') + ' ' + s.value).toLowerCase().includes(q));
  const options = [['all', t('config.all')], ['set', t('config.set')]] as const;
  return (
    <div class="page">
      <Head title={t('nav.config')} lead={t('config.lead', { node: me?.node ?? '' })} />
      {me && (
        <Card>
          <dl class="facts pad top">
            <Fact name={t('version')}>{me.version} <span class="faint">(NSQ {me.nsq_version})</span></Fact>
            <Fact name={t('config.platform')}>{me.platform} · {me.go_version}</Fact>
            <Fact name={t('config.file')}><span class="mono">{data?.file ?? t('config.noFile')}</span></Fact>
            <Fact name={t('config.level')}><Level /></Fact>
            {me.cluster && <Fact name={t('nav.cluster')}><span class="mono">{me.cluster}</span></Fact>}
          </dl>
        </Card>
      )}
      {error && <Trouble error={error} again={reload} />}
      <Card>
        <div class="bar">
          <SearchBox label={t('config.search')} value={query.get('q') ?? ''} onChange={(v) => go(here({ q: v }), true)} />
          <Choice label={t('config.which')} value={show as 'all' | 'set'} options={options} onChange={(v) => go(here({ show: v === 'all' ? null : v }), true)} />
        </div>
        {!data ? !error && <Skeleton /> : rows.length === 0 ? <Empty icon="config" title={t('nothing.found')} text={t('nothing.foundText')} /> : (
          <Table<Setting> label={t('nav.config')} columns={columns()} rows={rows} id={(s) => s.key} />
        )}
        <div class="bar"><div class="grow"><Cli line="tidings config show --origin" /></div></div>
      </Card>
    </div>
  );
}

const levels = ['debug', 'info', 'warn', 'error'];

// Level shows the level of the log and changes it, until the next start.
function Level() {
  const me = useStore(self);
  const { data, reload } = useGet<{ level: string }>(address(['log-level']));
  if (!data || !me) return <>–</>;
  if (!mayChange()) return <>{data.level}</>;
  const set = async (level: string) => {
    const http = (me.addresses.http ?? '127.0.0.1:4151').replace('0.0.0.0', '127.0.0.1');
    await act(() => change('PUT', address(['log-level']), { level }), t('config.levelSet', { node: me.node, level }), `curl -X PUT -d ${level} http://${http}/config/log_level`);
    reload();
  };
  return (
    <select class="select" aria-label={t('config.level')} value={data.level} onChange={(e) => set(e.currentTarget.value)}>
      {levels.map((l) => <option key={l} value={l}>{l}</option>)}
    </select>
  );
}

const shown = (v: string): string => (v === '' ? '–' : v);

// Help is what a setting does: the node tells it in English.
function Help({ s }: { s: Setting }) {
  const translated = language.get() === 'zh' ? settingsZh[s.key] : undefined;
  return <div class="faint" lang={translated ? undefined : 'en'}>{translated ?? s.help}</div>;
}

const Origin = ({ s }: { s: Setting }) => <Badge tone={tones[s.origin]}>{t(`origin.${s.origin}`)}</Badge>;

const columns = (): Column<Setting>[] => [
  { id: 'key', title: t('config.setting'), cell: (s) => (
    <div>
      <div class="row wrap"><span class="mono">{s.key}</span><span class="only-s"><Origin s={s} /></span></div>
      <Help s={s} />
      <code class="only-s">{shown(s.value)}</code>
    </div>
  ) },
  { id: 'value', title: t('config.value'), hide: 'hide-s', cell: (s) => <code class={s.origin === 'default' ? 'muted' : ''}>{shown(s.value)}</code> },
  { id: 'origin', title: t('config.origin'), hide: 'hide-s', cell: (s) => <Origin s={s} /> },
  { id: 'default', title: t('config.default'), hide: 'hide-m', cell: (s) => <code class="faint">{shown(s.default)}</code> },
  { id: 'flag', title: t('config.flag'), hide: 'hide-l', cell: (s) => <span class="row"><code class="nowrap">{s.flag}</code><CopyButton text={s.env} label={t('config.copyEnv', { env: s.env })} /></span> },
];
