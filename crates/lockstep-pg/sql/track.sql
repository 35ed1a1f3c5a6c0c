-- One lockstep command at a time; then no writer of the table. Readers of both never wait for this.
lock table lockstep.tracked in share row exclusive mode;
lock table {table} in share row exclusive mode;
{drop_old}-- Both logs draw from one sequence, so that the entries of one scope and key are in the order in which they were
-- written. Compaction relies on it; a sequence with a CACHE would break it.
create sequence lockstep.entry_{n} cache 1;

-- Rows inserted and updated, by key. Never published: the rows themselves are. No row is ever updated.
create table lockstep.changes_{n} (
  id bigint primary key default nextval('lockstep.entry_{n}'),
{changes_columns}  xid bigint not null default (pg_current_xact_id()::text::bigint)
);

-- Keys that are gone from a scope, d: deleted, m: key or scope moved, t: the whole table was truncated, p: one
-- partition was (then all null).
create table lockstep.tombstones_{n} (
  id bigint primary key default nextval('lockstep.entry_{n}'),
{tombstones_columns}  xid bigint not null default (pg_current_xact_id()::text::bigint),
  kind "char" not null
);

{indexes}-- The only place that names columns of the application's table. The parsed body follows a rename; dropping a column
-- used here, or changing its type, fails when the migration runs and not at the next write.
create function lockstep.key_{n}(r {table})
returns table ({returns})
language sql stable
begin atomic
  select {select};
end;

-- Only ever INSERTs: an UPDATE here would fail the application's REPEATABLE READ transactions.
-- jit = off: its plans are cached, and one that was made for a huge statement would be compiled again for every small one.
create or replace function lockstep.log_{n}() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $lockstep$
begin
{log_body}  return null;
end
$lockstep$;

revoke all on function lockstep.key_{n}, lockstep.log_{n} from public;

{triggers}
-- After the triggers and in their transaction: no writer is in progress, so no transaction is streamed in part.
{publish}{record}