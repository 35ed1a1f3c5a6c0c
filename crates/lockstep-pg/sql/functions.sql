
-- Where a row was before its key or a scope changed. A place that another row takes in the same statement gets a
-- tombstone as well, which is one too many and harmless: it only says where to look.
create or replace function lockstep.moved_{n}() returns trigger
language plpgsql security definer
as $lockstep$
begin
  if pg_catalog.to_regproc('lockstep.key_{n}') is null then return null; end if;
  insert into lockstep.tombstones_{n} ({names}, kind) select {k_names}, 'm' from lockstep.key_{n}(old) k;
  return null;
end
$lockstep$;

-- p: one partition was truncated. The stream names the partitioned table only and does not tell.
create or replace function lockstep.truncated_{n}() returns trigger
language plpgsql security definer
as $lockstep$
begin
  if pg_catalog.to_regproc('lockstep.key_{n}') is null then return null; end if;
  insert into lockstep.tombstones_{n} (kind) values (case when tg_nargs operator(pg_catalog.>) 0 then 'p' else 't' end);
  return null;
end
$lockstep$;
