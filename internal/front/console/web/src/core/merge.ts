// What the stream's patches are.

// merge applies a JSON Merge Patch (RFC 7396), and gives a new object.
export function merge(to: unknown, patch: unknown): unknown {
  if (patch === null || typeof patch !== 'object' || Array.isArray(patch)) return patch;
  const out: Record<string, unknown> =
    to !== null && typeof to === 'object' && !Array.isArray(to) ? { ...(to as Record<string, unknown>) } : {};
  for (const [k, v] of Object.entries(patch)) {
    if (v === null) delete out[k];
    else out[k] = merge(out[k], v);
  }
  return out;
}
