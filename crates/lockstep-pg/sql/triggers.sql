-- The condition follows a rename as key_{n} does, and needs no call for rows that stay where they are.
create or replace trigger lockstep_move after update on {table}
  for each row when ({moved}) execute function lockstep.moved_{n}();
create or replace trigger lockstep_truncate after truncate on {table}
  for each statement execute function lockstep.truncated_{n}();
-- ENABLE ALWAYS: also under session_replication_role = replica.
alter table {table}
  enable always trigger lockstep_insert,
  enable always trigger lockstep_update,
  enable always trigger lockstep_move,
  enable always trigger lockstep_delete;
alter table only {table} enable always trigger lockstep_truncate;
