// Line icons on a 16-px grid.
const shapes = {
  overview: 'M2.5 9.5v4M6.2 6v7.5M9.8 8.2v5.3M13.5 2.5v11',
  topics: 'M2.5 4h11M2.5 8h11M2.5 12h7',
  nodes: 'M2.5 3h11v4h-11zM2.5 9h11v4h-11zM5 5h.01M5 11h.01',
  shards: 'M8 1.8 13.8 5 8 8.2 2.2 5zM2.2 8 8 11.2 13.8 8M2.2 11 8 14.2 13.8 11',
  lookup: 'M8 2a5.5 5.5 0 1 0 0 11A5.5 5.5 0 0 0 8 2zM2.5 7.5h11M8 2c2 1.6 2.6 3.4 2.6 5.5S10 11.4 8 13M8 2C6 3.6 5.4 5.4 5.4 7.5S6 11.4 8 13',
  config: 'M2.5 4.5h6M12 4.5h1.5M2.5 11.5H4M7.5 11.5h6M10.250 2.750v3.5M5.750 9.750v3.5',
  tail: 'M1.8 8.5h2.7l2-5.5 3 10 2-4.5h2.7',
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3l3.2 3.2',
  right: 'M6 3.5 10.5 8 6 12.5',
  up: 'M4 10l4-4 4 4',
  down: 'M4 6l4 4 4-4',
  copy: 'M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3',
  check: 'M3 8.5l3.2 3.2L13 4.8',
  ok: 'M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM5.3 8.2l1.9 1.9 3.5-3.8',
  warn: 'M8 2.2 14.3 13H1.7zM8 6.3v3.2M8 11.4h.01',
  bad: 'M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM8 5v3.5M8 10.9h.01',
  pause: 'M5.5 3v10M10.5 3v10',
  play: 'M4.8 3v10l8-5z',
  trash: 'M2.8 4.5h10.4M6.3 4.5V2.8h3.4v1.7M4.2 4.5l.6 8.7h6.4l.6-8.7',
  empty: 'M2.5 9.5 4 3.5h8l1.5 6v3.5h-11zM2.5 9.5h3.3l.8 1.5h2.8l.8-1.5h3.3',
  send: 'M14 2 7 9M14 2 9.5 14 7 9 2 6.5z',
  split: 'M2.5 8h4M6.5 8c2.500 0 2.500-4 5-4h2M6.5 8h7M6.5 8c2.500 0 2.500 4 5 4h2',
  plus: 'M8 3v10M3 8h10',
  close: 'M4 4l8 8M12 4l-8 8',
  sun: 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.85.85M11.750 11.750l.85.85M3.4 12.6l.85-.85M11.750 4.250l.85-.85',
  moon: 'M13.5 9.3A5.6 5.6 0 0 1 6.7 2.5a5.7 5.7 0 1 0 6.8 6.8z',
  auto: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 2v12M8 5l3.8-1.3M8 8h6M8 11l3.8 1.3',
  help: 'M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM6.2 6.3a1.8 1.8 0 1 1 2.6 1.6c-.5.3-.8.6-.8 1.1M8 11.2h.01',
  menu: 'M2.5 4.5h11M2.5 8h11M2.5 11.5h11',
  move: 'M2.5 5.5h10M9.5 2.5l3 3-3 3M13.5 11h-10M6.5 8l-3 3 3 3',
  refresh: 'M13.2 7a5.3 5.3 0 1 0-1.3 4.5M13.5 3v4h-4',
  skip: 'M3 3.5v9l6-4.5zM12.5 3.5v9',
  language: 'M2 3.5h7M5.5 2v1.5M7.8 3.5C7 6.5 5 8.5 2.5 9.5M3.5 5.8c.8 1.6 2.3 2.9 4 3.7M7.5 14l3-7.5L13.5 14M8.5 11.5h4',
} as const;

export type IconName = keyof typeof shapes;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg viewBox="0 0 16 16" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
      <path d={shapes[name]} />
    </svg>
  );
}

// Mark is the sign of tidings.
export function Mark() {
  return (
    <svg viewBox="0 0 32 32" width="20" height="20" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="#2f5bd7" />
      <path d="M8 11h16M8 16h11M8 21h6" stroke="#fff" stroke-width="2.6" stroke-linecap="round" />
      <circle cx="22" cy="21" r="2.6" fill="#fff" />
    </svg>
  );
}
