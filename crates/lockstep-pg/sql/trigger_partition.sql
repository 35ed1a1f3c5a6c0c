create or replace trigger lockstep_truncate after truncate on {table}
  for each statement execute function lockstep.truncated_{n}('partition');
alter table only {table} enable always trigger lockstep_truncate;
