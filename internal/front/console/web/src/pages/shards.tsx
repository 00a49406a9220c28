// The shards: who leads, who is behind, and moving a leader.
import { useState } from 'preact/hooks';
import { address, change } from '../core/api.ts';
import { bytes, count, span } from '../core/format.ts';
import { serverNow, useWatch } from '../core/live.ts';
import { url } from '../core/router.ts';
import { adminCli, mayChange, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { NodeState, Replica, Shard } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { act, show } from '../ui/ask.tsx';
import { Icon } from '../ui/icons.tsx';
import { Badge, Card, Cli, Dot, Figure, Figures, Head, MissingNote, Skeleton } from '../ui/parts.tsx';
import { Table, type Column } from '../ui/table.tsx';
import { useTitle } from './title.ts';

export function ShardsPage() {
  useTitle(t('nav.shards'));
  useStore(self);
  const { data } = useWatch<NodeState>('nodes');
  const shards = data ? Object.values(data.shards).sort((a, b) => a.shard - b.shard) : [];
  return (
    <div class="page">
      <Head title={t('nav.shards')} lead={t('shards.lead')} />
      <MissingNote missing={data?.missing} />
      {!data ? <Card><Skeleton /></Card> : (
        <>
          <Figures>
            <Figure name={t('nav.shards')} value={count(shards.length)} note={t('shards.metadata')} />
            <Figure name={t('shards.leaderless')} value={count(shards.filter((s) => !s.leader).length)} tone={shards.some((s) => !s.leader) ? 'bad' : ''} />
            <Figure name={t('shards.away')} value={count(shards.filter(away).length)} note={t('shards.awayNote')} />
            <Figure name={t('shards.maxLag')} value={count(Math.max(0, ...shards.flatMap((s) => s.replicas.map((r) => r.lag))))} unit={t('entries')} title={t('hint.lag')} />
            <Figure name={t('shards.moves')} value={count(shards.reduce((n, s) => n + s.leader_changes, 0))} note={t('shards.movesNote')} />
          </Figures>
          <Card>
            <Table<Shard> label={t('nav.shards')} columns={shards.some(movable) ? [...columns(), moveColumn] : columns()} rows={shards} id={(s) => String(s.shard)} />
          </Card>
        </>
      )}
    </div>
  );
}

// away: led by another node than the one it is meant for.
const away = (s: Shard): boolean => !!s.leader && !!s.preferred_leader && s.leader !== s.preferred_leader;

// movable: it has another replica that may lead it.
const movable = (s: Shard): boolean => mayChange() && s.replicas.filter((r) => r.live && r.role === 'voter').length > 1;

const columns = (): Column<Shard>[] => [
  { id: 'shard', title: t('shard'), cell: (s) => <span class="name">{s.shard}{s.metadata && <Badge>{t('shard.metadata')}</Badge>}</span> },
  { id: 'leader', title: t('leader'), cell: (s) => (s.leader ? <span class="name"><a href={url(['nodes', s.leader])} data-own>{s.leader}</a>{away(s) && <span class="hide-s"><Badge>{t('shard.away', { node: s.preferred_leader })}</Badge></span>}</span> : <Badge tone="bad" dot>{t('leader.none')}</Badge>) },
  { id: 'since', title: t('shard.since'), num: true, hide: 'hide-m', hint: t('hint.leaderSince'), cell: (s) => (s.leader_since_at ? span((serverNow() - s.leader_since_at) / 1000) : '–') },
  { id: 'moves', title: t('shard.moves'), num: true, hide: 'hide-m', hint: t('shards.movesNote'), cell: (s) => count(s.leader_changes) },
  { id: 'partitions', title: t('partitions'), num: true, hide: 'hide-s', cell: (s) => count(s.partitions) },
  { id: 'replicas', title: t('replicas'), hide: 'hide-s', cell: (s) => <span class="row wrap">{s.replicas.map((r) => <One key={r.node} r={r} leads={r.node === s.leader} />)}</span> },
  { id: 'lag', title: t('shard.lag'), num: true, hint: t('hint.lag'), cell: (s) => count(lag(s)), tone: (s) => (lag(s) > 1000 ? 'warn' : 'zero') },
  { id: 'commit', title: t('shard.commit'), num: true, hide: 'hide-l', cell: (s) => count(s.commit) },
  { id: 'term', title: t('shard.term'), num: true, hide: 'hide-l', cell: (s) => count(s.term) },
];

const moveColumn: Column<Shard> = {
  id: 'act', title: '', num: true, cell: (s) => (movable(s) ? (
    <button type="button" class="button small" aria-label={t('shard.moveOf', { shard: s.shard })} onClick={() => move(s)}><Icon name="move" /><span class="hide-s">{t('shard.move')}</span></button>
  ) : ''),
};

const lag = (s: Shard): number => Math.max(0, ...s.replicas.map((r) => r.lag));

function One({ r, leads }: { r: Replica; leads: boolean }) {
  const up = r.catch_up;
  return (
    <span class="badge" title={t('replica.title', { node: r.node, role: t(r.role === 'learner' ? 'role.learner' : 'role.voter'), lag: count(r.lag) })}>
      <Dot tone={!r.live ? 'bad' : up || r.lag > 1000 ? 'warn' : 'good'} />
      {leads ? <b>{r.node}</b> : r.node}
      {up && <span>{bytes(up.bytes)} / {bytes(up.total_bytes)}</span>}
    </span>
  );
}

const move = (s: Shard): void => show(t('shard.moveOf', { shard: s.shard }), (close) => <Move s={s} close={close} />);

function Move({ s, close }: { s: Shard; close: () => void }) {
  const others = s.replicas.filter((r) => r.node !== s.leader && r.live && r.role === 'voter');
  const [to, set] = useState(others[0]?.node ?? '');
  const line = adminCli('cluster', 'transfer', '--shard', String(s.shard), '--to', to);
  const submit = (e: Event) => {
    e.preventDefault();
    close();
    void act(() => change('POST', address(['shards', s.shard, 'transfer']), { to }), t('shard.moved', { shard: s.shard, node: to }), line);
  };
  return (
    <form onSubmit={submit}>
      <h2>{t('shard.moveOf', { shard: s.shard })}</h2>
      <p class="muted">{t('shard.moveText')}</p>
      <label class="field">
        <span>{t('shard.to')}</span>
        <select class="select" value={to} autofocus onChange={(e) => set(e.currentTarget.value)}>
          {others.map((r) => <option key={r.node} value={r.node}>{r.node}{r.node === s.preferred_leader ? ` (${t('shard.preferred')})` : ''}</option>)}
        </select>
      </label>
      <div class="field"><span>{t('cli.equal')}</span><Cli line={line} /></div>
      <div class="buttons">
        <button type="button" class="button" onClick={close}>{t('cancel')}</button>
        <button type="submit" class="button primary" disabled={!to}>{t('shard.move')}</button>
      </div>
    </form>
  );
}
