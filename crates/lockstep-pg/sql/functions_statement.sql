-- Only ever INSERTs: an UPDATE here would fail the application's REPEATABLE READ transactions.
-- They run with their owner's rights and with the path of whoever writes: every name is qualified, and so is every
-- operator. The transition tables come before any table of their name. r.* is the whole row; plain r would be the column
-- of that name where there is one.
-- Dropping a column of key or scope with CASCADE takes key_{n} along. The application's writes go on; nodes see that the
-- log is broken.
-- jit = off: the plans are cached, and one that was made for a huge statement would be compiled again for every small one.
create or replace function lockstep.put_{n}() returns trigger
language plpgsql security definer
set jit = off
as $lockstep$
begin
  if pg_catalog.to_regproc('lockstep.key_{n}') is null then return null; end if;
  insert into lockstep.changes_{n} ({names})
  select {k_names} from new_rows r, lockstep.key_{n}(r.*) k;
  return null;
end
$lockstep$;

create or replace function lockstep.gone_{n}() returns trigger
language plpgsql security definer
set jit = off
as $lockstep$
begin
  if pg_catalog.to_regproc('lockstep.key_{n}') is null then return null; end if;
  insert into lockstep.tombstones_{n} ({names}, kind)
  select {k_names}, 'd' from old_rows r, lockstep.key_{n}(r.*) k;
  return null;
end
$lockstep$;
