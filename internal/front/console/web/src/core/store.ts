// A value that components watch.
import { useEffect, useState } from 'preact/hooks';

export class Store<T> {
  private watchers = new Set<() => void>();

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const w of [...this.watchers]) w();
  }

  watch(w: () => void): () => void {
    this.watchers.add(w);
    return () => this.watchers.delete(w);
  }
}

// useStore renders the component again whenever the value changes.
export function useStore<T>(store: Store<T>): T {
  const [, render] = useState(0);
  const shown = store.get();
  useEffect(() => {
    const again = () => render((n) => n + 1);
    if (!Object.is(store.get(), shown)) again(); // it changed before anybody watched
    return store.watch(again);
  }, [store]);
  return shown;
}
