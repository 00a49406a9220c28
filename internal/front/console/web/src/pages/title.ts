// The title of the tab.
import { useEffect } from 'preact/hooks';

export function useTitle(...words: string[]): void {
  const text = [...words, 'tidings'].join(' · ');
  useEffect(() => {
    document.title = text;
  }, [text]);
}
