/**
 * What `query-migrate` answers, in QMP's shape as far as that goes: status, times, RAM; and what
 * tags cost, which QMP has no word for.
 */
import { PAGE_SIZE } from '../../base/index.ts';
import type { DestinationPhase, MigrationStatistics, SourcePhase } from '../migration/progress.ts';
import type { MachineSession } from './machine-session.ts';

/** QMP's MigrationStatus for a phase of ours. */
const STATUS: Readonly<Record<SourcePhase['kind'] | DestinationPhase['kind'], string>> = {
  connecting: 'setup',
  'pre-copy': 'active',
  'stop-and-copy': 'device',
  'handing-over': 'device',
  'post-copy': 'postcopy-active',
  recovering: 'postcopy-paused',
  completed: 'completed',
  failed: 'failed',
  cancelled: 'cancelled',
  waiting: 'setup',
  receiving: 'active',
  prepared: 'device',
  paused: 'postcopy-paused',
};

export const migrationStatus = ({ kind }: SourcePhase | DestinationPhase): string => STATUS[kind];

/** What is known of the migration that goes on or the last one; `status` 'none' without any. */
export function migrationReport({ outgoing, incoming, machine }: MachineSession) {
  if (outgoing === undefined) {
    return incoming === undefined
      ? { status: 'none' }
      : { status: migrationStatus(incoming.phase), ...errorOf(incoming.phase) };
  }
  const { phase, statistics } = outgoing;
  return {
    status: migrationStatus(phase),
    ...errorOf(phase),
    'total-time': Math.round(statistics.totalMs),
    ...rounded('downtime', statistics.downtimeMs),
    ...rounded('expected-downtime', statistics.expectedDowntimeMs),
    'downtime-limit': outgoing.downtimeLimitMs,
    ...throttleOf(phase),
    ram: ramReport(statistics, machine.setup.plan.ramBytes),
    tags: tagReport(statistics),
  };
}

function ramReport(statistics: MigrationStatistics, ramBytes: number) {
  return {
    total: ramBytes,
    transferred: statistics.bytes,
    remaining: statistics.remainingPages * PAGE_SIZE,
    duplicate: statistics.zeroPages,
    normal: statistics.pages - statistics.zeroPages,
    'page-size': PAGE_SIZE,
    'dirty-sync-count': statistics.rounds,
    'dirty-pages-rate': Math.round(statistics.dirtyPagesPerSecond),
    mbps: (statistics.bytesPerSecond * 8) / 1e6,
    'postcopy-requests': statistics.pagesRequested,
    'sent-again': statistics.pagesSentAgain,
    'put-off': statistics.pagesPutOff,
  };
}

const tagReport = ({ tags, tagBytes }: MigrationStatistics) => ({
  calls: tags.calls,
  bytes: tags.bytes,
  time: Math.round(tags.milliseconds),
  pages: tags.pages,
  transferred: tagBytes,
});

/** As QMP has it: absent while the guest is not held back. */
const throttleOf = (phase: SourcePhase) =>
  phase.kind === 'pre-copy' && phase.throttlePercent > 0
    ? { 'cpu-throttle-percentage': phase.throttlePercent }
    : {};

const rounded = (name: string, value: number | undefined) =>
  value === undefined ? {} : { [name]: Math.round(value) };

const errorOf = (phase: SourcePhase | DestinationPhase) =>
  'error' in phase ? { 'error-desc': phase.error.message } : {};
