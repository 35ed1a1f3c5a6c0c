-- One lockstep command at a time; then no writer of the table. Readers of both never wait for this.
lock table lockstep.tracked in share row exclusive mode;
lock table {table} in share row exclusive mode;
{drop_old}-- Rows inserted and updated, by key. Never published: the rows themselves are. No row is ever updated.
create table lockstep.changes_{n} (
  id bigint generated always as identity primary key,
{changes_columns}  xid bigint not null default (pg_current_xact_id()::text::bigint)
);

-- Keys that are gone from a scope, d: deleted, m: key or scope moved, t: the whole table was truncated (then all null).
create table lockstep.tombstones_{n} (
  id bigint generated always as identity primary key,
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
  -- r.* is the whole row; plain r would be the column of that name where there is one.
  -- The transaction id comes from a subquery so that a statement that touched no row does not assign one.
  if tg_op = 'UPDATE' then
    insert into lockstep.changes_{n} ({names}, xid)
    select {k_names}, (select pg_current_xact_id()::text::bigint)
    from new_rows r, lockstep.key_{n}(r.*) k;
    -- What was there before and is not there after, counted: a row that a cascade updates twice counts twice on both
    -- sides. Grouping takes NULLs as equal, hashes, and spills to disk.
    insert into lockstep.tombstones_{n} ({names}, kind, xid)
    select {names}, 'm', (select pg_current_xact_id()::text::bigint)
    from (
      select {k_names}, 1 as side from old_rows r, lockstep.key_{n}(r.*) k
      union all
      select {k_names}, -1 from new_rows r, lockstep.key_{n}(r.*) k
    ) moved
    group by {names}
    having sum(side) > 0;
  elsif tg_op = 'INSERT' then
    insert into lockstep.changes_{n} ({names}, xid)
    select {k_names}, (select pg_current_xact_id()::text::bigint)
    from new_rows r, lockstep.key_{n}(r.*) k;
  elsif tg_op = 'DELETE' then
    insert into lockstep.tombstones_{n} ({names}, kind, xid)
    select {k_names}, 'd', (select pg_current_xact_id()::text::bigint)
    from old_rows r, lockstep.key_{n}(r.*) k;
  else
    insert into lockstep.tombstones_{n} (kind) values ('t');
  end if;
  return null;
end
$lockstep$;

revoke all on function lockstep.key_{n}, lockstep.log_{n} from public;

-- Statement triggers, fired by everyone (ENABLE ALWAYS: also under session_replication_role = replica).
create or replace trigger lockstep_insert after insert on {table}
  referencing new table as new_rows for each statement execute function lockstep.log_{n}();
create or replace trigger lockstep_update after update on {table}
  referencing old table as old_rows new table as new_rows for each statement execute function lockstep.log_{n}();
create or replace trigger lockstep_delete after delete on {table}
  referencing old table as old_rows for each statement execute function lockstep.log_{n}();
create or replace trigger lockstep_truncate after truncate on {table}
  for each statement execute function lockstep.log_{n}();
alter table only {table}
  enable always trigger lockstep_insert,
  enable always trigger lockstep_update,
  enable always trigger lockstep_delete,
  enable always trigger lockstep_truncate;

-- After the triggers and in their transaction: no writer is in progress, so no transaction is streamed in part.
{publish}{record}