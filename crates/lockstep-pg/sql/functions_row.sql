-- Only ever INSERTs: an UPDATE here would fail the application's REPEATABLE READ transactions.
-- They run with their owner's rights and with the path of whoever writes: every name is qualified, and so is every
-- operator.
-- Dropping a column of key or scope with CASCADE takes key_{n} along. The application's writes go on; nodes see that the
-- log is broken.
-- On a partition new and old have its row type; they become the partitioned table's, by the columns' names.
create or replace function lockstep.put_{n}() returns trigger
language plpgsql security definer
as $lockstep$
begin
  if pg_catalog.to_regproc('lockstep.key_{n}') is null then return null; end if;
  insert into lockstep.changes_{n} ({names}) select {k_names} from lockstep.key_{n}(new) k;
  return null;
end
$lockstep$;

create or replace function lockstep.gone_{n}() returns trigger
language plpgsql security definer
as $lockstep$
begin
  if pg_catalog.to_regproc('lockstep.key_{n}') is null then return null; end if;
  insert into lockstep.tombstones_{n} ({names}, kind) select {k_names}, 'd' from lockstep.key_{n}(old) k;
  return null;
end
$lockstep$;
