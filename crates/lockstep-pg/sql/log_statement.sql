  -- Dropping a column of key or scope with CASCADE takes this function along. The application's writes go on; nodes see
  -- that the log is broken.
  if to_regproc('lockstep.key_{n}') is null then
    return null;
  end if;
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
