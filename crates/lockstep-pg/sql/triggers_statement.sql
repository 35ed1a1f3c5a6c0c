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
