// The console of a node. It knows only what the admin API tells.
import { render } from 'preact';
import { useEffect } from 'preact/hooks';
import { start as listen } from './core/keys.ts';
import { line } from './core/live.ts';
import { language, start as choose } from './core/prefs.ts';
import { go, start as route, url, usePlace } from './core/router.ts';
import { load } from './core/self.ts';
import { useStore } from './core/store.ts';
import { t } from './i18n/index.ts';
import { ChannelPage } from './pages/channel.tsx';
import { ChannelsPage } from './pages/channels.tsx';
import { ConfigPage } from './pages/config.tsx';
import { LookupPage } from './pages/lookup.tsx';
import { NodePage, NodesPage } from './pages/nodes.tsx';
import { OverviewPage } from './pages/overview.tsx';
import { ShardsPage } from './pages/shards.tsx';
import { TailPage } from './pages/tail.tsx';
import { TopicPage } from './pages/topic.tsx';
import { TopicsPage } from './pages/topics.tsx';
import { Empty } from './ui/parts.tsx';
import { palette } from './ui/palette.tsx';
import { help, Shell } from './ui/shell.tsx';

function Routed() {
  const [page, name, part, other] = usePlace().path;
  switch (page) {
    case undefined:
      return <OverviewPage />;
    case 'topics':
      if (!name) return <TopicsPage />;
      if (part && !other) return <Moved to={url(['topics', name, 'channels', part])} />;
      if (part === 'channels' && other) return <ChannelPage key={name + '/' + other} topic={name} channel={other} />;
      return <TopicPage key={name} topic={name} />;
    case 'counter':
      return <Moved to={url([])} />;
    case 'channels':
      return <ChannelsPage />;
    case 'nodes':
      return name ? <NodePage key={name} node={name} /> : <NodesPage />;
    case 'shards':
      return <ShardsPage />;
    case 'lookup':
      return <LookupPage />;
    case 'config':
      return <ConfigPage />;
    case 'tail':
      return <TailPage />;
  }
  return <Empty icon="search" title={t('nowhere.title')} text={t('nowhere.text')} />;
}

// Moved is where a link to a page of nsqadmin's leads here.
function Moved({ to }: { to: string }) {
  useEffect(() => go(to, true), [to]);
  return null;
}

function App() {
  useStore(language); // all texts change with it
  return (
    <Shell>
      <Routed />
    </Shell>
  );
}

choose();
document.addEventListener('DOMContentLoaded', () => {
  route();
  listen(help, palette);
  line.watch(() => line.get() === 'on' && void load()); // a node may have come back as another
  void load();
  render(<App />, document.getElementById('app')!);
});
