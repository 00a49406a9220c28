// The pages that one can go to from anywhere.
import type { Key } from '../i18n/index.ts';
import type { IconName } from './icons.tsx';

export interface Entry {
  key: string; // after g; core/keys.ts says where it leads
  text: Key;
  icon: IconName;
  cluster?: boolean;
}

export const entries: Entry[] = [
  { key: 'o', text: 'nav.overview', icon: 'overview' },
  { key: 't', text: 'nav.topics', icon: 'topics' },
  { key: 'h', text: 'nav.channels', icon: 'empty' },
  { key: 'v', text: 'nav.tail', icon: 'tail' },
  { key: 'n', text: 'nav.nodes', icon: 'nodes', cluster: true },
  { key: 's', text: 'nav.shards', icon: 'shards', cluster: true },
  { key: 'l', text: 'nav.lookup', icon: 'lookup', cluster: true },
  { key: 'c', text: 'nav.config', icon: 'config', cluster: true },
];
