// Going anywhere by name: pages, topics and channels, proposed by the server.
import { useState } from 'preact/hooks';
import { address, useGet } from '../core/api.ts';
import { places } from '../core/keys.ts';
import { go, url } from '../core/router.ts';
import type { ChannelRow, Page, TopicRow } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { show } from './ask.tsx';
import { Icon, type IconName } from './icons.tsx';
import { entries } from './nav.ts';

interface Goal {
  id: string;
  icon: IconName;
  text: string;
  to: string;
  hint?: string;
}

const EACH = 6; // topics and channels that are proposed

export const palette = (): void => show(t('palette.title'), (close) => <Palette close={close} />);

function Palette({ close }: { close: () => void }) {
  const [typed, type] = useState('');
  const [at, move] = useState(0);
  const q = typed.trim();
  const topics = useGet<Page<TopicRow>>(address(['topics'], { q, limit: EACH, sort: q ? 'name' : '-backlog' }));
  const channels = useGet<Page<ChannelRow>>(q ? address(['channels'], { q, limit: EACH }) : null);
  const goals: Goal[] = [
    ...entries
      .filter((e) => t(e.text).toLowerCase().includes(q.toLowerCase()))
      .map((e) => ({ id: e.key, icon: e.icon, text: t(e.text), to: url(places[e.key]!), hint: `g ${e.key}` })),
    ...(topics.data?.items ?? []).map((x): Goal => ({ id: 't/' + x.name, icon: 'topics', text: x.name, to: url(['topics', x.name]) })),
    ...(q ? (channels.data?.items ?? []) : []).map((c): Goal => ({
      id: `c/${c.topic}/${c.name}`, icon: 'empty', text: `${c.topic} / ${c.name}`, to: url(['topics', c.topic, 'channels', c.name]),
    })),
  ];
  const chosen = Math.min(at, goals.length - 1);
  const leave = (g: Goal | undefined) => {
    if (!g) return;
    close();
    go(g.to);
  };
  const key = (e: KeyboardEvent) => {
    const by = e.key === 'ArrowDown' ? 1 : e.key === 'ArrowUp' ? -1 : 0;
    if (by) {
      e.preventDefault();
      const next = (chosen + by + goals.length) % goals.length;
      move(next);
      document.getElementById('goal-' + next)?.scrollIntoView({ block: 'nearest' });
    } else if (e.key === 'Enter') {
      e.preventDefault();
      leave(goals[chosen]);
    }
  };
  return (
    <div class="palette">
      <div class="search">
        <Icon name="search" />
        <input class="input" role="combobox" aria-expanded="true" aria-controls="goals" aria-activedescendant={chosen >= 0 ? 'goal-' + chosen : undefined} aria-label={t('palette.title')} placeholder={t('palette.hint')} autofocus autocomplete="off" spellcheck={false}
          value={typed} onInput={(e) => (type(e.currentTarget.value), move(0))} onKeyDown={key} />
      </div>
      <ul id="goals" role="listbox" aria-label={t('palette.title')}>
        {goals.map((g, i) => (
          <li key={g.id} id={'goal-' + i} role="option" aria-selected={i === chosen} onPointerMove={() => i !== chosen && move(i)} onClick={() => leave(g)}>
            <Icon name={g.icon} />
            <span class="grow">{g.text}</span>
            {g.hint && <kbd>{g.hint}</kbd>}
          </li>
        ))}
      </ul>
      {goals.length === 0 && <p class="calm">{t('nothing.found')}</p>}
    </div>
  );
}
