// What the server says in the page itself.
function meta(name: string): string {
  return document.querySelector<HTMLMetaElement>(`meta[name="tidings-${name}"]`)?.content ?? '';
}

export const base = meta('base') || '/';
export const readOnly = meta('read-only') === 'true';
