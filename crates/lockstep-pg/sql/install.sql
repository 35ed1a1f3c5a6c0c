-- What `lockstep install` creates. Nothing here touches a table of the application.

create schema lockstep;
comment on schema lockstep is 'Lockstep: change logs and bookkeeping of the sync engine. Remove with: lockstep uninstall';

-- One row. The id names this installation to clients; format is the version of this layout.
create table lockstep.installation (
  id uuid primary key default gen_random_uuid(),
  format int not null,
  allow_foreign_publications bool not null default false,
  installed_at timestamptz not null default now()
);
insert into lockstep.installation (format) values (1);

-- One row per tracked table. "relation" is a plain oid: a regclass of a dropped table would not print or restore.
-- scope_attnums are the columns s1…sn of the logs, key_attnums the columns k1…kn.
-- horizon: the oldest transaction id that the table's logs still reach back to. It only rises.
-- generation: the transaction that built the logs; another one means that clients load the table anew.
-- triggers: "statement" or "row".
-- compacted: every entry of a transaction below was looked at by a compaction.
create table lockstep.tracked (
  log int primary key generated always as identity,
  relation oid not null unique,
  key_attnums int2[] not null,
  scope_attnums int2[] not null,
  horizon bigint not null,
  generation bigint not null,
  compacted bigint not null default 0,
  triggers text not null,
  tracked_at timestamptz not null default now()
);

-- One row per scope of a table. A tracked table without a row here is public.
create table lockstep.scopes (
  log int not null references lockstep.tracked on delete cascade,
  scope int not null,
  attnums int2[] not null,
  primary key (log, scope)
);

-- How far each client's mutations got. Published: the acknowledgement travels with the rows it is about.
create table lockstep.clients (
  subject text not null,
  client text not null,
  last bigint not null,
  id text,
  outcome text,
  code text,
  message text,
  seen_at timestamptz not null default now(),
  primary key (subject, client)
);

-- The outcome of every mutation until its client confirms it.
create table lockstep.mutations (
  subject text not null,
  client text not null,
  n bigint not null,
  id text not null,
  outcome text not null,
  code text,
  message text,
  at timestamptz not null default now(),
  primary key (subject, client, n)
);

-- A random mark per life of the server, left by the first node that comes to it: a mark that is missing later, or one
-- that lies before a cursor and is not the cursor's, shows that the database was rolled back.
-- seen_at: a node still ran under it then; garbage collection goes by it.
create table lockstep.incarnations (
  mark bigint primary key,
  server_started_at timestamptz not null unique default pg_catalog.pg_postmaster_start_time(),
  at_lsn pg_lsn not null default pg_catalog.pg_current_wal_insert_lsn(),
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now()
);

-- Samples that turn a time into a transaction id: every transaction below xid had ended at that time.
create table lockstep.clock (
  id bigint primary key generated always as identity,
  at timestamptz not null default clock_timestamp(),
  xid bigint not null
);
