// A page for what is not there, or cannot be had.
import type { Failure } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Card, Empty, Head, type Crumb } from '../ui/parts.tsx';

export function Gone(p: { crumbs: Crumb[]; title: string; failure: Failure; cli?: string }) {
  const missing = p.failure.code.endsWith('NOT_FOUND');
  return (
    <div class="page">
      <Head crumbs={p.crumbs} title={p.title} />
      <Card>
        <Empty icon={missing ? 'search' : 'warn'} title={missing ? t('gone.title', { name: p.title }) : p.failure.message} text={missing ? t('gone.text') : p.failure.next} cli={missing ? p.cli : undefined} />
      </Card>
    </div>
  );
}
