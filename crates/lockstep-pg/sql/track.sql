-- One lockstep command at a time; then no writer of the table. Readers of both never wait for this.
lock table lockstep.tracked in share row exclusive mode;
lock table {table} in share row exclusive mode;
{drop_old}-- Both logs draw from one sequence, so that the entries of one scope and key are in the order in which they were
-- written. Compaction relies on it; a sequence with a CACHE would break it. An index on it would cost every write; the
-- replica identity lets GC delete under anybody's publication FOR ALL TABLES.
-- txid_current() is pg_current_xact_id() as a bigint, and is drawn for each row: a statement without rows draws none.
create sequence lockstep.entry_{n} cache 1;

-- Rows inserted and updated, by key. Never published: the rows themselves are. No row is ever updated.
create table lockstep.changes_{n} (
  id bigint not null default nextval('lockstep.entry_{n}'),
{changes_columns}  xid bigint not null default txid_current()
);

-- Keys that are gone from a scope, d: deleted, m: key or scope moved, t: the whole table was truncated, p: one
-- partition was (then all null).
create table lockstep.tombstones_{n} (
  id bigint not null default nextval('lockstep.entry_{n}'),
{tombstones_columns}  xid bigint not null default txid_current(),
  kind "char" not null
);

alter table lockstep.changes_{n} replica identity full;
alter table lockstep.tombstones_{n} replica identity full;

{indexes}-- The only place that names columns of the application's table. The parsed body follows a rename; dropping a column
-- used here, or changing its type, fails when the migration runs and not at the next write.
create function lockstep.key_{n}(r {table})
returns table ({returns})
language sql stable
begin atomic
  select {select};
end;

{functions}
revoke all on function lockstep.key_{n}, lockstep.put_{n}, lockstep.gone_{n}, lockstep.moved_{n}, lockstep.truncated_{n}
  from public;

{triggers}
-- After the triggers and in their transaction: no writer is in progress, so no transaction is streamed in part.
{publish}{record}