// Charts of the last minutes, drawn by uPlot in the theme's colours.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { tick } from '../core/format.ts';
import { serverNow, line as streamLine } from '../core/live.ts';
import { shade } from '../core/prefs.ts';
import { begun, SPAN, upTo } from '../core/series.ts';
import { useStore } from '../core/store.ts';

export interface Line {
  name: string;
  number: number; // which line of the series
  tint: string; // a custom property's name
  fill?: boolean;
}

export interface ChartProps {
  watch: string;
  lines: Line[];
  show: (v: number) => string;
  label: string;
  tall?: boolean;
  steps?: number[]; // between labels of the axis
}

// wholeSteps part an axis of counts, where halves mean nothing.
const wholeSteps = [1, 2, 5, ...Array.from({ length: 12 }, (_, i) => [10, 20, 25, 50].map((n) => n * 10 ** i)).flat()];

// parted gives the labels of an axis up to a largest value: four steps at most.
function parted(max: number, steps: number[]): number[] {
  const step = steps.find((s) => max / s <= 4) ?? max / 4;
  return Array.from({ length: Math.max(1, Math.ceil(max / step)) + 1 }, (_, i) => i * step);
}

// timeSteps part an axis of seconds where a clock would.
export const timeSteps = [0.001, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 43_200, 86_400, 172_800, 604_800];

const LEAST = 60; // a chart that has just begun shows this much

// reach is the time axis: it grows with what is there, up to SPAN.
function reach(u: uPlot): [number, number] {
  const times = u.data[0] ?? [];
  const end = times.at(-1) ?? Date.now() / 1000;
  return [Math.max(end - SPAN, Math.min(times[0] ?? end, end - LEAST)), end];
}

function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
}

const hour = (s: number): string => {
  const d = new Date(s * 1000);
  return [d.getHours(), d.getMinutes(), d.getSeconds()].map((n) => String(n).padStart(2, '0')).join(':');
};

// moments labels the time axis, without the seconds where they say nothing, and
// without a label that the edge would cut.
function moments(u: uPlot, list: number[]): string[] {
  const whole = list.every((s) => s % 60 === 0);
  const edge = u.bbox.width / devicePixelRatio - (whole ? 4 : 12);
  return list.map((s) => (u.valToPos(s, 'x') > edge ? '' : whole ? hour(s).slice(0, 5) : hour(s)));
}

function options(p: ChartProps, width: number, height: number, tip: (u: uPlot) => void): uPlot.Options {
  const steps = p.steps ?? wholeSteps;
  const grid = { stroke: token('line'), width: 1 };
  const axis = { stroke: token('ink-3'), font: `11px ${token('font')}`, grid, ticks: { show: false }, border: { show: false } };
  return {
    width,
    height,
    padding: [8, 12, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 6, fill: (_u, i) => token(p.lines[i - 1]!.tint), stroke: () => token('surface'), width: 2 } },
    scales: {
      x: { time: true, range: reach },
      y: { range: (_u, _min, max) => [0, parted(max ?? 0, steps).at(-1)!] },
    },
    axes: [
      { ...axis, grid: { show: false }, space: 90, size: 24, values: moments },
      { ...axis, size: gutter, splits: (_u, _i, _min, max) => parted(max, steps), values: (_u, list) => list.map((v) => (p.steps ? p.show(v) : tick(v))) },
    ],
    series: [
      {},
      ...p.lines.map((l) => ({
        label: l.name,
        stroke: token(l.tint),
        width: 1.5,
        points: { show: false },
        fill: l.fill ? token(l.tint) + '1f' : undefined,
      })),
    ],
    hooks: { setCursor: [tip] },
  };
}

// gutter is as wide as the longest label of the axis.
function gutter(_u: uPlot, labels: string[] | null): number {
  const width = (s: string): number => [...s].reduce((n, c) => n + (c > '\u2e7f' ? 12 : 6.6), 0);
  return 14 + Math.max(20, ...(labels ?? []).map(width));
}

interface Tip {
  left: number;
  time: string;
  values: string[];
}

export function Chart(p: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [tip, setTip] = useState<Tip | null>(null);
  const theme = useStore(shade);
  const on = useStore(streamLine) === 'on';
  const start = useStore(begun);
  const numbers = p.lines.map((l) => l.number);
  const data = (): uPlot.AlignedData => upTo(p.watch, on ? serverNow() / 1000 : 0, numbers) as uPlot.AlignedData;

  useLayoutEffect(() => {
    const el = box.current!;
    const point = (u: uPlot): void => {
      const i = u.cursor.idx;
      if (i === null || i === undefined || (u.cursor.left ?? -1) < 0) return setTip(null);
      setTip({
        left: u.valToPos(u.data[0][i]!, 'x') + u.bbox.left / devicePixelRatio,
        time: hour(u.data[0][i]!),
        values: p.lines.map((_, n) => (u.data[n + 1]![i] == null ? '–' : p.show(u.data[n + 1]![i]!))),
      });
    };
    const u = (plot.current = new uPlot(options(p, el.clientWidth, el.clientHeight, point), data(), el));
    const size = new ResizeObserver(() => u.setSize({ width: el.clientWidth, height: el.clientHeight }));
    size.observe(el);
    return () => {
      size.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [p.watch, theme, p.lines.map((l) => l.name).join()]);

  useEffect(() => {
    const draw = () => {
      if (!document.hidden) plot.current?.setData(data());
    };
    draw();
    const timer = setInterval(draw, 1000);
    return () => clearInterval(timer);
  }, [p.watch, on, start]);

  const late = tip && box.current && tip.left > box.current.clientWidth / 2;
  return (
    <div class="stack">
      <div class={'chart' + (p.tall ? ' tall' : '')} ref={box} role="img" aria-label={p.label}>
        {tip && (
          <div class="tip" style={late ? { right: `${box.current!.clientWidth - tip.left + 12}px`, top: '8px' } : { left: `${tip.left + 12}px`, top: '8px' }}>
            <div class="faint">{tip.time}</div>
            {p.lines.map((l, i) => (
              <div key={l.name} class="legend">
                <span>
                  <i style={{ '--tint': `var(--${l.tint})` }} /> {l.name} <b>{tip.values[i]}</b>
                </span>
              </div>
            ))}
          </div>
        )}
      </div>
    </div>
  );
}

export function Legend({ lines }: { lines: Line[] }) {
  return (
    <div class="legend">
      {lines.map((l) => (
        <span key={l.name}>
          <i style={{ '--tint': `var(--${l.tint})` }} />
          {l.name}
        </span>
      ))}
    </div>
  );
}
