// The admin API's shapes (openapi.yaml); what each field means stands there.
// A member that is null there may be missing in what the stream gives.
export type Rate = number | null | undefined; // per second
export type Age = number | null | undefined; // milliseconds
export type At = number; // unix milliseconds

export interface Missing {
  node: string;
  reason: string;
}

export interface Failure {
  code: string;
  message: string;
  next?: string;
}

export interface Done {
  cli: string;
  count?: number;
  waits?: string;
}

export interface Addresses {
  tcp?: string;
  http?: string;
  https?: string;
  admin?: string;
  cluster?: string;
  lookup_tcp?: string;
  lookup_http?: string;
  broadcast?: string;
}

export interface Self {
  node: string;
  version: string;
  nsq_version: string;
  go_version: string;
  platform: string;
  started_at: At;
  now_at: At;
  cluster: string;
  alone: boolean;
  stage: string;
  read_only: boolean;
  ready: boolean;
  not_ready_reason?: string;
  addresses: Addresses;
  limits: { max_msg_bytes: number; max_defer_ms: number };
}

export interface Target {
  topic?: string;
  channel?: string;
  node?: string;
  shard?: number;
}

export interface Finding {
  id: string;
  severity: 'critical' | 'warning' | 'info';
  code: string;
  text: string;
  next?: string;
  target: Target;
  values: Record<string, number | string>;
  link: string;
  since_at?: At;
}

export interface Totals {
  topics: number;
  channels: number;
  consumers: number;
  connections: number;
  in_rate: Rate;
  in_bytes_rate: Rate;
  out_rate: Rate;
  delivered_rate: Rate;
  requeue_rate: Rate;
  timeout_rate: Rate;
  backlog: number;
  waiting: number;
  in_flight: number;
  deferred: number;
  oldest_age_ms: Age;
  oldest?: Target;
  log_bytes: number;
}

export interface Overview {
  at: At;
  cluster: string;
  healthy: boolean;
  totals: Totals;
  nodes: NodeRow[];
  shards: { total: number; leaderless: number; behind: number };
  findings: Finding[];
  findings_more: number;
  oldest: ChannelRow[];
  backlogs: ChannelRow[];
  busiest: TopicRow[];
  missing: Missing[];
}

export interface History {
  at: At;
  step_ms: number;
  points: { at: At; in_rate: Rate; out_rate: Rate; backlog: number; oldest_age_ms: number }[];
}

export interface TopicRow {
  name: string;
  paused: boolean;
  ephemeral: boolean;
  partitions: number;
  channels: number;
  consumers: number;
  waiting: number;
  backlog: number;
  in_flight: number;
  deferred: number;
  oldest_age_ms: Age;
  in_rate: Rate;
  in_bytes_rate: Rate;
  out_rate: Rate;
  records_total: number;
  bytes_total: number;
  log_bytes: number;
}

export interface Page<T> {
  at: At;
  items: T[];
  total: number;
  next?: string;
  missing: Missing[];
}

export interface TopicRows {
  at: At;
  order: string[];
  rows: Record<string, TopicRow>;
  total: number;
  missing: Missing[];
}

export interface Partition {
  partition: number;
  shard: number;
  leader: string;
  replicas: string[];
  known: boolean;
  start_offset?: number;
  end_offset?: number;
  hand_over_offset?: number;
  records_total?: number;
  bytes_total?: number;
  log_bytes?: number;
}

export interface TopicState extends TopicRow {
  at: At;
  id: string;
  created_at: At;
  ack: string;
  ack_effective: string;
  home?: string;
  active_partitions: number;
  partition_list: Partition[];
  missing: Missing[];
  channel_rows: Record<string, ChannelRow>;
}

export interface ChannelRow {
  topic: string;
  name: string;
  paused: boolean;
  ephemeral: boolean;
  consumers: number;
  backlog: number;
  in_flight: number;
  deferred: number;
  oldest_age_ms: Age;
  in_rate: Rate;
  out_rate: Rate;
  requeue_rate: Rate;
  timeout_rate: Rate;
  records_total: number;
  requeued_total: number;
  timed_out_total: number;
}

export interface ChannelPartition {
  partition: number;
  leader: string;
  known: boolean;
  floor_offset?: number;
  end_offset?: number;
  unfinished?: number;
  parked?: number;
  finished_ranges?: number;
  oldest_at?: At;
}

export interface ChannelDetail extends ChannelRow {
  at: At;
  id?: string;
  created_at?: At;
  topic_paused: boolean;
  max_attempts: number;
  dead_letter?: string;
  dead_lettered_total: number;
  partition_list: ChannelPartition[];
  missing: Missing[];
}

export interface Consumer {
  id: string;
  node: string;
  client_id: string;
  hostname: string;
  remote_address: string;
  user_agent: string;
  connected_at: At;
  ready: number;
  in_flight: number;
  delivered_total: number;
  finished_total: number;
  requeued_total: number;
  timed_out_total: number;
  msg_timeout_ms?: number;
  sample_rate?: number;
  tls: boolean;
  compression: string;
  auth_identity?: string;
  region?: string;
  zone?: string;
}

export interface Message {
  partition: number; // -1: of an ephemeral topic
  offset: number;
  id: string;
  timestamp_at: At;
  timestamp_ns: string;
  key?: string; // base64, as name, headers and body
  name?: string;
  headers?: Record<string, string>;
  size_bytes: number;
  body: string;
  truncated: boolean;
  attempts?: number;
  state?: 'queued' | 'in_flight' | 'deferred';
  due_at?: At;
  deadline_at?: At;
  delivered_at?: At;
  consumer?: string;
}

export interface Gap {
  partition: number;
  first: number;
  last: number;
  reason: 'deleted' | 'damaged';
}

export interface MessagePage {
  at: At;
  items: Message[];
  next?: string;
  prev?: string;
  gaps: Gap[];
  scanned: { records: number; bytes: number; complete: boolean };
  note?: string;
  missing: Missing[];
}

export interface TailBatch {
  at: At;
  items: Message[];
  left_out: number;
  missing?: Missing[];
}

export interface NodeRow {
  name: string;
  raft_id?: string;
  self: boolean;
  state: 'live' | 'down' | 'unknown' | 'gone' | 'starting';
  answered: boolean;
  ready?: boolean;
  not_ready_reason?: string;
  seen_ms?: number;
  live_ms?: number;
  version?: string;
  started_at?: At;
  addresses?: Addresses;
  leads: number;
  replicas: number;
  in_rate?: Rate;
  in_bytes_rate?: Rate;
  delivered_rate?: Rate;
  connections?: number;
  consumers?: number;
  sync_ms?: number;
  disk_free_bytes?: number;
  disk_reserve_reached?: boolean;
  memory_bytes?: number;
  goroutines?: number;
  spool?: Spool;
}

export interface Spool {
  depth: number;
  oldest_age_ms: number;
  bytes: number;
  limit_bytes: number;
  forwarded_total: number;
  refused_total: number;
  connected: boolean;
  error?: string;
}

export interface LogSync {
  log_bytes: number;
  syncs_total: number;
  sync_mean_ms: number;
  sync_p50_ms: number;
  sync_p99_ms: number;
  sync_max_ms: number;
  segments_recycled_total: number;
  cut_bytes: number;
  tail_bytes: number;
  segments: number;
  damage_total: number;
}

export interface NodeDetail extends NodeRow {
  at: At;
  log?: LogSync;
  shards: { shard: number; leads: boolean; role: string; applied: number; lag: number }[];
}

export interface Replica {
  node: string;
  role: 'voter' | 'learner';
  applied: number;
  lag: number;
  live: boolean;
  catch_up?: { stage: string; bytes: number; total_bytes: number; bytes_rate: number };
}

export interface Shard {
  shard: number;
  metadata: boolean;
  leader: string;
  preferred_leader: string;
  term: number;
  commit: number;
  partitions: number;
  leader_changes: number;
  leader_since_at?: At;
  replicas: Replica[];
}

export interface NodeState {
  at: At;
  nodes: Record<string, NodeRow>;
  shards: Record<string, Shard>;
  missing: Missing[];
}

export interface Lookup {
  served: boolean;
  lookupds: { address: string; connected: boolean; error?: string; version?: string; hostname?: string }[];
  producers: {
    hostname: string;
    broadcast_address: string;
    tcp_port: number;
    http_port: number;
    version: string;
    remote_address?: string;
    member: boolean;
    topics?: number;
    last_ping_at?: At;
    tombstones?: string[];
  }[];
  producers_total: number;
}

export interface Setting {
  key: string;
  flag: string;
  env: string;
  type: string;
  value: string;
  default: string;
  origin: 'default' | 'file' | 'environment' | 'flag' | 'unknown';
  secret?: boolean;
  help: string;
}

export interface Config {
  file?: string;
  settings: Setting[];
}
