  -- Dropping a column of key or scope with CASCADE takes this function along. The application's writes go on; nodes see
  -- that the log is broken.
  if to_regproc('lockstep.key_{n}') is null then
    return null;
  end if;
  -- On a partition new and old have its row type; they become the partitioned table's, by the columns' names.
  if tg_op = 'UPDATE' then
    insert into lockstep.changes_{n} ({names}) select {k_names} from lockstep.key_{n}(new) k;
    insert into lockstep.tombstones_{n} ({names}, kind)
    select {k_names}, 'm' from lockstep.key_{n}(old) k, lockstep.key_{n}(new) j
    where row({k_names}) is distinct from row({j_names});
  elsif tg_op = 'INSERT' then
    insert into lockstep.changes_{n} ({names}) select {k_names} from lockstep.key_{n}(new) k;
  elsif tg_op = 'DELETE' then
    insert into lockstep.tombstones_{n} ({names}, kind) select {k_names}, 'd' from lockstep.key_{n}(old) k;
  else
    -- p: one partition was truncated. The stream names the partitioned table only and does not tell.
    insert into lockstep.tombstones_{n} (kind) values (case tg_nargs when 0 then 't' else 'p' end);
  end if;
